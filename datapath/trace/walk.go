package trace

import (
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath"
)

// skb is a packet on its way through kernels, with what they keep beside it.
type skb struct {
	p datapath.Packet
	// inner is the packet that this one carries in a tunnel, of type tunnel.
	inner  *skb
	tunnel string // vxlan | udp | ipip
	vni    uint32

	smac, dmac string // of the frame, while there is one
	neighbor   string // the entry that dmac is from, and whose it is
	neighborOf string

	ct      *conn // nil: none, or not yet
	ctState string
	ctReply bool
	// bridged is set while br_netfilter has the packet.
	bridged *bridged
	// kept is the route that a packet over the loopback keeps.
	kept *route
	// A port, or an ICMP identifier, that the kernel chooses at random is not
	// shown.
	anySPort, anyDPort bool
	// fragment is how many bytes the first fragment has once the packet was cut;
	// 0 if it is whole.
	fragment int
	// disguised is set between the program that makes a datagram one of VXLAN-GPE
	// and the driver that takes it: no observer knows it there.
	disguised bool
}

// wire is how many bytes a link has to carry at once. Connection tracking puts
// fragments together again, and the packet goes on in fragments as before
// (net/ipv4/ip_output.c, ip_fragment with frag_max_size).
func (s *skb) wire() int {
	if s.fragment > 0 {
		return s.fragment
	}
	return s.p.Length
}

// cut fragments the packet for a link: each but the last is the header and a
// multiple of eight bytes (RFC 791 §3.1).
func (s *skb) cut(mtu int) {
	s.fragment, s.p.Fragment = ipv4Header+(mtu-ipv4Header)/8*8, true
}

// ipv4Header is the length of a header without options, in bytes (RFC 791 §3.1).
const ipv4Header = 20

// bridged is what br_netfilter remembers of a packet (struct nf_bridge_info).
type bridged struct{ bridge, in string }

// shown is the packet as hops show it: the innermost one, with the one that
// carries it.
func (s *skb) shown() datapath.Packet {
	if s.inner == nil {
		p := s.p
		if s.anySPort {
			p.SPort = 0
		}
		if s.anyDPort {
			p.DPort = 0
		}
		if p.ICMP != nil && (s.anySPort || s.anyDPort) {
			m := *p.ICMP
			m.ID = 0
			p.ICMP = &m
		}
		return p
	}
	p := s.inner.shown()
	p.Mark = s.p.Mark
	p.Outer = &datapath.Outer{Type: s.tunnel, Src: s.p.Src, Dst: s.p.Dst, SPort: s.p.SPort, DPort: s.p.DPort, TTL: s.p.TTL}
	if s.tunnel == "vxlan" {
		vni := s.vni
		p.Outer.VNI = &vni
	}
	return p
}

// scrub takes off what stays behind when a packet leaves its namespace
// (net/core/skbuff.c, skb_scrub_packet).
func (s *skb) scrub() {
	s.p.Mark = 0
	s.forget()
}

// forget takes off what a tunnel does not carry on inside a namespace.
func (s *skb) forget() { s.ct, s.ctState, s.ctReply, s.bridged, s.kept = nil, "", false, nil, nil }

// end is how one packet's way ended.
type end struct {
	verdict Verdict
	cause   *Cause
	at      *place
	got     *skb // as it was delivered
	answer  *answer
}

// answer is a packet that goes back.
type answer struct {
	from *place
	s    *skb
	// by, if set, is the device that it comes in by; else from's own stack
	// sends it.
	by string
}

// walk is one way that a packet and its answer take: all choices are made.
type walk struct {
	*Cache
	choose  func(weights []float64) int
	maxHops int

	from    *place
	sent    datapath.Packet // as it left the sender's socket
	request []Hop
	reply   []Hop
	back    bool // it is the answer that is walked now
	prob    func() float64

	tracked map[string]*connections
	learned map[wireEnd]map[string]string // bridge → MAC → port
	arp     map[arpKey]string             // → MAC
	notes   map[string]bool
}

func (w *walk) hops() *[]Hop {
	if w.back {
		return &w.reply
	}
	return &w.request
}

// hiddenStages are those that no observer sees.
var hiddenStages = map[Stage]bool{Socket: true, Route: true, BridgeStage: true, Encap: true, Decap: true, Userspace: true}

