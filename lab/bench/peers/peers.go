// Package peers measures the programs that others wrote beside ours, in rounds
// that take turns, under the same conditions: the real flanneld, and whatever
// else has a section. A section is one file and one line in [Sections].
package peers

import (
	"context"
	"fmt"
	"time"

	"slipway/lab"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// Section is one comparison.
type Section struct {
	Name  string // a word: "flanneld"
	About string // a line
	// Components are what it runs, by their names in the catalogue.
	Components []string
	// Missing says what else this machine lacks; nil asks for nothing.
	Missing func() []Missing
	Run     func(context.Context, Options) (*report.Report, error)
}

// Missing is something that a section needs and the machine does not have.
type Missing struct {
	What string `json:"what"`
	Hint string `json:"hint"` // what to do
}

// Sections lists all comparisons, in the order in which they run.
func Sections() []Section {
	return []Section{
		flanneldSection,
		byHandSection,
		kubeProxySection,
		birdSection,
		mininetSection,
	}
}

// Options say how to measure.
type Options struct {
	Exe     string // the slipway program, which brings labs up
	Version string // of it, for the report
	// Binary is where a component's program is: Binary("etcd", "etcdctl").
	Binary    func(component, program string) string
	Rounds    int // at least
	MaxRounds int // at most, while the intervals are wide
	Duration  time.Duration
	WarmUp    time.Duration
	Budget    time.Duration // no round begins that would not end in it; zero for no bound
	Seed      uint64
	Only      []string // parts of a section, by its own names; empty for all
	Progress  lab.Progress
}

// Run runs sections one after the other. A report comes back with an error, too:
// as far as it got.
func Run(ctx context.Context, sections []Section, o Options) (*report.Report, error) {
	var all *report.Report
	for _, s := range sections {
		r, err := s.Run(ctx, o)
		all = merge(all, r)
		if err != nil {
			return all, fmt.Errorf("%s: %w", s.Name, err)
		}
	}
	return all, nil
}

// merge adds b's figures to a's: what was measured one after the other in
// one section. Either may be nil.
func merge(a, b *report.Report) *report.Report {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	a.TookNs += b.TookNs
	a.Plan.Variants = append(a.Plan.Variants, b.Plan.Variants...)
	a.Series = append(a.Series, b.Series...)
	a.Warnings = append(a.Warnings, b.Warnings...)
	a.Notes = append(a.Notes, b.Notes...)
	a.Partial = a.Partial || b.Partial
	a.Conditions.StealPercent = max(a.Conditions.StealPercent, b.Conditions.StealPercent)
	a.Conditions.IdlePercent = min(a.Conditions.IdlePercent, b.Conditions.IdlePercent)
	return a
}

// wants reports whether a part of a section is to be measured.
func (o Options) wants(part string) bool {
	if len(o.Only) == 0 {
		return true
	}
	for _, p := range o.Only {
		if p == part {
			return true
		}
	}
	return false
}

// matrix is how rounds are run.
func (o Options) matrix(before matrix.Machine) matrix.Options {
	m := matrix.Options{
		Generator: "slipway", Version: o.Version, Rounds: o.Rounds, MaxRounds: o.MaxRounds,
		Budget: o.Budget, Seed: o.Seed, Before: before,
	}
	if o.Progress != nil {
		m.Progress = o.Progress
	}
	return m
}

func (o Options) phase(format string, args ...any) {
	if o.Progress != nil {
		o.Progress.Phase(fmt.Sprintf(format, args...), 0)
	}
}
