package traceview

import (
	"slices"

	"slipway/datapath/trace"
	"slipway/topology"
)

// replyLost: rp_filter of node01 drops the answer.
func replyLost() *trace.Trace {
	t := vxlanService()
	at := slices.IndexFunc(t.Reply.Predicted, func(h trace.Hop) bool {
		return h.Place == "node01" && h.Stage == trace.Prerouting && h.Packet.Outer == nil
	})
	w := &walk{hops: slices.Clone(t.Reply.Predicted[:at+1]), place: "node01", node: "node01", packet: t.Reply.Predicted[at].Packet}
	w.hop("flannel.1", trace.Route, act(trace.Drop, "strict reverse-path filter"), func(h *trace.Hop) {
		h.Hidden, h.Table, h.Rule = false, "sysctl", "net.ipv4.conf.flannel.1.rp_filter = 1"
	})
	t.Reply.Predicted = w.hops
	t.Branches, t.PredictedVerdict = nil, trace.Dropped
	t.PredictedCause = &trace.Cause{
		Node: "node01", Namespace: "slipway-demo-node01", Place: "node01", Device: "flannel.1", Stage: trace.Route, Table: "sysctl", Reason: trace.ReasonRPFilter,
		Rule: "net.ipv4.conf.flannel.1.rp_filter = 1", Text: "the way back to 10.244.2.3 does not lead through flannel.1", Hint: "set rp_filter to 2 (loose), or give node01 a route to 10.244.2.0/24 through flannel.1", Reply: true,
	}
	t.Observes = append(t.Observes, trace.Route)
	observedAsPredicted(t)
	c := *t.PredictedCause
	c.Kernel = "SKB_DROP_REASON_IP_RPFILTER"
	t.ObservedCause, t.AnswerNs = &c, 0
	return t
}

const oddRule = `-A FORWARD -m u32 --u32 "0x6&0xff=0x6&&0x0>>0x16&0x3c@0x4=0x1" -m string --algo bm --string "</script><script>alert(1)</script>" -j DROP`

// unknown: a rule cannot be evaluated, and nothing was sent.
func unknown() *trace.Trace {
	t := toService(newTrace(topology.FlannelVXLAN))
	w := serviceRequest()
	at := slices.IndexFunc(w.hops, func(h trace.Hop) bool { return h.Place == "node01" && h.Stage == trace.Forward })
	w.hops = w.hops[:at+1]
	end := &w.hops[at]
	end.Rules = nil
	rule("filter", "FORWARD", 3, oddRule, "")(end)
	act(trace.UnknownAction, "the match u32 is not evaluated")(end)
	t.Predicted = w.hops
	t.PredictedCause = &trace.Cause{
		Node: "node01", Namespace: "slipway-demo-node01", Place: "node01", Device: "cni0", Stage: trace.Forward, Table: "filter",
		Reason: trace.ReasonNotEvaluated, Rule: oddRule, Text: "the match u32 is not evaluated: the packet may pass or not", Hint: "send a packet to find out: trace without --predict",
	}
	return t
}
