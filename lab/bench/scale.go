package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"slipway/lab"
	"slipway/topology"
)

// Part is one of the things that the scale bench measures.
type Part string

// The parts, in the order in which they run.
const (
	PartLabs     Part = "labs"     // the demo's three nodes in each mode
	PartPods     Part = "pods"     // many pods on many nodes
	PartServices Part = "services" // many services on three nodes
	PartTraces   Part = "traces"   // how long a trace takes, and what a tracer costs
)

// Parts lists all parts.
func Parts() []Part { return []Part{PartLabs, PartPods, PartServices, PartTraces} }

// ScaleOptions say what to measure. No field has a default of its own but
// Progress, which may be nil.
type ScaleOptions struct {
	// Exe is the slipway program, which is run as users run it.
	Exe   string
	Parts []Part
	// Rounds of everything that is cheap enough to be repeated.
	Rounds int
	// LabModes are those of PartLabs, PodModes those of PartPods.
	LabModes, PodModes []topology.ModeName
	Nodes              int   // of PartPods
	Pods               []int // of PartPods, one lab after the other
	Services           []int // of PartServices, likewise
	TraceServices      int   // of PartTraces' lab of Nodes nodes
	// Files are the examples: demo.yaml is PartLabs' cluster.
	Files    map[string][]byte
	Progress lab.Progress
}

// scale is one bench on its way.
type scale struct {
	ScaleOptions
	program program
	dir     string // of the cluster files that are made
	prefix  string // of the labs' names
}

// Scale measures how fast and how big labs are, with the real program. Every
// lab that it makes is taken down again, also when it fails or ctx ends; a
// report comes back as far as it got.
func Scale(ctx context.Context, o ScaleOptions) (r *ScaleReport, err error) {
	r = &ScaleReport{Groups: []Group{}}
	if o.Progress == nil {
		o.Progress = lab.Silent{}
	}
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return r, fmt.Errorf("make a directory for cluster files: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	s := &scale{ScaleOptions: o, program: program{o.Exe}, dir: dir, prefix: fmt.Sprintf("bench-%d", os.Getpid())}
	if r.Conditions, err = ReadConditions(); err != nil {
		return r, err
	}
	runs := map[Part]func(context.Context) (Group, error){PartLabs: s.labs, PartPods: s.pods, PartServices: s.services, PartTraces: s.traces}
	for _, p := range Parts() {
		if !slices.Contains(o.Parts, p) {
			continue
		}
		g, err := group(ctx, runs[p])
		if err == nil || len(g.Cases) > 0 {
			r.Groups = append(r.Groups, g)
		}
		if err != nil {
			return r, fmt.Errorf("bench %s: %w", p, err)
		}
	}
	return r, r.Conditions.Finish()
}

// group runs a part between two looks at what else the machine does.
func group(ctx context.Context, run func(context.Context) (Group, error)) (Group, error) {
	c, err := ReadConditions()
	if err != nil {
		return Group{}, err
	}
	g, err := run(ctx)
	if e := c.Finish(); err == nil {
		err = e
	}
	g.Conditions = c
	return g, err
}

// labName is short, as it is part of every namespace's name.
func (s *scale) labName(what string) string {
	for _, family := range []string{"flannel-", "calico-"} {
		what = strings.TrimPrefix(what, family)
	}
	return s.prefix + "-" + what
}
