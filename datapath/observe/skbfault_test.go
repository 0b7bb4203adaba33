package observe

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/datapath/trace"
)

// Each fault is named where it is. The first column says what was done to the
// lab before the packet of the recording was sent from default/client.
func TestFaults(t *testing.T) {
	type end struct {
		Verdict      trace.Verdict
		Reason       trace.Reason
		Node, Device string
		Stage        trace.Stage
		Table        string
		Reply        bool
	}
	for name, want := range map[string]end{
		// nothing listens on the port
		"tcp-refused": {trace.Rejected, trace.ReasonNoListener, "node2", "eth0", trace.Deliver, "socket", false},
		"udp-refused": {trace.Rejected, trace.ReasonNoListener, "node2", "eth0", trace.Deliver, "socket", false},
		// sysctl net.ipv4.ip_forward=0 on node1
		"forward-off": {trace.Dropped, trace.ReasonForwardingOff, "node1", "cni0", trace.Route, "sysctl", false},
		// --ttl 2: node1 makes it 1, node2 must not forward it
		"ttl": {trace.Rejected, trace.ReasonTTL, "node2", "flannel.1", trace.Route, "ttl", false},
		// node2: iptables -I FORWARD -p tcp --dport 80 -j DROP
		"forward-drop": {trace.Dropped, trace.ReasonRuleDrop, "node2", "flannel.1", trace.Forward, "filter", false},
		// node1: the same with REJECT, and with REJECT --reject-with tcp-reset
		"forward-reject": {trace.Rejected, trace.ReasonRuleReject, "node1", "cni0", trace.Forward, "filter", false},
		"reject-reset":   {trace.Rejected, trace.ReasonRuleReject, "node1", "cni0", trace.Forward, "filter", false},
		// node1: iptables -t raw -I PREROUTING -p tcp --dport 80 -j DROP
		"raw-drop": {trace.Dropped, trace.ReasonRuleDrop, "node1", "cni0", trace.Prerouting, "raw", false},
		// node2: iptables -I FORWARD -p tcp --sport 80 -j DROP
		"reply-drop": {trace.Dropped, trace.ReasonRuleDrop, "node2", "cni0", trace.Forward, "filter", true},
		// node1: ip route add blackhole|unreachable|prohibit POD/32
		"blackhole":   {trace.Dropped, trace.ReasonBlackhole, "node1", "cni0", trace.Route, "main", false},
		"unreachable": {trace.Rejected, trace.ReasonUnreachable, "node1", "cni0", trace.Route, "main", false},
		"prohibit":    {trace.Rejected, trace.ReasonProhibit, "node1", "cni0", trace.Route, "main", false},
		// node1: the FDB sends node2's VTEP MAC to the master: not the one it has
		"fdb-wrong": {trace.Dropped, trace.ReasonOtherHost, "master", "flannel.1", trace.Ingress, "", false},
		// node1: the FDB entry is gone
		"fdb-none": {trace.Dropped, trace.ReasonNoFDB, "node1", "flannel.1", trace.Egress, "fdb", false},
		// node2: the pod's veth is down, the bridge floods to the other pod
		"port-down": {trace.Dropped, trace.ReasonNoFDB, "node2", "cni0", trace.Egress, "fdb", false},
		// node1: strict on flannel.1, and a route that sends the source elsewhere
		"rp-filter": {trace.Dropped, trace.ReasonRPFilter, "node1", "flannel.1", trace.Route, "sysctl", false},
		// node1: flannel.1 takes 1300 bytes, the datagram has 1428 and DF; which
		// device it did not fit no event says
		"mtu": {trace.Rejected, trace.ReasonMTU, "node1", "", trace.Route, "link", false},
		// nobody has the address: the packet waits for ARP
		"pod-gone": {trace.Unknown, trace.ReasonNotSeen, "node2", "cni0", trace.Postrouting, "", false},
		// node1's route to node2 is gone: its default route leads to a link
		// where nobody has the address
		"no-route": {trace.Unknown, trace.ReasonNotSeen, "node1", "eth0", trace.Postrouting, "", false},
		// the process of flannel's UDP backend is stopped: the TUN takes packets
		// until its ring is full; killed: the TUN has no carrier
		"tunnel-stopped": {trace.Unknown, trace.ReasonNotSeen, "node1", "flannel0", trace.Egress, "", false},
		"tunnel-killed":  {trace.Dropped, trace.ReasonDeviceDown, "node1", "flannel0", trace.Egress, "link", false},
		// node2's flannel.1 is down and does not listen
		"vtep-down": {trace.Dropped, trace.ReasonNoVTEP, "node2", "eth0", trace.Decap, "tunnel", false},
	} {
		r := load(t, name)
		o := FromSKB(r.Events, nil, r.world())
		if o.Cause == nil {
			t.Errorf("%s: %s without a cause", name, o.Verdict)
			continue
		}
		c := o.Cause
		got := end{o.Verdict, c.Reason, c.Node, c.Device, c.Stage, c.Table, c.Reply}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %q (-want +got):\n%s", name, c.Text, diff)
		}
		if !strings.Contains(c.Text, c.Node) && !strings.Contains(c.Text, c.Place) {
			t.Errorf("%s: the text does not say where: %q", name, c.Text)
		}
	}
}

