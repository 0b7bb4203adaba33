package tracer

import (
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/topology"
)

// fill sets what prediction and observation say, and compares them.
func fill(t *trace.Trace, p trace.Prediction, o *trace.Observation, s *topology.Snapshot) {
	t.Branches = p.Branches
	for i := range t.Branches {
		t.Branches[i].Pod = podAt(s, t.Branches[i].Endpoint.Addr())
	}
	findDuplicates(t, p.Branches, o, s)
	best, mixed := shown(p.Branches)
	t.Disagreements = []trace.Disagreement{}
	if o != nil && len(p.Branches) > 0 {
		best, t.Disagreements = trace.Compare(p, *o)
		if t.Disagreements == nil {
			t.Disagreements = []trace.Disagreement{}
		}
		agree := len(t.Disagreements) == 0
		t.Agree = &agree
		if agree && trace.Withheld(&p.Branches[best], o) {
			p.Notes = trace.TellWithheld(&p.Branches[best], o, p.Notes)
		}
	}
	t.Notes = append(t.Notes, p.Notes...)
	if o == nil && mixed != "" {
		t.Notes = append(t.Notes, mixed)
	}
	if o != nil {
		t.Observed, t.Reply.Observed = o.Request, o.Reply
		t.ObservedVerdict, t.ObservedCause = &o.Verdict, o.Cause
		t.Observer, t.Observes = o.Observer, o.Observes
		t.LatencyNs, t.Copies = o.LatencyNs, o.Copies
		t.Notes = append(t.Notes, o.Notes...)
	}
	if best >= 0 && best < len(p.Branches) {
		b := p.Branches[best]
		t.Predicted, t.Reply.Predicted = b.Hops, b.Reply
		t.PredictedVerdict, t.PredictedCause = b.Verdict, b.Cause
	}
	t.Verdict = t.PredictedVerdict
	if o != nil {
		t.Verdict = o.Verdict
	}
	noNil(&t.Predicted, &t.Observed, &t.Reply.Predicted, &t.Reply.Observed)
}

// shown picks the way to show of a prediction that nothing was sent for: the
// likeliest, but where not all ways end alike the likeliest that does not
// deliver, as that is what there is to see. It then says how the ways share out.
func shown(branches []trace.Branch) (best int, mixed string) {
	share := map[trace.Verdict]float64{}
	best = -1
	for i, b := range branches {
		share[b.Verdict] += b.Probability
		if best < 0 && b.Verdict != trace.Delivered {
			best = i
		}
	}
	if len(share) < 2 {
		return 0, ""
	}
	var parts []string
	for _, v := range ordered.Keys(share) {
		parts = append(parts, fmt.Sprintf("%.1f %% %s", 100*share[v], v))
	}
	return best, "of all packets: " + strings.Join(parts, ", ") + "; shown is the likeliest way that does not deliver"
}

// noNil makes empty lists of what a script expects to be a list.
func noNil(lists ...*[]trace.Hop) {
	for _, l := range lists {
		if *l == nil {
			*l = []trace.Hop{}
		}
	}
}

func podAt(s *topology.Snapshot, a netip.Addr) string {
	if s == nil || !a.IsValid() {
		return ""
	}
	for _, p := range s.Pods {
		if p.Address == a {
			return p.Key()
		}
	}
	return ""
}
