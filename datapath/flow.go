package datapath

import (
	"fmt"
	"net/netip"
)

// Flow selects packets, in either direction. Zero parts match everything.
type Flow struct {
	Proto    string // tcp | udp | icmp | sctp; empty: any
	Src, Dst netip.AddrPort
	// ICMPID is the identifier of an echo; zero: any.
	ICMPID uint16
}

// Ports are the UDP destination ports by which encapsulated packets are known.
type Ports struct{ UDP, VXLAN uint16 }

// Validate refuses what no packet can match.
func (f Flow) Validate() error {
	if _, ok := f.ProtoNumber(); !ok {
		return fmt.Errorf("flow: unknown protocol %q", f.Proto)
	}
	for _, a := range []netip.Addr{f.Src.Addr(), f.Dst.Addr()} {
		if a.IsValid() && !a.Is4() {
			return fmt.Errorf("flow: address %s is not IPv4", a)
		}
	}
	return nil
}

// ProtoNumber is the protocol as IP headers have it, zero for any.
func (f Flow) ProtoNumber() (uint8, bool) {
	n, ok := map[string]uint8{"": 0, "icmp": 1, "tcp": 6, "udp": 17, "sctp": 132}[f.Proto]
	return n, ok
}