// What a bridge floods to pods that it is not for is shown apart.
func TestCopies(t *testing.T) {
	r := load(t, "port-down")
	o := FromSKB(r.Events, nil, r.world())
	wantPath(t, "copies", o.Copies, `
		node2/veth egress: 10.244.1.2>10.244.2.3 ttl 62
		client-2/eth0 ingress drop: 10.244.1.2>10.244.2.3 ttl 62`)
}

// No hop is printed that no event supports, and nothing is called delivered
// that was not seen to be: whatever part of the events is there.
func TestTruncatedStreams(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, name := range recordings(t) {
		r := load(t, name)
		w := r.world()
		whole := FromSKB(r.Events, nil, w)
		if whole.Verdict == trace.Unknown != (whole.Cause != nil && whole.Cause.Reason == trace.ReasonNotSeen) {
			t.Errorf("%s: verdict %s with cause %+v", name, whole.Verdict, whole.Cause)
		}
		for n := range r.Events {
			checkSupported(t, name, r.Events[:n], w, whole.Verdict)
		}
		for range 40 {
			keep := rnd.Float64()
			part := slices.DeleteFunc(slices.Clone(r.Events), func(skbtrace.Event) bool { return rnd.Float64() > keep })
			checkSupported(t, name, part, w, whole.Verdict)
		}
		if t.Failed() {
			return
		}
	}
}

// checkSupported reads a part of a stream and looks for the events behind what
// comes out.
func checkSupported(t *testing.T, name string, part []skbtrace.Event, w World, whole trace.Verdict) {
	t.Helper()
	o := FromSKB(part, nil, w)
	for _, list := range [][]trace.Hop{o.Request, o.Reply, o.Copies} {
		for _, h := range list {
			if len(h.Evidence) == 0 || !supported(h, part, w) {
				t.Errorf("%s, %d events: hop %d %s %s rests on nothing: %q", name, len(part), h.Seq, h.At(), h.Action, h.Evidence)
			}
		}
	}
	switch {
	case o.Verdict == trace.Delivered && whole != trace.Delivered:
		t.Errorf("%s, %d events: delivered, though the whole is %s", name, len(part), whole)
	case o.Verdict == trace.Delivered && (last(o.Request).Action != trace.DeliverAction || last(o.Reply).Action != trace.DeliverAction || last(o.Reply).Namespace != w.Sender.Namespace):
		t.Errorf("%s, %d events: delivered, though it was last seen at %s and %s", name, len(part), last(o.Request).At(), last(o.Reply).At())
	case whole == trace.Delivered && o.Verdict != trace.Delivered && o.Verdict != trace.Unknown:
		t.Errorf("%s, %d events: %s by %+v, though the whole is delivered", name, len(part), o.Verdict, o.Cause)
	}
}

func last(hops []trace.Hop) trace.Hop {
	if len(hops) == 0 {
		return trace.Hop{}
	}
	return hops[len(hops)-1]
}

