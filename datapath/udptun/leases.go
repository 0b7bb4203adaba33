package udptun

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// leaseTable finds the lease of a destination by longest prefix. It never
// changes once built. The cost is one map access per distinct prefix length, and
// a cluster's leases are nearly always of one length.
type leaseTable struct {
	lengths []leaseLength // longest first
}

type leaseLength struct {
	bits  int
	mask  uint32
	peers map[uint32]*unix.RawSockaddrInet4 // by masked destination
}

// newLeaseTable builds the table and returns the leases that have no place in
// it, because subnet or remote is not IPv4.
func newLeaseTable(leases []datapath.TunnelLease) (*leaseTable, []datapath.TunnelLease) {
	t := &leaseTable{}
	var refused []datapath.TunnelLease
	for _, l := range leases {
		if !l.Subnet.IsValid() || !l.Subnet.Addr().Is4() || !l.Remote.Addr().Is4() {
			refused = append(refused, l)
			continue
		}
		e := t.length(l.Subnet.Bits())
		subnet := l.Subnet.Addr().As4()
		e.peers[binary.BigEndian.Uint32(subnet[:])&e.mask] = rawSockaddr(l.Remote)
	}
	slices.SortFunc(t.lengths, func(a, b leaseLength) int { return b.bits - a.bits })
	return t, refused
}

func (t *leaseTable) length(bits int) *leaseLength {
	i := slices.IndexFunc(t.lengths, func(l leaseLength) bool { return l.bits == bits })
	if i < 0 {
		i = len(t.lengths)
		t.lengths = append(t.lengths, leaseLength{bits: bits, mask: ^uint32(0) << (32 - bits), peers: map[uint32]*unix.RawSockaddrInet4{}})
	}
	return &t.lengths[i]
}

// lookup returns where packets to the 4 bytes dst go; nil if no lease covers it.
func (t *leaseTable) lookup(dst []byte) *unix.RawSockaddrInet4 {
	d := binary.BigEndian.Uint32(dst)
	for i := range t.lengths {
		if peer := t.lengths[i].peers[d&t.lengths[i].mask]; peer != nil {
			return peer
		}
	}
	return nil
}

func rawSockaddr(a netip.AddrPort) *unix.RawSockaddrInet4 {
	sa := &unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4()}
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], a.Port())
	sa.Port = binary.NativeEndian.Uint16(port[:])
	return sa
}
