package installer

import (
	"testing"
	"time"
)

// Slow hosts get more time, never less, and the plan that was shown stays as it is.
func TestPatient(t *testing.T) {
	plan := Plan{Phases: []Phase{{Steps: []Step{{Work: []Work{{Host: "a", Items: []Item{
		Directory{Path: "/a"}, Wait{Name: "short", Until: time.Second}, Wait{Name: "long", Until: time.Hour},
	}}}}}}}}
	items := func(p Plan) []Item { return p.Phases[0].Steps[0].Work[0].Items }
	got := items(plan.Patient(time.Minute))
	for i, want := range []time.Duration{0, time.Minute, time.Hour} {
		w, _ := got[i].(Wait)
		if w.Until != want || got[i].ID() != items(plan)[i].ID() || got[i].Want() != items(plan)[i].Want() {
			t.Errorf("item %d is %+v", i, got[i])
		}
	}
	if w := items(plan)[1].(Wait); w.Until != time.Second {
		t.Errorf("the plan itself has changed: %+v", w)
	}
}
