package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slipway/lab"
	"slipway/topology"
)

// The targets of the project for a small lab.
const (
	readySeconds = 1.0 // apart from BGP's convergence
	againRatio   = 0.1 // of the first up
)

// commandPatience bounds each command on a small lab, on a busy machine too.
const commandPatience = 2 * time.Minute

// labRounds are what the rounds of one mode gave, in milliseconds.
type labRounds struct {
	mode                              topology.ModeName
	name                              string
	first, ready, again, ratio, downs []float64
	starts                            []float64 // of the program alone
	againNodes                        []float64 // the phase that reads and compares the nodes
	phases                            map[string][]float64
	order                             []string
	size                              lab.Result
}

// labs brings the demo's cluster up, up again and down in each mode, the rounds
// interleaved over the modes so that a disturbance meets all alike.
func (s *scale) labs(ctx context.Context) (Group, error) {
	for name, data := range s.Files {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return Group{}, fmt.Errorf("write example: %w", err)
		}
	}
	var modes []*labRounds
	for _, m := range s.LabModes {
		modes = append(modes, &labRounds{mode: m, name: s.labName(string(m)), phases: map[string][]float64{}})
	}
	for round := range s.Rounds {
		for _, m := range modes {
			s.Progress.Phase(fmt.Sprintf("small labs, round %d of %d: %s", round+1, s.Rounds, m.mode), 0)
			if err := m.round(ctx, s.program, filepath.Join(s.dir, "demo.yaml")); err != nil {
				return Group{}, fmt.Errorf("%s: %w", m.mode, err)
			}
		}
	}
	g := Group{Part: PartLabs, Notes: []string{
		"Whole commands, the start of their process included, which `slipway version` shows alone; the phases are the program's own clock and a part of `up`; those under 1 ms are left out.",
		"\"ready\" is `up` without the phase converge, which is the wait for BGP's sessions and routes.",
	}}
	for _, m := range modes {
		g.Title = fmt.Sprintf("%d nodes, %d pods, %d services", m.size.Nodes, m.size.Pods, m.size.Services)
		g.Cases = append(g.Cases, m.summary())
	}
	return g, nil
}

// round measures one lab from nothing to nothing.
func (m *labRounds) round(ctx context.Context, p program, file string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	if err := refuseTaken(m.name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, takeDown(ctx, m.name)) }()
	var version any
	start, err := p.run(ctx, &version, "version", "-o", "json")
	if err != nil {
		return err
	}
	first, err := p.up(ctx, file, m.name, m.mode)
	if err != nil {
		return err
	}
	again, err := p.up(ctx, file, m.name, m.mode)
	if err != nil {
		return err
	}
	if err := unchanged(again); err != nil {
		return err
	}
	down, err := p.down(ctx, m.name)
	if err != nil {
		return err
	}
	m.starts = append(m.starts, millis(start.wall))
	m.first = append(m.first, millis(first.wall))
	m.ready = append(m.ready, millis(first.wall-first.phase("converge")))
	m.again = append(m.again, millis(again.wall))
	m.againNodes = append(m.againNodes, millis(again.phase("nodes")))
	m.ratio = append(m.ratio, again.wall.Seconds()/first.wall.Seconds())
	m.downs = append(m.downs, millis(down.wall))
	m.size = first.result
	for _, t := range first.result.Timings {
		if !slices.Contains(m.order, t.Phase) {
			m.order = append(m.order, t.Phase)
		}
		m.phases[t.Phase] = append(m.phases[t.Phase], millis(t.Took))
	}
	return nil
}

func (m *labRounds) summary() Case {
	c := Case{Name: string(m.mode), Figures: []Figure{
		figure("program start alone", "ms", m.starts...),
		figure("first up", "ms", m.first...),
		figure("ready", "ms", m.ready...).atMost(readySeconds * 1000),
	}}
	for _, p := range m.order {
		if slices.Max(m.phases[p]) < 1 { // nothing to do in this mode
			continue
		}
		c.Figures = append(c.Figures, figure("· "+p, "ms", m.phases[p]...))
	}
	c.Figures = append(c.Figures,
		figure("second up", "ms", m.again...),
		figure("· its nodes", "ms", m.againNodes...),
		figure("second ÷ first", "", m.ratio...).atMost(againRatio),
		figure("down", "ms", m.downs...))
	return c
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
