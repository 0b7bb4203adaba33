package linux

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

const ndMsgLen = 12 // struct ndmsg

// Attributes of neighbours (linux include/uapi/linux/neighbour.h, NDA_…).
const (
	ndaDst    = 1
	ndaLLAddr = 2
	ndaVLAN   = 5
	ndaPort   = 6
	ndaVNI    = 7
	ndaMaster = 9
)

// neighborStates are named by NUD_….
var neighborStates = map[uint16]string{
	netlink.NUD_INCOMPLETE: "incomplete", netlink.NUD_REACHABLE: "reachable", netlink.NUD_STALE: "stale",
	netlink.NUD_DELAY: "delay", netlink.NUD_PROBE: "probe", netlink.NUD_FAILED: "failed",
	netlink.NUD_NOARP: "noarp", netlink.NUD_PERMANENT: "permanent", netlink.NUD_NONE: "none",
}

// neighbors reads the ARP table in all states, then the addresses that are
// answered for (`ip neigh show proxy`), which the kernel keeps apart.
func (c *collection) neighbors() error {
	for _, proxy := range []bool{false, true} {
		header := make(raw, ndMsgLen)
		header[0] = unix.AF_INET
		if proxy {
			header[10] = netlink.NTF_PROXY
		}
		messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, header)
		if err != nil {
			return fmt.Errorf("list neighbours: %w", err)
		}
		for _, m := range messages {
			attrs, err := body(m, ndMsgLen)
			if err != nil {
				return fmt.Errorf("list neighbours: %w", err)
			}
			n := datapath.NeighborState{Dev: c.device(int(u32(m[4:]))), State: neighborStates[u16(m[8:])], Proxy: proxy}
			for kind, v := range attributes(attrs) {
				switch kind {
				case ndaDst:
					n.Address = ipv4(v)
				case ndaLLAddr:
					n.MAC = mac(v)
				}
			}
			c.st.Neighbors = append(c.st.Neighbors, n)
		}
	}
	return nil
}

// fdb reads the forwarding entries of bridges and of devices themselves. The
// group addresses that a device merely listens to are left out.
func (c *collection) fdb() error {
	// The kernel takes a struct ifinfomsg here (net/core/rtnetlink.c,
	// valid_fdb_dump_legacy).
	header := make(raw, ifInfoLen)
	header[0] = unix.AF_BRIDGE
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETNEIGH, header)
	if err != nil {
		return fmt.Errorf("list fdb: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, ndMsgLen)
		if err != nil {
			return fmt.Errorf("list fdb: %w", err)
		}
		f := datapath.FDBState{Dev: c.device(int(u32(m[4:])))}
		group := false
		for kind, v := range attributes(attrs) {
			switch kind {
			case ndaLLAddr:
				f.MAC, group = mac(v), len(v) > 0 && v[0]&1 != 0
			case ndaDst:
				f.Dst = ipv4(v)
			case ndaVLAN:
				f.VLAN = int(u16(v))
			case ndaPort:
				f.Port = int(be16(v))
			case ndaVNI:
				f.VNI = int(u32(v))
			case ndaMaster:
				f.Master = c.device(int(u32(v)))
			}
		}
		d := c.st.DeviceByIndex(int(u32(m[4:])))
		ofTunnel := f.Master == "" && d != nil && d.VXLAN != nil
		if group && f.Master == "" && !ofTunnel {
			continue
		}
		f.Local = !ofTunnel && u16(m[8:])&netlink.NUD_PERMANENT != 0
		c.st.FDB = append(c.st.FDB, f)
	}
	return nil
}
