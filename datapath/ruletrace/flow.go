package ruletrace

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// loosened is the flow without what may have been rewritten on the packet's way
// into a namespace, as long as the rest still selects well: of a connection the
// client's port, of an echo its identifier. A packet that is traced in vain costs
// little, and is told from the wanted one by what the hit holds of it.
func loosened(f datapath.Flow) datapath.Flow {
	if f.Src.Port() != 0 {
		return datapath.Flow{Proto: f.Proto, Src: netip.AddrPortFrom(netip.Addr{}, f.Src.Port())}
	}
	if f.ICMPID != 0 {
		return datapath.Flow{Proto: f.Proto, ICMPID: f.ICMPID}
	}
	return f
}

// The headers that offsets in packets are counted from (enum nft_payload_bases,
// include/uapi/linux/netfilter/nf_tables.h).
const (
	network   = unix.NFT_PAYLOAD_NETWORK_HEADER
	transport = unix.NFT_PAYLOAD_TRANSPORT_HEADER
)

// Offsets in an IPv4 header (RFC 791) without options, as all here have it but
// the outermost, and behind it.
const (
	offProto, offSrc, offDst  = 9, 12, 16
	ipHeader                  = 20
	offSport, offDport        = 0, 2
	offICMPType, offICMPIdent = 0, 4
)

// match is a comparison of bytes of a packet.
type match struct {
	base, offset uint32
	want         []byte
}

// place is where in a packet another one may be: behind what has to match.
type place struct {
	behind     []match
	ipBase, ip uint32
	l4Base, l4 uint32
}

// places are the packet itself, one in each kind of tunnel, and one that an ICMP
// error quotes.
func places(p datapath.Ports) []place {
	proto := func(b byte) match { return match{network, offProto, []byte{b}} }
	out := []place{
		{nil, network, 0, transport, 0},
		{[]match{proto(unix.IPPROTO_IPIP)}, transport, 0, transport, ipHeader},
	}
	for _, errorType := range []byte{3, 11} { // unreachable, time exceeded (RFC 792)
		out = append(out, place{[]match{proto(unix.IPPROTO_ICMP), {transport, offICMPType, []byte{errorType}}}, transport, 8, transport, 8 + ipHeader})
	}
	inUDP := func(port uint16, header uint32) place {
		return place{[]match{proto(unix.IPPROTO_UDP), {transport, offDport, be16(port)}}, transport, 8 + header, transport, 8 + header + ipHeader}
	}
	if p.UDP != 0 {
		out = append(out, inUDP(p.UDP, 0))
	}
	if p.VXLAN != 0 {
		out = append(out, inUDP(p.VXLAN, 8+14)) // RFC 7348: its header and an Ethernet header
	}
	return out
}

// matches are what a packet of the flow is known by in that place, in the
// direction of the flow or back.
func matches(f datapath.Flow, p place, back bool) []match {
	src, dst := f.Src, f.Dst
	if back {
		src, dst = dst, src
	}
	out := append([]match{}, p.behind...)
	ip := func(offset uint32, want []byte) { out = append(out, match{p.ipBase, p.ip + offset, want}) }
	l4 := func(offset uint32, want []byte) { out = append(out, match{p.l4Base, p.l4 + offset, want}) }
	if proto, _ := f.ProtoNumber(); proto != 0 {
		ip(offProto, []byte{proto})
	}
	if src.Addr().IsValid() {
		ip(offSrc, src.Addr().AsSlice())
	}
	if dst.Addr().IsValid() {
		ip(offDst, dst.Addr().AsSlice())
	}
	if f.Proto == "icmp" {
		if f.ICMPID != 0 {
			l4(offICMPIdent, be16(f.ICMPID))
		}
		return out
	}
	if src.Port() != 0 {
		l4(offSport, be16(src.Port()))
	}
	if dst.Port() != 0 {
		l4(offDport, be16(dst.Port()))
	}
	return out
}

// rules are the matches of all rules that the flow needs.
func rules(f datapath.Flow, p datapath.Ports) [][]match {
	f = loosened(f)
	var out [][]match
	for _, where := range places(p) {
		out = append(out, matches(f, where, false))
		if f.Src != f.Dst {
			out = append(out, matches(f, where, true))
		}
	}
	return out
}
