package scenario

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"rsc.io/script"

	"slipway/lab"
)

// Report is what the checks of a scenario found.
type Report struct {
	Scenario string        `json:"scenario"`
	Lab      string        `json:"lab"`
	Passed   bool          `json:"passed"` // all of them
	Checks   []CheckResult `json:"checks"`
	Took     time.Duration `json:"tookNs"`
}

// CheckResult is what one check found.
type CheckResult struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Got is what was seen, and Want what was wanted, of the last thing that was
	// looked at: the one that failed, if any.
	Got  string `json:"got"`
	Want string `json:"want"`
	// At is the line of the file that failed.
	At string `json:"at,omitempty"`
}

// checksAtOnce is how many checks run together: those of something broken wait
// for answers that do not come.
const checksAtOnce = 8

// Check looks at everything that the scenario wants, on real packets.
func (s *Session) Check(ctx context.Context) (r *Report, err error) {
	began := time.Now()
	err = s.working(ctx, func(st *State) (string, string, error) {
		if r, err = s.check(ctx); err != nil {
			return "", "", err
		}
		r.Took = time.Since(began)
		st.Checks++
		if r.Passed && st.PassedAt == nil {
			now := time.Now().UTC()
			st.PassedAt = &now
		}
		return "check", fmt.Sprintf("%d of %d", r.passed(), len(r.Checks)), nil
	})
	return r, err
}

func (r *Report) passed() int {
	n := 0
	for _, c := range r.Checks {
		if c.OK {
			n++
		}
	}
	return n
}

func (s *Session) check(ctx context.Context) (*Report, error) {
	st, err := lab.ReadState(s.Lab())
	if err != nil {
		return nil, err
	}
	r := &Report{Scenario: s.Scenario.Name, Lab: s.Lab(), Checks: make([]CheckResult, len(s.Scenario.Checks))}
	vars := variables(st)
	var g errgroup.Group
	g.SetLimit(checksAtOnce)
	for i, c := range s.Scenario.Checks {
		g.Go(func() error {
			x := s.run(ctx)
			x.log, x.onRan, x.env = nil, nil, vars
			r.Checks[i] = x.judgeCheck(c, s.o.Lang)
			return nil
		})
	}
	_ = g.Wait() // each has written down what it found
	r.Passed = r.passed() == len(r.Checks)
	return r, ctx.Err()
}

// judgeCheck runs one check.
func (x *run) judgeCheck(c Check, lang string) CheckResult {
	r := CheckResult{Name: c.Name.In(lang)}
	err := x.script(c.Script)
	r.OK = err == nil
	r.Want, r.Got = x.outcome.want.In(lang), x.outcome.got.In(lang)
	var f *FailedError
	if errors.As(err, &f) {
		r.At = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	if errors.Is(err, script.ErrUnexpectedSuccess) || r.OK && lastNegated(c.Script) {
		r.Want = x.outcome.wantNot.In(lang)
	}
	if err != nil && r.Got == "" {
		r.Got = err.Error()
	}
	return r
}