// supported looks for an event of the hop's namespace that is of its stage or,
// where the packet ended or entered a tunnel, of its end or next to it.
func supported(h trace.Hop, part []skbtrace.Event, w World) bool {
	return slices.ContainsFunc(part, func(e skbtrace.Event) bool {
		if e.Inode != 0 && w.Places[e.Inode].Namespace != h.Namespace {
			return false
		}
		switch h.Stage {
		case trace.Ingress, trace.Wire, trace.Egress:
			return e.Device == h.Device && (e.Point <= skbtrace.Xmit || (h.Action != trace.Pass && e.Point == skbtrace.Free))
		case trace.Prerouting, trace.Input, trace.Forward, trace.Output, trace.Postrouting:
			return e.Hook == string(h.Stage) && (e.In == h.Device || e.Out == h.Device)
		case trace.Encap, trace.Decap, trace.Userspace:
			return h.Action == trace.Drop || e.Device == h.Device || e.Out == h.Device || e.In == h.Device
		case trace.Deliver, trace.Route, trace.BridgeStage:
			return e.Point == skbtrace.Free || e.Point == skbtrace.Consume || e.Hook == "input" || e.Hook == "output" || e.Point == skbtrace.Xmit || e.Point == skbtrace.ICMPSend
		}
		return false
	})
}

// A stream in which the order of CPUs is mixed up reads as it happened.
func TestEventsOutOfOrder(t *testing.T) {
	r := load(t, "vxlan-service")
	want := FromSKB(r.Events, nil, r.world())
	mixed := slices.Clone(r.Events)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
	// Events of one time stamp keep their order.
	slices.SortStableFunc(mixed, func(a, b skbtrace.Event) int { return a.CPU - b.CPU })
	if diff := cmp.Diff(want, FromSKB(mixed, nil, r.world()), comparers); diff != "" {
		t.Errorf("read in another order (-want +got):\n%s", diff)
	}
}

// Lost events are said, and a repeat of the request is not taken for it.
func TestLostAndRepeated(t *testing.T) {
	r := load(t, "forward-drop")
	want := FromSKB(r.Events, nil, r.world())
	again := slices.Clone(r.Events)
	for _, e := range r.Events {
		e.TimeNs += 1e9
		e.Skb += 0x1000
		e.Data = slices.Clone(e.Data)
		id := 4 // offset of the identification in the IPv4 header (RFC 791 §3.1)
		if d := Decode(LinkRaw, e.Data, DefaultPorts); d.Encap != NoEncap {
			id += len(e.Data) - d.IP.Length
		}
		binary.BigEndian.PutUint16(e.Data[id:], binary.BigEndian.Uint16(e.Data[id:])+1)
		again = append(again, e)
	}
	if diff := cmp.Diff(want, FromSKB(again, nil, r.world()), comparers); diff != "" {
		t.Errorf("with a repeat of the SYN (-want +got):\n%s", diff)
	}
	w := r.world()
	w.Lost = 3
	if o := FromSKB(r.Events, nil, w); o.Lost != 3 || len(o.Notes) != 1 {
		t.Errorf("lost events: %d, notes %q", o.Lost, o.Notes)
	}
}

