package netfilter

import (
	"fmt"
	"net/netip"
	"time"

	"slipway/datapath"
)

// walk is a small model of a router around the evaluator: which hooks a packet
// passes, what conntrack remembers, what NAT does. It is made for what the rig
// sends, not for more.
type walk struct {
	rules    *Rules
	addrType func(a netip.Addr, dev string) (string, bool)
	conns    []*conn
	recent   map[Remembered]int
	counts   map[string]counts // of rules, by what ruleID says
}

type counts struct{ packets, bytes uint64 }

type tuple struct {
	proto    string
	src, dst netip.AddrPort
}

func (t tuple) reverse() tuple { return tuple{t.proto, t.dst, t.src} }

// conn is a tracked connection.
type conn struct {
	orig, reply tuple
	mark        uint32
	seenReply   bool
	dnat, snat  bool
	dstDone     bool // NAT has decided about the destination, or the source
	srcDone     bool
	anyPort     bool // the source port is chosen by chance
	confirmed   bool
}

// passage is one packet on its way through the node.
type passage struct {
	w       *walk
	p       datapath.Packet
	in, out string
	state   string
	ct      *conn
	isReply bool
	verdict Verdict
	unknown string
}

func tupleOf(p datapath.Packet) tuple {
	t := tuple{p.Proto, p.Source(), p.Destination()}
	if p.ICMP != nil && !p.ICMP.IsError() {
		t.src, t.dst = netip.AddrPortFrom(p.Src, p.ICMP.ID), netip.AddrPortFrom(p.Dst, p.ICMP.ID)
	}
	return t
}

// forward takes a packet that came by a device; send one of the node's own.
func (w *walk) forward(dev string, p datapath.Packet) *passage {
	x := &passage{w: w, p: p, in: dev}
	if x.prerouting() {
		x.route()
	}
	return x
}

func (w *walk) send(p datapath.Packet) *passage {
	x := &passage{w: w, p: p, out: "eth1"}
	if w.isLocal(p.Dst) {
		x.out = "lo"
	}
	if !x.table("output", "raw") {
		return x
	}
	x.track()
	if !x.table("output", "mangle") || !x.nat("output") {
		return x
	}
	// a translated packet is routed anew, but the hook that it is in goes on with
	// the device that it began with (linux include/linux/netfilter.h, nf_hook_state)
	if !x.table("output", "filter") || !x.table("output", "security") {
		return x
	}
	x.out = "eth1"
	if w.isLocal(x.p.Dst) {
		x.out = "lo"
	}
	if !x.postrouting() || x.out != "lo" {
		return x
	}
	x.verdict = Unknown
	x.in, x.out = "lo", ""
	if x.table("prerouting", "raw") && x.table("prerouting", "mangle") && x.nat("prerouting") {
		x.input()
	}
	return x
}

func (w *walk) isLocal(a netip.Addr) bool {
	t, _ := w.addrType(a, "")
	return t == "LOCAL" || t == "BROADCAST"
}

func (x *passage) prerouting() bool {
	if !x.table("prerouting", "raw") {
		return false
	}
	x.track()
	return x.table("prerouting", "mangle") && x.nat("prerouting")
}

func (x *passage) route() {
	if x.w.isLocal(x.p.Dst) {
		x.input()
		return
	}
	x.out = map[string]string{"eth0": "eth1", "eth1": "eth0"}[x.in]
	x.p.TTL-- // linux net/ipv4/ip_forward.c: before the hook
	if !x.table("forward", "mangle") || !x.table("forward", "filter") || !x.table("forward", "security") {
		return
	}
	// postrouting is told the device that a forwarded packet came by too
	// (linux net/ipv4/ip_output.c, ip_output)
	x.postrouting()
}

func (x *passage) input() {
	if x.table("input", "mangle") && x.table("input", "filter") && x.table("input", "security") && x.nat("input") {
		x.confirm()
		x.verdict = Accept
		x.out = "" // taken by the node
	}
}

func (x *passage) postrouting() bool {
	if !x.table("postrouting", "mangle") || !x.nat("postrouting") {
		return false
	}
	x.confirm()
	x.verdict = Accept
	return true
}

func (x *passage) confirm() {
	if x.ct != nil && !x.ct.confirmed {
		x.ct.confirmed = true
		x.w.conns = append(x.w.conns, x.ct)
	}
}

// track is connection tracking of a packet that has none.
func (x *passage) track() {
	if x.state == "UNTRACKED" {
		return
	}
	t := tupleOf(x.p)
	related := false
	if x.p.ICMP.IsError() {
		t, related = tupleOf(*x.p.ICMP.Quoted).reverse(), true
	}
	for _, c := range x.w.conns {
		switch t {
		case c.orig:
			x.ct = c
		case c.reply:
			x.ct, x.isReply = c, true
		}
	}
	switch {
	case related && x.ct != nil:
		x.state = "RELATED"
	case x.ct != nil && (x.isReply || x.ct.seenReply):
		x.ct.seenReply = true
		x.state = "ESTABLISHED"
	case x.ct != nil:
		x.state = "NEW"
	case related, x.p.Proto == "tcp" && x.p.Flags != "SYN", x.p.ICMP != nil && x.p.ICMP.Type != 8:
		x.state = "INVALID"
	default:
		x.state = "NEW"
		x.ct = &conn{orig: t, reply: t.reverse()}
	}
}

