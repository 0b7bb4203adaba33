package site

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"slipway/installer"
)

// UnrehearsedError says that a plan is not one that was seen to work.
type UnrehearsedError struct {
	Site   string
	Why    string   // "it was never rehearsed"
	Differ []string // what is another than in the plan that was rehearsed
}

// maxNamed is how many differences an error names.
const maxNamed = 8

// Error says why, and what differs.
func (e *UnrehearsedError) Error() string {
	s := fmt.Sprintf("the plan of site %s: %s", e.Site, e.Why)
	for i, d := range e.Differ {
		if i == maxNamed {
			return s + fmt.Sprintf("\n  and %d more", len(e.Differ)-i)
		}
		s += "\n  " + d
	}
	return s
}

// CheckRehearsed returns an [UnrehearsedError] unless this very plan was rehearsed
// to its end.
func (s *Site) CheckRehearsed(p *Planned) error {
	r, err := s.Rehearsed()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &UnrehearsedError{Site: s.Name, Why: "it was never rehearsed"}
	case err != nil:
		return err
	case r.Hash != p.Hash:
		differ := p.Items.Changed(r.Items)
		if len(differ) == 0 {
			differ = []string{"what the hosts are: their MTU, or whose their kernel is"}
		}
		return &UnrehearsedError{s.Name, fmt.Sprintf("it is not the one that was rehearsed on %s", r.At.Format(time.RFC3339)), differ}
	case !r.OK:
		return &UnrehearsedError{Site: s.Name, Why: "its rehearsal failed: " + r.Error}
	}
	return nil
}

// Progress is told how far an installation is; it is called from one goroutine at
// a time.
type Progress interface {
	// Step begins a step on some hosts.
	Step(ph installer.Phase, st installer.Step)
	// Event is what became of an item, or of a step on a host.
	Event(e installer.Event)
}

// Result is what was done.
type Result struct {
	Cluster string         `json:"cluster"`
	Changed int            `json:"changed"`
	ByHost  map[string]int `json:"changedByHost,omitempty"`
	Took    time.Duration  `json:"tookNs"`
	Phases  []PhaseResult  `json:"phases"`
}

// PhaseResult is how long a phase took and how much it changed.
type PhaseResult struct {
	ID      string        `json:"id"`
	Title   string        `json:"title"`
	Changed int           `json:"changed"`
	Took    time.Duration `json:"tookNs"`
}

// Carry goes through a plan on hosts and writes each item into the journal. It is
// what a rehearsal and an apply have in common.
func Carry(ctx context.Context, run string, hosts map[string]installer.Host, plan installer.Plan, write func(Entry) error, p Progress) (*Result, error) {
	res := &Result{ByHost: map[string]int{}}
	began := time.Now()
	var unwritten error
	e := &installer.Engine{Hosts: hosts, Tell: func(ev installer.Event) {
		if err := write(EntryOf(ev)); err != nil && unwritten == nil {
			unwritten = fmt.Errorf("write the journal: %w", err)
		}
		if ev.Changed {
			res.Changed++
			res.ByHost[ev.Host]++
			res.Phases[len(res.Phases)-1].Changed++
		}
		if p != nil {
			p.Event(ev)
		}
	}}
	defer func() { res.Took = time.Since(began) }()
	for _, ph := range plan.Phases {
		res.Phases = append(res.Phases, PhaseResult{ID: ph.ID, Title: ph.Title})
		start := time.Now()
		for _, st := range ph.Steps {
			if p != nil {
				p.Step(ph, st)
			}
			err := e.Step(ctx, ph, st)
			res.Phases[len(res.Phases)-1].Took = time.Since(start)
			if err == nil {
				err = unwritten
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				_ = write(Entry{Run: run + " stopped", Phase: ph.ID, Step: st.Name, Error: FirstLine(err)})
				return res, err
			}
		}
	}
	return res, nil
}

// FirstLine is that of an error: what a command said after it may be anything.
func FirstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}

// Apply makes the hosts what a plan, or a part of it, wants them to be.
func (s *Site) Apply(ctx context.Context, hosts map[string]installer.Host, p *Planned, part installer.Plan, pr Progress) (*Result, error) {
	j, err := s.Journal()
	if err != nil {
		return nil, err
	}
	defer j.Close() //nolint:errcheck // every line has been written
	whole := len(part.Phases) == len(p.Whole.Phases) || s.kept.Complete && s.kept.Hash == p.Hash
	if err := errors.Join(s.Remember(p, false), j.Write(Entry{Run: "apply", Hash: p.Hash})); err != nil {
		return nil, err
	}
	res, err := Carry(ctx, "apply", hosts, part, j.Write, pr)
	res.Cluster = s.Name
	if err != nil {
		return res, err
	}
	return res, s.Remember(p, whole)
}