// A SYN-ACK that waits for a neighbour is sent again meanwhile, and its repeats
// are its equal in every byte: they are no part of its way. It ends when the
// kernel gives it up, three seconds after it was queued.
func TestRepeatedAnswer(t *testing.T) {
	r := load(t, "vxlan-service")
	r.Got = false
	waits := func(e skbtrace.Event) bool {
		return e.Hook == "postrouting" && e.Out == "cni0" && r.Places[e.Inode].Label == "node1" && e.Priority == skbtrace.Last
	}
	// As if node1 knew no way from cni0 to the client.
	n := slices.IndexFunc(r.Events, waits)
	if n < 0 {
		t.Fatal("the answer does not come through node1")
	}
	first := slices.Clone(r.Events[:n+1])
	want := FromSKB(first, nil, r.world())
	wantPath(t, "end of the reply", want.Reply[len(want.Reply)-1:], "node1/cni0 postrouting snat: 10.96.0.11>10.244.1.2 ttl 62")
	answered := slices.IndexFunc(first, func(e skbtrace.Event) bool {
		return e.Hook == "output" && r.Places[e.Inode].Label == want.Reply[0].Place && e.Priority == skbtrace.First
	})
	all := slices.Clone(first)
	for second := range int64(2) {
		for _, e := range first[answered:] {
			e.TimeNs += (second + 1) * 1e9
			e.Skb += uint64(second+1) * 0x100000
			all = append(all, e)
		}
	}
	if diff := cmp.Diff(want, FromSKB(all, nil, r.world()), comparers); diff != "" {
		t.Errorf("with two repeats of the answer (-want +got):\n%s", diff)
	}
	gone := first[n]
	gone.TimeNs += 3e9
	gone.Point, gone.Reason, gone.Location, gone.Hook, gone.Priority = skbtrace.Free, "NEIGH_FAILED", "arp_error_report", "", 0
	o := FromSKB(append(all, gone), nil, r.world())
	if o.Verdict != trace.Dropped || o.Cause.Reason != trace.ReasonNoNeighbor || !o.Cause.Reply || o.Cause.Place != "node1" || len(o.Reply) != len(want.Reply) {
		t.Errorf("the answer is %v by %+v after %d hops, not lost for want of a neighbour at node1 after %d", o.Verdict, o.Cause, len(o.Reply), len(want.Reply))
	}
}

// A packet whose route was found and that is refused as if its host could not be
// reached waited for the next hop's MAC in vain, also where no event shows how it
// ended.
func TestRefusedOnItsWayOut(t *testing.T) {
	r := load(t, "unreachable")
	up := slices.IndexFunc(r.Events, func(e skbtrace.Event) bool { return e.Point == skbtrace.ICMPSend })
	if up < 1 {
		t.Fatal("no error is sent")
	}
	var events []skbtrace.Event
	for i, e := range r.Events {
		if i == up { // as if there were a route, and nobody behind it
			out := r.Events[up-1]
			for _, priority := range []int{skbtrace.First, skbtrace.Last} {
				out.TimeNs++
				out.Point, out.Hook, out.In, out.Out, out.Device, out.Priority = skbtrace.Hook, "postrouting", "cni0", "flannel.1", "", priority
				events = append(events, out)
			}
		}
		if e.Point != skbtrace.ICMPSend && e.Point != skbtrace.Free {
			events = append(events, e)
		}
	}
	o := FromSKB(events, nil, r.world())
	if o.Verdict != trace.Rejected || o.Cause.Reason != trace.ReasonNoNeighbor || o.Cause.Place != "node1" || o.Cause.Device != "flannel.1" {
		t.Errorf("%v by %+v, want rejected for want of a neighbour behind flannel.1 of node1", o.Verdict, o.Cause)
	}
}

// What a process writes to a TUN device that is down was on its way in, and had
// left its tunnel.
func TestTUNDownForItsWriter(t *testing.T) {
	r := load(t, "flannel-udp")
	r.Got = false
	n := slices.IndexFunc(r.Events, func(e skbtrace.Event) bool {
		return e.Device == "flannel0" && e.Point == skbtrace.Receive && r.Places[e.Inode].Label == "node2"
	})
	if n < 0 {
		t.Fatal("the packet does not come out of the tunnel")
	}
	part := slices.Clone(r.Events[:n+1])
	part[n].Point, part[n].Reason, part[n].Location = skbtrace.Free, "DEV_READY", "tun_get_user"
	o := FromSKB(part, nil, r.world())
	wantPath(t, "end of the request", o.Request[len(o.Request)-1:], "node2/flannel0 ingress drop: 10.244.1.2>10.244.2.3 ttl 61")
	if o.Verdict != trace.Dropped || o.Cause.Reason != trace.ReasonDeviceDown || o.Cause.Device != "flannel0" {
		t.Errorf("%v by %+v", o.Verdict, o.Cause)
	}
}