// hop records a step of s in pl.
func (w *walk) hop(pl *place, s *skb, h Hop) {
	hops := w.hops()
	h.Seq = len(*hops) + 1
	h.Node, h.Namespace, h.Place = pl.node(), pl.name, pl.label()
	h.Probability = w.prob()
	h.Packet = s.shown()
	h.Hidden = h.Hidden || s.disguised || hiddenStages[h.Stage]
	if h.Action == "" {
		h.Action = Pass
	}
	*hops = append(*hops, h)
}

func (w *walk) note(format string, args ...any) { w.notes[fmt.Sprintf(format, args...)] = true }

// stop ends the packet's way at a hop, and lets a router tell the sender.
func (w *walk) stop(pl *place, s *skb, h Hop, f *fault) end {
	e := end{verdict: Dropped, at: pl}
	if f.icmp != nil && !f.unknown {
		e.answer = w.icmpAnswer(pl, s, *f.icmp)
	}
	if f.reset && s.inner == nil {
		e.answer = &answer{from: pl, s: s.answer(resetTo(s.p, pl))}
	}
	switch {
	case f.unknown:
		e.verdict, h.Action = Unknown, UnknownAction
	case f.told || e.answer != nil:
		e.verdict, h.Action = Rejected, Reject
	default:
		h.Action = Drop
	}
	e.cause = &Cause{
		Node: pl.node(), Namespace: pl.name, Place: pl.label(), Device: h.Device, Stage: h.Stage,
		Table: f.table, Reason: f.reason, Rule: f.rule, Text: sentence(pl.label(), f.text), Hint: f.hint, Reply: w.back,
	}
	if f.device != "" {
		e.cause.Device = f.device
	}
	if down := downDevice(pl); down != "" && (f.reason == ReasonNoRoute || f.reason == ReasonNoNeighbor) {
		e.cause.Hint = fmt.Sprintf("%s is down here, and the routes through it are gone with it: ip link set %s up on %s", down, down, pl.label())
	}
	h.Table, h.Rule, h.Reason = f.table, f.rule, f.text
	w.endHop(pl, s, h)
	return e
}

// downDevice finds a device that is down though it has an address, or is a
// tunnel: the kernel drops the routes of such.
func downDevice(pl *place) string {
	if pl.st == nil {
		return ""
	}
	for i := range pl.st.Devices {
		d := &pl.st.Devices[i]
		if !d.Up && d.Kind != "loopback" && (len(d.Addresses) > 0 || d.Kind == "vxlan" || d.Kind == "tun" || d.Kind == "ipip") {
			return d.Name
		}
	}
	return ""
}

// endHop records the hop at which a packet ends: the last one, if it is there.
func (w *walk) endHop(pl *place, s *skb, h Hop) {
	hops := *w.hops()
	if n := len(hops); n > 0 {
		if l := &hops[n-1]; l.Namespace == pl.name && l.Device == h.Device && l.Stage == h.Stage {
			l.Action, l.Table, l.Rule, l.Reason = h.Action, h.Table, h.Rule, h.Reason
			return
		}
	}
	w.hop(pl, s, h)
}

// sentence says where before what.
func sentence(place, text string) string {
	if place == "" || strings.HasPrefix(text, place) {
		return text
	}
	return place + ": " + text
}

// lost ends a packet's way in a namespace that cannot be read.
func (w *walk) lost(pl *place, s *skb, stage Stage, device string) end {
	return w.stop(pl, s, Hop{Stage: stage, Device: device}, unknownFault("", "", "%v", pl.err))
}

// sysctlTTL is the TTL of what a namespace's own stack sends.
func (p *place) sysctlTTL() uint8 {
	var ttl uint8
	if _, err := fmt.Sscan(p.sysctl("net/ipv4/ip_default_ttl", "64"), &ttl); err != nil || ttl == 0 {
		return 64 // include/linux/ip.h, IPDEFTTL
	}
	return ttl
}

// addrTypes says what kind of address an address is, as far as routes over a
// device say.
type addrTypes = func(a netip.Addr, dev string) (rtn string, ok bool)

// isLocal reports whether the namespace takes packets to an address.
func (p *place) isLocal(a netip.Addr) bool {
	if p.addrType == nil {
		return false
	}
	kind, ok := p.addrType(a, "")
	return ok && kind == "LOCAL"
}
