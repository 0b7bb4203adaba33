package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/netfilter"
)

// icmpAnswer is icmp_send (net/ipv4/icmp.c): the error that pl sends about a
// packet; nil if it may not send one, or nobody who sent the packet hears it.
func (w *walk) icmpAnswer(pl *place, s *skb, e icmpError) *answer {
	if s.inner != nil || s.p.ICMP.IsError() || s.p.Src.IsUnspecified() || s.p.Src.IsMulticast() {
		return nil
	}
	quoted := s.p
	a := &skb{p: datapath.Packet{
		Dst: s.p.Src, Proto: "icmp", TTL: pl.sysctlTTL(),
		// At most 576 bytes in all (RFC 1812 §4.3.2.3).
		Length: 28 + min(s.p.Length, 548),
		ICMP:   &datapath.ICMPInfo{Type: e.typ, Code: e.code, MTU: uint16(e.mtu), Quoted: &quoted},
	}}

	if pl.isLocal(s.p.Dst) {
		a.p.Src = s.p.Dst
	}
	a.attach(s)
	w.note(mayBeWithheld)
	return &answer{from: pl, s: a}
}

// attach makes an error that the kernel sends about a packet part of that
// packet's connection, which may not be confirmed yet and so found by nobody
// (net/netfilter/nf_conntrack_core.c, nf_conntrack_attach).
func (s *skb) attach(about *skb) {
	if about.ct == nil || about.ctState == "INVALID" || about.ctState == "UNTRACKED" {
		return
	}
	s.ct, s.ctState, s.ctReply = about.ct, "RELATED", !about.ctReply
}

// answer makes the packet that answers s.
func (s *skb) answer(p datapath.Packet) *skb {
	a := &skb{p: p, anySPort: s.anyDPort, anyDPort: s.anySPort}
	if p.Flags == "RST,ACK" {
		a.attach(s)
	}
	return a
}

// swapped is a packet back to the sender of p.
func swapped(p datapath.Packet, pl *place) datapath.Packet {
	return datapath.Packet{Src: p.Dst, Dst: p.Src, SPort: p.DPort, DPort: p.SPort, Proto: p.Proto, TTL: pl.sysctlTTL()}
}

// resetTo is the TCP reset that refuses p (net/ipv4/tcp_ipv4.c,
// tcp_v4_send_reset): 20 bytes of IP and 20 of TCP header.
func resetTo(p datapath.Packet, pl *place) datapath.Packet {
	r := swapped(p, pl)
	r.Flags, r.Length, r.DF = "RST,ACK", 40, true
	return r
}

// rejections are REJECT's ICMP answers (net/ipv4/netfilter/ipt_REJECT.c).
var rejections = map[string]uint8{
	"": codePortUnreachable, "icmp-net-unreachable": codeNetUnreachable, "icmp-host-unreachable": codeHostUnreachable,
	"icmp-proto-unreachable": codeProtoUnreachable, "icmp-port-unreachable": codePortUnreachable,
	"icmp-net-prohibited": 9, "icmp-host-prohibited": 10, "icmp-admin-prohibited": codePacketFiltered,
}

// reject ends a packet at a REJECT rule.
func (v *passage) reject(table string, o netfilter.Outcome) *end {
	f := &fault{reason: ReasonRuleReject, table: table, rule: v.hop.Rule}
	how := o.RejectWith
	if how == "tcp-reset" {
		f.reset = v.s.p.Proto == "tcp" && !strings.Contains(v.s.p.Flags, "RST")
	} else if code, ok := rejections[how]; ok {
		f.icmp = unreachable(code)
	} else {
		return v.stop(unknownFault(table, v.hop.Rule, "REJECT's answer %q is not known", how))
	}
	f.text = fmt.Sprintf("the rule %q of table %s rejects the packet and tells the sender", f.rule, table)
	led := func(h Hit) bool { return strings.Contains(h.Rule, "@no-endpoint-") } // kube-proxy's maps in nftables
	if strings.Contains(f.rule, "has no endpoints") || slices.ContainsFunc(v.hop.Rules, led) {
		f.hint = "the service selects no ready pod: kubectl get endpointslices"
	}
	return v.stop(f)
}

// answerText says what kind of answer is sent.
func answerText(p datapath.Packet) string {
	switch {
	case p.ICMP.IsError():
		return "the kernel tells the sender (" + icmpName(p.ICMP) + "):"
	case p.ICMP != nil:
		return "the kernel answers the echo:"
	case strings.Contains(p.Flags, "RST"):
		return "the kernel refuses the connection:"
	case p.Proto == "tcp":
		return "the kernel accepts the connection:"
	}
	return "the server answers"
}

// icmpName is an ICMP message in words.
func icmpName(m *datapath.ICMPInfo) string {
	switch {
	case m.Type == icmpTimeExceed:
		return "time to live exceeded"
	case m.Type == icmpUnreachable && m.Code == codeFragNeeded:
		return fmt.Sprintf("fragmentation needed, MTU %d", m.MTU)
	case m.Type == icmpUnreachable:
		names := map[uint8]string{0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable", 9: "network prohibited", 10: "host prohibited", 13: "administratively prohibited"}
		if n, ok := names[m.Code]; ok {
			return n
		}
	}
	return fmt.Sprintf("ICMP type %d code %d", m.Type, m.Code)
}

// unspecified reports whether a socket is bound to all addresses.
func unspecified(a netip.Addr) bool { return !a.IsValid() || a.IsUnspecified() }