// Rule hits go to the hook in which they happened, in order; the one that did
// what was done is the deciding one.
func TestRuleHits(t *testing.T) {
	r := load(t, "vxlan-nodeport")
	rules := map[string]string{
		"nat PREROUTING 1":             "-A PREROUTING -j KUBE-SERVICES",
		"nat KUBE-SERVICES 4":          "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS",
		"nat KUBE-NODEPORTS 1":         "-A KUBE-NODEPORTS -p tcp -m tcp --dport 30000 -j KUBE-EXT-X",
		"nat KUBE-MARK-MASQ 1":         "-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000",
		"nat KUBE-SEP-Y 2":             "-A KUBE-SEP-Y -p tcp -m tcp -j DNAT --to-destination 10.244.2.3:80",
		"filter FORWARD 1":             "-A FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT",
		"mangle PREROUTING 0":          "policy ACCEPT",
		"nat POSTROUTING 1":            "-A POSTROUTING -j KUBE-POSTROUTING",
		"nat KUBE-POSTROUTING 2":       "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
		"nat KUBE-POSTROUTING 3":       "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
		"nat somewhere else entirely0": "",
	}
	node, data := uint64(0), map[string][]byte{}
	for _, e := range r.Events {
		if r.Places[e.Inode].Label == "node1" && e.Point == skbtrace.Hook && e.Priority == skbtrace.First && data[e.Hook] == nil {
			node, data[e.Hook] = e.Inode, e.Data
		}
	}
	var hits []ruletrace.Hit
	hit := func(hook, in, out, table, chain, kind string, number int) {
		hits = append(hits, ruletrace.Hit{Order: len(hits), Inode: node, Table: table, Chain: chain, Kind: kind, Number: number, Hook: hook, In: in, Out: out, Data: data[hook]})
	}
	hit("prerouting", "eth0", "", "mangle", "PREROUTING", "policy", 1)
	hit("prerouting", "eth0", "", "nat", "PREROUTING", "rule", 1)
	hit("prerouting", "eth0", "", "nat", "KUBE-SERVICES", "rule", 4)
	hit("prerouting", "eth0", "", "nat", "KUBE-NODEPORTS", "rule", 1)
	hit("prerouting", "eth0", "", "nat", "KUBE-MARK-MASQ", "rule", 1)
	hit("prerouting", "eth0", "", "nat", "KUBE-MARK-MASQ", "return", 2) // the chain's end, which is no rule
	hit("prerouting", "eth0", "", "nat", "KUBE-SEP-Y", "rule", 2)
	hit("forward", "eth0", "flannel.1", "filter", "FORWARD", "rule", 1)
	hit("postrouting", "eth0", "flannel.1", "nat", "POSTROUTING", "rule", 1)
	hit("postrouting", "eth0", "flannel.1", "nat", "KUBE-POSTROUTING", "rule", 2)
	hit("postrouting", "eth0", "flannel.1", "nat", "KUBE-POSTROUTING", "rule", 3)
	w := r.world()
	w.Rule = func(_, table, chain string, number int) string {
		return rules[strings.Join([]string{table, chain, string(rune('0' + number))}, " ")]
	}
	o := FromSKB(r.Events, hits, w)
	for i, want := range map[int]struct {
		action  trace.Action
		rule    string
		effects []string
	}{
		6: {trace.DNAT, rules["nat KUBE-SEP-Y 2"], []string{"accept", "jump KUBE-SERVICES", "jump KUBE-NODEPORTS", "jump KUBE-EXT-X", "mark 0x4000/0x4000", "dnat 10.244.2.3:80"}},
		7: {trace.Pass, rules["filter FORWARD 1"], []string{"accept"}},
		8: {trace.Masquerade, rules["nat KUBE-POSTROUTING 3"], []string{"jump KUBE-POSTROUTING", "mark 0x4000/0x0", "masquerade"}},
	} {
		h := o.Request[i]
		var effects []string
		for _, r := range h.Rules {
			effects = append(effects, r.Effect)
		}
		if h.Action != want.action || h.Rule != want.rule || !slices.Equal(effects, want.effects) {
			t.Errorf("%s: %s by %q, effects %q", h.At(), h.Action, h.Rule, effects)
		}
	}
	if !o.Rules {
		t.Error("the observation does not say that rules were looked at")
	}
}
