package tracer

import (
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/trace"
)

func way(steps ...string) []trace.Hop {
	var out []trace.Hop
	for _, s := range steps {
		parts := strings.Fields(s)
		out = append(out, trace.Hop{Place: parts[0], Device: parts[1], Stage: trace.Stage(parts[2]), Action: trace.Pass, Packet: datapath.Packet{
			Src: netip.MustParseAddr("10.244.1.2"), Dst: netip.MustParseAddr("10.244.2.2"), Proto: "tcp", SPort: 40000, DPort: 80, TTL: 64,
		}})
	}
	return out
}

func texts(d []Difference) string {
	var out []string
	for _, x := range d {
		out = append(out, x.Text)
	}
	return strings.Join(out, "\n")
}

func TestDiffFindsWhatDiffers(t *testing.T) {
	base := func() *trace.Trace {
		return &trace.Trace{Verdict: trace.Delivered, Predicted: way("client eth0 egress", "node01 cni0 ingress", "node01 flannel.1 egress", "node02 flannel.1 ingress")}
	}
	a, b := base(), base()
	b.Predicted[0].Packet.SPort = 55555 // the kernel chose another port: the same way
	if d := Diff(a, b); len(d) != 0 {
		t.Errorf("the same way differs: %s", texts(d))
	}
	b.Predicted = append(b.Predicted[:2:2], way("node01 eth0 egress", "node02 eth0 ingress")...)
	b.Predicted[1].Rule = "-A FORWARD -j ACCEPT"
	b.Verdict, b.PredictedCause = trace.Dropped, &trace.Cause{Reason: trace.ReasonNoRoute, Place: "node02", Stage: trace.Route}
	got := texts(Diff(a, b))
	for _, want := range []string{
		"verdict delivered → dropped", "cause none → no-route at node02",
		"only in A: node01/flannel.1 egress", "only in B: node01/eth0 egress",
		"node01/cni0 ingress: rule none → -A FORWARD -j ACCEPT",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}

func TestDiffComparesPacketsAndReplies(t *testing.T) {
	a := &trace.Trace{Reply: trace.Reply{Predicted: way("node02 eth0 egress")}}
	b := &trace.Trace{Reply: trace.Reply{Predicted: way("node02 eth0 egress")}}
	b.Reply.Predicted[0].Packet.Src = netip.MustParseAddr("10.244.2.3")
	d := Diff(a, b)
	if len(d) != 1 || !d[0].Reply || d[0].What != "packet" || !strings.Contains(d[0].Text, "10.244.2.3") {
		t.Errorf("got %+v", d)
	}
}
