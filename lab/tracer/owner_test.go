package tracer

import (
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/topology"
)

// A pod's packet that ends at its sender's node, which has the address too, is
// lost to a duplicate; at the pod itself it is not.
func TestFindDuplicates(t *testing.T) {
	web := netip.MustParseAddr("10.244.2.3")
	s := &topology.Snapshot{Pods: []topology.Pod{{Namespace: "default", Name: "web", Address: web}}}
	at := func(place string) []trace.Hop {
		return []trace.Hop{{Place: place, Stage: trace.Deliver, Packet: datapath.Packet{Dst: web}}}
	}
	refused := func() *trace.Cause { return &trace.Cause{Reason: trace.ReasonNoListener, Table: "socket"} }
	branches := []trace.Branch{
		{Hops: at("node01"), Cause: refused()},
		{Hops: at("default/web"), Cause: refused()},
	}
	o := &trace.Observation{Request: at("node01"), Cause: refused()}
	var tr trace.Trace
	findDuplicates(&tr, branches, o, s)
	if c := branches[0].Cause; c.Reason != trace.ReasonDuplicate || !strings.Contains(c.Text, "node01 has the address 10.244.2.3, which is that of default/web") {
		t.Errorf("predicted at node01: %+v", c)
	}
	if c := o.Cause; c.Reason != trace.ReasonDuplicate {
		t.Errorf("observed at node01: %+v", c)
	}
	if c := branches[1].Cause; c.Reason != trace.ReasonNoListener {
		t.Errorf("at the pod itself: %+v", c)
	}
	if len(tr.Notes) != 0 {
		t.Errorf("notes %q of what was refused", tr.Notes)
	}
	findDuplicates(&tr, []trace.Branch{{Verdict: trace.Delivered, Hops: at("node01")}}, nil, s)
	if len(tr.Notes) != 1 || !strings.Contains(tr.Notes[0], "delivered to the wrong place") {
		t.Errorf("notes %q of what node01 answered", tr.Notes)
	}
}
