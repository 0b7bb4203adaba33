package scenario

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
	"slipway/topology"
)

// patience bounds what is waited for, on a busy machine too.
const patience = 3 * time.Minute

// TestScenarios plays every scenario that comes with the program and needs no real
// components. A drill's checks fail in its broken lab and pass once its solution was
// run; every step of a lesson does what it says.
func TestScenarios(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF, testnet.Curl)
	t.Parallel()
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("there are none")
	}
	for _, s := range all {
		if s.Components != topology.ComponentsNone {
			continue // TestRealComponents plays it
		}
		t.Run(s.Name, func(t *testing.T) {
			t.Parallel()
			play(t, start(t, s, ""))
		})
	}
}

// start begins a session, which ends with the test, on a lab of that name or, if it
// is empty, on one of its own.
func start(t *testing.T, s *Scenario, on string) *Session {
	t.Helper()
	x, err := New(s, Options{Program: program, Lab: on})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Reset(context.Background()); err != nil { // the test's own has ended
			t.Error(err)
		}
	})
	return x
}

func play(t *testing.T, x *Session) {
	s := x.Scenario
	for i, st := range s.Steps {
		done, err := x.Step(t.Context(), i)
		if err != nil {
			t.Errorf("step %d, %s: %v", i+1, st.Title(English), err)
		}
		if s.Name == "lesson-which-mode" { // it draws its lab, and another that is only a file
			drawings(t, x, done)
		}
	}
	if s.Kind != Drill {
		return
	}
	if r := check(t, x); r.Passed {
		t.Errorf("the checks pass in the broken lab: %s", said(r))
	}
	for range s.Hints {
		if h, err := x.Hint(t.Context()); err != nil || h.Text == "" {
			t.Errorf("hint %+v: %v", h, err)
		}
	}
	if _, err := x.Solve(t.Context()); err != nil {
		t.Fatal(err)
	}
	passes(t, x, "the solution is seen")
	for _, o := range s.Others {
		if err := x.script(t.Context(), s.Break, nil); err != nil {
			t.Fatal(err)
		}
		if r := check(t, x); r.Passed {
			t.Errorf("the checks pass in the lab that is broken again: %s", said(r))
		}
		if err := x.script(t.Context(), o, nil); err != nil {
			t.Fatal(err)
		}
		passes(t, x, fmt.Sprintf("the other way, %s:%d, is seen", o.File, o.Line))
	}
}

// drawings looks at what a page shows of commands that draw.
func drawings(t *testing.T, x *Session, done []Explained) {
	t.Helper()
	for _, e := range done {
		for _, r := range e.Ran {
			svg, err := x.Drawing(t.Context(), r.Command)
			draws := strings.Contains(r.Stdout, "flowchart")
			if draws && (err != nil || !strings.HasPrefix(svg, "<svg") || !strings.Contains(svg, "rack")) {
				t.Errorf("%s: is not drawn: %v %.200s", r.Command, err, svg)
			}
			if !draws && svg != "" {
				t.Errorf("%s: is drawn, and printed %.200s", r.Command, r.Stdout)
			}
		}
	}
}

// passes waits until all checks pass.
func passes(t *testing.T, x *Session, what string) {
	t.Helper()
	testnet.Eventually(t, patience, what, func() (bool, string) {
		r := check(t, x)
		return r.Passed, said(r)
	})
}

func check(t *testing.T, x *Session) *Report {
	t.Helper()
	r, err := x.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// said is a report as text.
func said(r *Report) string {
	out := ""
	for _, c := range r.Checks {
		out += fmt.Sprintf("\n%v %s: got %q, want %q (%s)", c.OK, c.Name, c.Got, c.Want, c.At)
	}
	return out
}