// table asks one table; false ends the packet's way.
func (x *passage) table(hook, table string) bool {
	out := x.ask(hook, table)
	if out == nil {
		return false
	}
	x.p = out.Packet
	if x.ct != nil {
		x.ct.mark = out.CTMark
	}
	if out.NoTrack {
		x.state = "UNTRACKED"
	}
	return true
}

// ask evaluates, counts what was hit, and ends the way unless it goes on.
func (x *passage) ask(hook, table string) *Outcome {
	q := Query{Hook: hook, Table: table, Packet: x.p, In: x.in, Out: x.out, State: x.state, Reply: x.isReply, AddrType: x.w.addrType}
	if c := x.ct; c != nil {
		q.CTMark, q.DNATed, q.SNATed, q.Confirmed = c.mark, c.dnat, c.snat, c.confirmed
		q.SeenReply = c.seenReply
		q.OrigSrc, q.OrigDst, q.ReplySrc, q.ReplyDst = c.orig.src, c.orig.dst, c.reply.src, c.reply.dst
	}
	q.Recent = func(list string, a netip.Addr, _ time.Duration) (int, bool) {
		return x.w.recent[Remembered{list, a}], true
	}
	outs := x.w.rules.Eval(q)
	if len(outs) != 1 || outs[0].Verdict == Unknown || outs[0].Probability != 1 {
		x.unknown = fmt.Sprintf("%s %s: %+v", hook, table, outs)
		return nil
	}
	out := &outs[0]
	for _, h := range out.Hits {
		id := fmt.Sprintf("%s %s %d", h.Table, h.Chain, h.Number)
		c := x.w.counts[id]
		x.w.counts[id] = counts{c.packets + 1, c.bytes + uint64(x.p.Length)}
	}
	for _, m := range out.Remembered {
		x.w.recent[m]++
	}
	if out.Verdict != Accept {
		x.verdict = out.Verdict
		return nil
	}
	return out
}

// nat asks table nat once for each end of a connection, and translates.
func (x *passage) nat(hook string) bool {
	source := hook == "input" || hook == "postrouting"
	c := x.ct
	if c == nil {
		return true
	}
	done := &c.dstDone
	if source {
		done = &c.srcDone
	}
	if x.state == "NEW" && !*done {
		out := x.ask(hook, "nat")
		if out == nil {
			return false
		}
		*done = true
		x.p.Mark, c.mark = out.Packet.Mark, out.CTMark
		if out.NAT != nil {
			x.setup(out.NAT)
		}
	}
	x.translate(source)
	return true
}

// setup notes a translation in the connection's reply tuple.
func (x *passage) setup(n *NAT) {
	c := x.ct
	to := n.Min
	switch n.Kind {
	case Masquerade:
		to = netip.AddrPortFrom(map[string]netip.Addr{"eth0": netip.MustParseAddr("10.1.0.1"), "eth1": netip.MustParseAddr("10.2.0.1"), "lo": netip.MustParseAddr("10.1.0.1")}[x.out], n.Min.Port())
	case Redirect:
		to = netip.AddrPortFrom(map[string]netip.Addr{"eth0": netip.MustParseAddr("10.1.0.1"), "eth1": netip.MustParseAddr("10.2.0.1"), "": netip.MustParseAddr("127.0.0.1")}[x.in], n.Min.Port())
	}
	end := &c.reply.src
	if n.Source {
		end = &c.reply.dst
	}
	was := *end
	if to.Port() != 0 && (c.orig.proto == "tcp" || c.orig.proto == "udp") {
		*end = to
	} else {
		*end = netip.AddrPortFrom(to.Addr(), end.Port())
	}
	if n.Random || n.RandomFully {
		c.anyPort = true
	}
	// linux net/netfilter/nf_nat_core.c, nf_nat_setup_info: a change that
	// changes nothing is none
	if *end == was && !(n.Random || n.RandomFully) {
		return
	}
	if n.Source {
		c.snat = true
	} else {
		c.dnat = true
	}
}

// translate changes the packet as its connection says.
func (x *passage) translate(source bool) {
	c := x.ct
	t := c.reply.reverse() // as the packet leaves in the original direction
	if x.isReply {
		t = c.orig.reverse()
	}
	ports := (x.p.Proto == "tcp" || x.p.Proto == "udp")
	if source && (c.snat && !x.isReply || c.dnat && x.isReply) {
		x.p.Src = t.src.Addr()
		if ports {
			x.p.SPort = t.src.Port()
		}
	}
	if !source && (c.dnat && !x.isReply || c.snat && x.isReply) {
		x.p.Dst = t.dst.Addr()
		if ports {
			x.p.DPort = t.dst.Port()
		}
	}
}

// respond is what the other side sends back to a packet that left the node.
func respond(p datapath.Packet, id uint16) (datapath.Packet, bool) {
	out := p
	out.Src, out.Dst, out.SPort, out.DPort, out.ID, out.TTL, out.Mark = p.Dst, p.Src, p.DPort, p.SPort, id, 64, 0
	switch {
	case p.Proto == "tcp" && p.Flags == "SYN":
		out.Flags = "SYN,ACK"
	case p.Proto == "tcp":
		return out, false
	case p.ICMP != nil && p.ICMP.Type == 8:
		out.ICMP = &datapath.ICMPInfo{Type: 0, ID: p.ICMP.ID}
	case p.ICMP != nil:
		return out, false
	}
	return out, true
}
