package traceview

import (
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

// The traces of these tests are written by hand, stage by stage, after what
// flannel, calico and kube-proxy program.

// walk writes hops as a packet would take them.
type walk struct {
	hops        []trace.Hop
	place, node string
	packet      datapath.Packet
	chance      float64
}

// in moves the walk into another place.
func (w *walk) in(place, node string) *walk {
	w.place, w.node = place, node
	return w
}

// hop adds a step; hidden ones are lookups.
func (w *walk) hop(device string, stage trace.Stage, edits ...func(*trace.Hop)) *walk {
	h := trace.Hop{
		Seq: len(w.hops) + 1, Node: w.node, Namespace: "slipway-demo-" + w.place, Place: w.place, Device: device,
		Stage: stage, Action: trace.Pass, Packet: w.packet, Probability: w.chance,
	}
	switch stage {
	case trace.Forward:
		h.Packet.TTL--
	case trace.Route, trace.BridgeStage, trace.Encap, trace.Decap, trace.Socket:
		h.Hidden = true
	}
	for _, e := range edits {
		e(&h)
	}
	w.packet = h.Packet
	w.chance = h.Probability
	w.hops = append(w.hops, h)
	return w
}

func route(r, neighbour string) func(*trace.Hop) {
	return func(h *trace.Hop) { h.Route, h.Neighbor = r, neighbour }
}

func forwarded(r, neighbour string) func(*trace.Hop) {
	return func(h *trace.Hop) {
		h.Route, h.Neighbor, h.Action = r, neighbour, trace.ForwardAction
	}
}

func rule(table, chain string, n int, text, effect string) func(*trace.Hop) {
	return func(h *trace.Hop) {
		h.Table, h.Rule = table, text
		h.Rules = append(h.Rules, trace.Hit{Table: table, Chain: chain, Number: n, Rule: text, Effect: effect})
	}
}

func hit(table, chain string, n int, text, effect string, p float64) func(*trace.Hop) {
	return func(h *trace.Hop) {
		h.Rules = append(h.Rules, trace.Hit{Table: table, Chain: chain, Number: n, Rule: text, Effect: effect, Probability: p})
	}
}

func act(a trace.Action, reason string) func(*trace.Hop) {
	return func(h *trace.Hop) { h.Action, h.Reason = a, reason }
}

func dnat(to string, chance float64) func(*trace.Hop) {
	return func(h *trace.Hop) {
		ap := netip.MustParseAddrPort(to)
		h.Action, h.Packet.Dst, h.Packet.DPort, h.Probability = trace.DNAT, ap.Addr(), ap.Port(), chance
		h.Conntrack = "new"
	}
}

func undnat(from string) func(*trace.Hop) {
	return func(h *trace.Hop) {
		ap := netip.MustParseAddrPort(from)
		h.Packet.Src, h.Packet.SPort = ap.Addr(), ap.Port()
		h.Conntrack = "established, reply"
	}
}

func encap(o datapath.Outer) func(*trace.Hop) {
	return func(h *trace.Hop) { h.Action, h.Packet.Outer = trace.EncapAction, &o }
}

func decap(h *trace.Hop) { h.Action, h.Packet.Outer = trace.DecapAction, nil }

// observed is what an observer makes of a way: no lookups, no probabilities,
// but times and evidence. The times are made up, 1.3 µs a hop.
func observed(pred []trace.Hop, from int64) []trace.Hop {
	evidence := map[trace.Stage]string{
		trace.Ingress: "netif_receive_skb", trace.Egress: "net_dev_start_xmit", trace.Wire: "net_dev_start_xmit", trace.Deliver: "consume_skb",
		trace.Prerouting: "nf prerouting -450", trace.Input: "nf input -450", trace.Forward: "nf forward -450", trace.Output: "nf output -450", trace.Postrouting: "nf postrouting -450",
	}
	var out []trace.Hop
	for _, h := range pred {
		if h.Hidden {
			continue
		}
		h.Seq, h.Route, h.Neighbor, h.MTU, h.Probability = len(out)+1, "", "", 0, 0
		h.TimeNs = from + int64(len(out))*1300
		if len(out) > 0 {
			h.SinceNs = 1300
		}
		h.Evidence = []string{evidence[h.Stage]}
		out = append(out, h)
	}
	return out
}

// both completes a trace whose packet went as predicted.
func observedAsPredicted(t *trace.Trace) *trace.Trace {
	yes, v := true, t.PredictedVerdict
	t.Agree, t.ObservedVerdict, t.Verdict = &yes, &v, t.PredictedVerdict
	t.Observer = "bpf"
	t.Observes = []trace.Stage{trace.Egress, trace.Ingress, trace.Wire, trace.Prerouting, trace.Input, trace.Forward, trace.Output, trace.Postrouting, trace.Deliver}
	t.Observed = observed(t.Predicted, 0)
	if n := len(t.Observed); n > 0 {
		t.LatencyNs = t.Observed[n-1].TimeNs
	}
	if len(t.Reply.Predicted) > 0 {
		t.Reply.Observed = observed(t.Reply.Predicted, t.LatencyNs+21700)
		t.LatencyNs = t.Reply.Observed[len(t.Reply.Observed)-1].TimeNs
		t.AnswerNs = t.LatencyNs + 12400
	}
	return t
}

func newTrace(mode topology.ModeName) *trace.Trace {
	return &trace.Trace{
		APIVersion: topology.APIVersion, Kind: "Trace", Lab: "demo", Mode: mode,
		Source:        trace.Endpoint{Pod: "default/client", Node: "node01", Address: netip.MustParseAddr("10.244.1.2")},
		Disagreements: []trace.Disagreement{},
	}
}

func tcp(src, dst string) datapath.Packet {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return datapath.Packet{Src: s.Addr(), Dst: d.Addr(), SPort: s.Port(), DPort: d.Port(), Proto: "tcp", TTL: 64, Length: 60, DF: true, Flags: "SYN"}
}

func vxlan(from, to string) datapath.Outer {
	vni := uint32(1)
	return datapath.Outer{Type: "vxlan", Src: netip.MustParseAddr(from), Dst: netip.MustParseAddr(to), VNI: &vni, SPort: 51334, DPort: 8472, TTL: 64}
}

const (
	svcRule   = `-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/nginx-svc:http cluster IP" -m tcp --dport 8080 -j KUBE-SVC-R6XTK5OSTQ3CVYS2`
	endptRule = `-A KUBE-SVC-R6XTK5OSTQ3CVYS2 -m comment --comment "default/nginx-svc:http -> 10.244.2.3:80" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-QDLHSPFZTKDP3W4C`
	dnatRule  = `-A KUBE-SEP-QDLHSPFZTKDP3W4C -p tcp -m comment --comment "default/nginx-svc:http" -m tcp -j DNAT --to-destination 10.244.2.3:80`
	flanRule  = `-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT`
	leaf1     = "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"
	leaf2     = "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink"
)

// leavePod is the way out of a pod with a veth.
func (w *walk) leavePod(place, node, gateway string) *walk {
	return w.in(place, node).hop("", trace.Socket).hop("eth0", trace.Output).
		hop("eth0", trace.Route, route("default via "+gateway+" dev eth0", gateway+" lladdr 5a:11:02:00:01:01 REACHABLE")).
		hop("eth0", trace.Postrouting).hop("eth0", trace.Egress)
}

// enterPod is the way into a pod.
func (w *walk) enterPod(place, node, addr string) *walk {
	return w.in(place, node).hop("eth0", trace.Ingress).hop("eth0", trace.Prerouting).
		hop("eth0", trace.Route, route("local "+addr+" dev eth0 table local", "")).
		hop("eth0", trace.Input).hop("eth0", trace.Deliver, act(trace.DeliverAction, ""))
}

// tunnelled is the way from flannel.1 on one node over the fabric to flannel.1
// on the other.
func (w *walk) tunnelled(from, to, fromIP, toIP string) *walk {
	w.hop("flannel.1", trace.Egress).
		hop("flannel.1", trace.Encap, encap(vxlan(fromIP, toIP)), func(h *trace.Hop) {
			h.Neighbor = "8e:4c:00:00:00:02 dst " + toIP + " self permanent"
		}).
		hop("eth0", trace.Output).hop("eth0", trace.Postrouting).hop("eth0", trace.Egress)
	return w.fabric(from, to).in(to, to).hop("eth0", trace.Ingress).hop("eth0", trace.Prerouting).
		hop("eth0", trace.Route, route("local "+toIP+" dev eth0 table local", "")).hop("eth0", trace.Input).
		hop("flannel.1", trace.Decap, decap).hop("flannel.1", trace.Ingress).hop("flannel.1", trace.Prerouting)
}

// fabric crosses the underlay's switch.
func (w *walk) fabric(from, to string) *walk {
	return w.in("fabric", "").hop(from, trace.Wire).hop("rack1", trace.BridgeStage, route("", "02:53:00:00:00:"+to[len(to)-2:]+" dev "+to+" master rack1")).hop(to, trace.Wire)
}

// serviceRequest is the request's way to the endpoint on node02.
func serviceRequest() *walk {
	w := &walk{packet: tcp("10.244.1.2:40312", "10.96.0.10:8080"), chance: 1}
	w.leavePod("default/client", "node01", "10.244.1.1")
	w.in("node01", "node01").hop("veth5c1a0b7e", trace.Ingress).hop("cni0", trace.BridgeStage).hop("cni0", trace.Ingress).
		hop("cni0", trace.Prerouting,
			hit("nat", "PREROUTING", 1, `-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES`, "jump KUBE-SERVICES", 0),
			hit("nat", "KUBE-SERVICES", 4, svcRule, "jump KUBE-SVC-R6XTK5OSTQ3CVYS2", 0),
			hit("nat", "KUBE-SVC-R6XTK5OSTQ3CVYS2", 3, endptRule, "jump KUBE-SEP-QDLHSPFZTKDP3W4C", 0.5),
			rule("nat", "KUBE-SEP-QDLHSPFZTKDP3W4C", 2, dnatRule, "dnat 10.244.2.3:80"), dnat("10.244.2.3:80", 1.0/3)).
		hop("flannel.1", trace.Route, forwarded(leaf1, "10.244.2.0 lladdr 8e:4c:00:00:00:02 PERMANENT")).
		hop("cni0", trace.Forward, hit("filter", "FORWARD", 2, `-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`, "jump FLANNEL-FWD", 0), rule("filter", "FLANNEL-FWD", 1, flanRule, "accept")).
		hop("flannel.1", trace.Postrouting)
	w.tunnelled("node01", "node02", "192.168.233.30", "192.168.233.31")
	w.hop("cni0", trace.Route, forwarded("10.244.2.0/24 dev cni0 src 10.244.2.1", "10.244.2.3 lladdr 5a:11:02:00:02:03 REACHABLE")).
		hop("flannel.1", trace.Forward, rule("filter", "FLANNEL-FWD", 1, flanRule, "accept")).
		hop("cni0", trace.Postrouting).hop("cni0", trace.Egress).
		hop("cni0", trace.BridgeStage, route("", "5a:11:02:00:02:03 dev veth9d20ee41 master cni0")).hop("veth9d20ee41", trace.Egress)
	return w.enterPod("default/nginx-7c5b", "node02", "10.244.2.3")
}

// serviceReply is the answer's way back.
func serviceReply() *walk {
	w := &walk{packet: tcp("10.244.2.3:80", "10.244.1.2:40312")}
	w.packet.Flags = "SYN,ACK"
	w.leavePod("default/nginx-7c5b", "node02", "10.244.2.1")
	w.in("node02", "node02").hop("veth9d20ee41", trace.Ingress).hop("cni0", trace.BridgeStage).hop("cni0", trace.Ingress).hop("cni0", trace.Prerouting).
		hop("flannel.1", trace.Route, forwarded(leaf2, "10.244.1.0 lladdr 8e:4c:00:00:00:01 PERMANENT")).
		hop("cni0", trace.Forward, rule("filter", "FLANNEL-FWD", 1, flanRule, "accept")).hop("flannel.1", trace.Postrouting)
	w.tunnelled("node02", "node01", "192.168.233.31", "192.168.233.30")
	w.hop("cni0", trace.Route, forwarded("10.244.1.0/24 dev cni0 src 10.244.1.1", "10.244.1.2 lladdr 5a:11:02:00:01:02 REACHABLE")).
		hop("flannel.1", trace.Forward, rule("filter", "FLANNEL-FWD", 1, flanRule, "accept")).
		hop("cni0", trace.Postrouting, undnat("10.96.0.10:8080")).hop("cni0", trace.Egress).
		hop("cni0", trace.BridgeStage, route("", "5a:11:02:00:01:02 dev veth5c1a0b7e master cni0")).hop("veth5c1a0b7e", trace.Egress)
	return w.enterPod("default/client", "node01", "10.244.1.2")
}

func toService(t *trace.Trace) *trace.Trace {
	t.Destination = trace.Endpoint{Service: "default/nginx-svc", Address: netip.MustParseAddr("10.96.0.10"), Port: 8080, Protocol: "tcp"}
	return t
}

// vxlanService is pod to service over VXLAN with three endpoints, delivered as
// predicted.
func vxlanService() *trace.Trace {
	t := toService(newTrace(topology.FlannelVXLAN))
	t.Predicted, t.Reply.Predicted = serviceRequest().hops, serviceReply().hops
	t.PredictedVerdict = trace.Delivered
	third := 1.0 / 3
	t.Branches = []trace.Branch{
		{Probability: third, Verdict: trace.Delivered, Endpoint: netip.MustParseAddrPort("10.244.1.4:80"), Pod: "default/nginx-5f2d", Hops: t.Predicted[:9]},
		{Probability: third, Verdict: trace.Delivered, Endpoint: netip.MustParseAddrPort("10.244.2.3:80"), Pod: "default/nginx-7c5b", Hops: t.Predicted, Reply: t.Reply.Predicted},
		{
			Probability: third, Verdict: trace.Dropped, Endpoint: netip.MustParseAddrPort("10.244.2.9:80"), Hops: t.Predicted[:20],
			Cause: &trace.Cause{Place: "node02", Node: "node02", Stage: trace.Route, Reason: trace.ReasonNoNeighbor, Text: "nobody answers ARP for 10.244.2.9"},
		},
	}
	return observedAsPredicted(t)
}

// predictOnly is the same without anything sent.
func predictOnly() *trace.Trace {
	t := vxlanService()
	t.Agree, t.ObservedVerdict, t.Observed, t.Reply.Observed = nil, nil, nil, nil
	t.Observer, t.Observes, t.LatencyNs, t.AnswerNs = "", nil, 0, 0
	return t
}

const dropRule = `-A FORWARD -s 10.244.1.0/24 -d 10.244.2.0/24 -p tcp -m tcp --dport 80 -m comment --comment "fault injected by the lab" -j DROP`

// forwardDrop ends at a FORWARD rule of node02.
func forwardDrop() *trace.Trace {
	t := toService(newTrace(topology.FlannelVXLAN))
	w := serviceRequest()
	at := slices.IndexFunc(w.hops, func(h trace.Hop) bool { return h.Place == "node02" && h.Stage == trace.Forward })
	w.hops = w.hops[:at+1]
	end := &w.hops[at]
	end.Rules = nil
	rule("filter", "FORWARD", 1, dropRule, "drop")(end)
	end.Action = trace.Drop
	t.Predicted = w.hops
	t.PredictedVerdict = trace.Dropped
	t.PredictedCause = &trace.Cause{
		Node: "node02", Namespace: "slipway-demo-node02", Place: "node02", Device: "flannel.1", Stage: trace.Forward, Table: "filter",
		Reason: trace.ReasonRuleDrop, Rule: dropRule, Text: "rule 1 of chain FORWARD drops it", Hint: "iptables -L FORWARD -nv on node02 shows the rule and its counter",
	}
	t = observedAsPredicted(t)
	c := *t.PredictedCause
	c.Kernel, c.Rule, c.Hint = "SKB_DROP_REASON_NETFILTER_DROP", "", ""
	t.ObservedCause = &c
	return t
}

// wrongVTEP: the prediction, made before the FDB was changed, says delivered;
// the packet went to another node.
func disagreeing() *trace.Trace {
	t := vxlanService()
	no, v := false, trace.Dropped
	t.Agree, t.ObservedVerdict, t.Verdict = &no, &v, trace.Dropped
	t.Reply.Observed = nil
	at := slices.IndexFunc(t.Observed, func(h trace.Hop) bool { return h.Place == "fabric" })
	t.Observed = t.Observed[:at+2]
	o := &t.Observed[at+1]
	o.Device, o.Action, o.Reason = "master01", trace.Drop, "the frame is for another MAC"
	for i := at - 1; i <= at+1; i++ {
		t.Observed[i].Packet.TTL = 62
	}
	p := slices.IndexFunc(t.Predicted, func(h trace.Hop) bool { return h.Place == "fabric" && h.Device == "node02" })
	before := slices.IndexFunc(t.Predicted, func(h trace.Hop) bool {
		return h.Place == "node01" && h.Stage == trace.Egress && h.Device == "eth0"
	})
	t.Disagreements = []trace.Disagreement{
		{Predicted: before, Observed: at - 1, What: "packet", Text: "at node01/eth0 egress the TTL is predicted as 63 and was 62"},
		{Predicted: p, Observed: at + 1, What: "path", Text: "after fabric/node01 wire the prediction goes to fabric/node02 wire, the packet was seen at fabric/master01 wire"},
		{Predicted: -1, Observed: -1, What: "verdict", Text: "predicted delivered, observed dropped"},
	}
	t.ObservedCause = &trace.Cause{
		Namespace: "slipway-demo-fabric", Place: "fabric", Device: "master01", Stage: trace.Wire, Reason: trace.ReasonOtherHost,
		Kernel: "SKB_DROP_REASON_OTHERHOST", Text: "the frame is for a MAC address that this port does not have", Hint: "compare the FDB entry of node01's flannel.1 with node02's VTEP",
	}
	t.AnswerNs = 0
	return t
}

// ipip is pod to pod over calico's IPIP by eBPF, where the outer packet passes
// no hook and tc takes it off before any device sees it.
func ipip() *trace.Trace {
	t := newTrace(topology.CalicoIPIP)
	t.Destination = trace.Endpoint{Pod: "default/web-0", Node: "node02", Address: netip.MustParseAddr("10.244.69.66"), Protocol: "icmp"}
	t.Source.Address = netip.MustParseAddr("10.244.12.65")
	out := datapath.Outer{Type: "ipip", Src: netip.MustParseAddr("192.168.233.30"), Dst: netip.MustParseAddr("192.168.233.31"), TTL: 64}
	echo := datapath.Packet{Src: t.Source.Address, Dst: t.Destination.Address, Proto: "icmp", TTL: 64, Length: 84, ICMP: &datapath.ICMPInfo{Type: 8, ID: 77, Seq: 1}}
	hidden := func(h *trace.Hop) { h.Hidden = true }
	one := func(p datapath.Packet, from, fromNode, to, toNode, cali1, cali2, block string, o datapath.Outer) []trace.Hop {
		w := &walk{packet: p, chance: 1}
		w.leavePod(from, fromNode, "169.254.1.1")
		w.in(fromNode, fromNode).hop(cali1, trace.Ingress).hop(cali1, trace.Prerouting).
			hop("tunl0", trace.Route, forwarded(block+" via "+o.Dst.String()+" dev tunl0 proto bird onlink", "")).
			hop(cali1, trace.Forward).hop("tunl0", trace.Postrouting).hop("tunl0", trace.Egress, hidden).
			hop("tunl0", trace.Encap, encap(o)).hop("eth0", trace.Egress)
		w.fabric(fromNode, toNode).in(toNode, toNode).hop("eth0", trace.Ingress).hop("eth0", trace.Decap, decap).
			hop("tunl0", trace.Ingress).hop("tunl0", trace.Prerouting).
			hop(cali2, trace.Route, forwarded(p.Dst.String()+" dev "+cali2+" scope link", p.Dst.String()+" lladdr 5a:11:02:00:02:42 REACHABLE")).
			hop("tunl0", trace.Forward).hop(cali2, trace.Postrouting).hop(cali2, trace.Egress)
		return w.enterPod(to, toNode, p.Dst.String()).hops
	}
	t.Predicted = one(echo, "default/client", "node01", "default/web-0", "node02", "cali8bd1f1cd7c0", "cali0e5d7fa2a11", "10.244.69.64/26", out)
	back := echo
	back.Src, back.Dst, back.ICMP = echo.Dst, echo.Src, &datapath.ICMPInfo{Type: 0, ID: 77, Seq: 1}
	out.Src, out.Dst = out.Dst, out.Src
	t.Reply.Predicted = one(back, "default/web-0", "node02", "default/client", "node01", "cali0e5d7fa2a11", "cali8bd1f1cd7c0", "10.244.12.64/26", out)
	t.PredictedVerdict = trace.Delivered
	return observedAsPredicted(t)
}

// fixtures are all of them by name.
func fixtures() map[string]*trace.Trace {
	return map[string]*trace.Trace{
		"vxlan-service": vxlanService(), "predict-only": predictOnly(), "forward-drop": forwardDrop(), "disagree": disagreeing(),
		"calico-ipip": ipip(), "reply-lost": replyLost(), "unknown": unknown(),
	}
}
