package load

import (
	"fmt"
	"slices"
)

// DropReasons counts dropped packets, by the inode of a namespace and by reason.
type DropReasons interface {
	Read() (map[uint64]map[string]int64, error)
}

// purged is the kernel's reason for what waits in the queues of a socket that is
// closed, which is no loss: every measurement closes its own.
const purged = "QUEUE_PURGE"

// reasons are the counts of the namespaces looked at, by label.
func (w Watch) reasons() (map[string]map[string]int64, error) {
	all, err := w.Reasons.Read()
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]int64{}
	if lost := all[0]; lost != nil { // not counted anywhere
		out[""] = lost
	}
	for _, p := range w.Spaces {
		inode, err := p.NS.Inode()
		if err != nil {
			return nil, fmt.Errorf("look for the drops of %s: %w", p.Label, err)
		}
		out[p.Label] = all[inode]
		delete(all[inode], purged)
	}
	return out, nil
}

// dropCounters are the protocols' counters of dropped packets (linux
// net/ipv4/proc.c): what there is where the kernel gives no reasons.
var dropCounters = []string{
	"Ip.InHdrErrors", "Ip.InAddrErrors", "Ip.InDiscards", "Ip.OutDiscards", "Ip.OutNoRoutes", "IpExt.InNoRoutes", "IpExt.InTruncatedPkts",
	"Ip.ReasmFails", "Ip.FragFails", "Tcp.InErrs", "TcpExt.TCPBacklogDrop", "TcpExt.TCPRcvQDrop", "TcpExt.TCPOFODrop", "TcpExt.ListenDrops",
	"TcpExt.PFMemallocDrop", "TcpExt.TCPMinTTLDrop", "TcpExt.IPReversePathFilter", "TcpExt.TCPZeroWindowDrop",
	"Udp.NoPorts", "Udp.RcvbufErrors", "Udp.SndbufErrors", "Udp.InCsumErrors", "Udp.MemErrors",
}

// dropped adds the dropped packets, by reason where there were any.
func (c Cost) dropped(f Figures) {
	by := func(counts map[string]int64, known func(string) bool) (all float64) {
		for name, n := range counts {
			if n != 0 && known(name) {
				f[DroppedBy+name] += float64(n)
				all += float64(n)
			}
		}
		return all
	}
	if c.DropsByReason == nil {
		for _, counters := range c.Protocols {
			by(counters, func(name string) bool { return slices.Contains(dropCounters, name) })
		}
		return
	}
	f[Dropped] = 0
	for _, reasons := range c.DropsByReason {
		f[Dropped] += by(reasons, func(string) bool { return true })
	}
}
