package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab/bench/report"
)

var birdSection = Section{
	Name:    "bird2",
	About:   "the real bird beside our BGP speakers, until every kernel has every route",
	Missing: birdMissing,
	Run:     runBird,
}

const (
	bird        = "bird2"
	ourSpeaker  = "slipway"
	converge    = "converge"
	memory      = "memory"
	speakerASN  = 64512 // calico's
	convergeMax = 3 * time.Minute
)

// speakerSizes are the topologies: a full mesh, or two nodes that reflect.
var speakerSizes = []struct {
	speakers   int
	reflectors int
}{{3, 0}, {10, 0}, {20, 0}, {50, 2}, {100, 2}}

func birdMissing() []Missing {
	if _, err := exec.LookPath("bird"); err != nil {
		return []Missing{{"bird", "install the package bird2"}}
	}
	return nil
}

func runBird(ctx context.Context, o Options) (_ *report.Report, err error) {
	var races []*race
	var grounds []*ground
	defer func() {
		for _, g := range grounds {
			err = errors.Join(err, g.close(ctx))
		}
	}()
	for _, s := range speakerSizes {
		path := fmt.Sprintf("mesh-%d", s.speakers)
		sessions := s.speakers * (s.speakers - 1) / 2
		if s.reflectors > 0 {
			path = fmt.Sprintf("reflectors-%d", s.speakers)
			sessions = (s.speakers-s.reflectors)*s.reflectors + s.reflectors*(s.reflectors-1)/2
		}
		if !o.wants(path) {
			continue
		}
		o.phase("nodes for %s", path)
		g, err := newGround(ctx, o, path, s.speakers, s.reflectors)
		if err != nil {
			return nil, err
		}
		grounds = append(grounds, g)
		races = append(races, &race{
			part: path, workload: "bgp", path: path, main: converge, control: bird, patience: convergeMax,
			params: map[string]string{"speakers": strconv.Itoa(s.speakers), "sessions": strconv.Itoa(sessions)},
			runners: []runner{
				{bird, func(ctx context.Context) ([]reading, error) { return g.once(ctx, g.birds) }},
				{ourSpeaker, func(ctx context.Context) ([]reading, error) {
					return g.once(ctx, func(ctx context.Context) (speakers, error) { return g.ours(ctx, o.Exe) })
				}},
			},
		})
	}
	return runRaces(ctx, o, races, "bird and slipway's speakers themselves",
		"converge is the time from the start of the first speaker until every node's kernel has a route to every other node's block; memory is a speaker's share (PSS) then, on average.",
		"bird has the configuration of calico/node (one side of each pair connects, graceful restart, a kernel protocol) but for its timers: connect delay and retry are 1 s, the least that it takes, where calico has 2 and 5 s.",
		"Both run in the nodes of one lab, over the same underlay, and take turns. Whoever dials is started last.")
}

// ground is a lab of nodes without a datapath between them, for speakers to run in.
type ground struct {
	*Lab
	nodes      []groundNode
	reflectors int
}

type groundNode struct {
	name  string
	addr  netip.Addr
	block netip.Prefix
	ns    *netns.NS
	h     *nl.Handle
}

// speakers are running speakers, of whatever make.
type speakers interface {
	pids() []int
	stop(context.Context) error
}

func newGround(ctx context.Context, o Options, path string, n, reflectors int) (_ *ground, err error) {
	spec := "  network: {mode: flannel-host-gw, podCIDR: 10.128.0.0/16}\n  underlay: {segments: [{name: rack1, subnet: 192.168.0.0/22}]}\n  nodes:\n"
	for i := range n {
		roles := "worker"
		if i == 0 {
			roles = "control-plane, worker"
		}
		spec += fmt.Sprintf("    - {name: node%03d, roles: [%s]}\n", i+1, roles)
	}
	l, err := Up(ctx, o.Exe, path, spec, "")
	if err != nil {
		return nil, err
	}
	g := &ground{Lab: l, reflectors: reflectors}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close(ctx))
		}
	}()
	for _, node := range l.State.Snapshot.Nodes {
		if !node.InDatapath() {
			continue
		}
		if err := Strip(l, node.Name); err != nil {
			return nil, err
		}
		ns, t, err := l.At(node.Name)
		if err != nil {
			return nil, err
		}
		h, err := nl.At(ns)
		if err != nil {
			return nil, err
		}
		g.nodes = append(g.nodes, groundNode{name: node.Name, addr: t.Address, block: node.PodCIDR, ns: ns, h: h})
	}
	return g, nil
}

func (g *ground) close(ctx context.Context) error {
	for _, n := range g.nodes {
		n.h.Close()
	}
	return g.Close(ctx)
}

// peers of node i: everybody in a full mesh, else one of both reflects.
func (g *ground) peers(i int) []int {
	var out []int
	for j := range g.nodes {
		if j != i && (g.reflectors == 0 || i < g.reflectors || j < g.reflectors) {
			out = append(out, j)
		}
	}
	return out
}

// client reports whether i reflects to j.
func (g *ground) client(i, j int) bool { return i < g.reflectors && j >= g.reflectors }

// once starts speakers, waits for all routes, and ends them.
func (g *ground) once(ctx context.Context, start func(context.Context) (speakers, error)) (_ []reading, err error) {
	if err := g.await(ctx, 0); err != nil {
		return nil, fmt.Errorf("routes of the last round: %w", err)
	}
	begin := time.Now()
	s, err := start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop(ctx)) }()
	if err := g.await(ctx, len(g.nodes)-1); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	bytes, err := shares(s.pids())
	if err != nil {
		return nil, err
	}
	return []reading{{converge, "s", took.Seconds()}, {memory, "B", bytes / float64(len(g.nodes))}}, nil
}

// await polls until each kernel has that many learnt routes.
func (g *ground) await(ctx context.Context, routes int) error {
	for _, n := range g.nodes {
		for {
			have, err := learnt(n.h)
			if err != nil {
				return fmt.Errorf("%s: %w", n.name, err)
			}
			if have == routes {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s has %d of %d routes: %w", n.name, have, routes, ctx.Err())
			case <-time.After(lookEvery):
			}
		}
	}
	return nil
}

// lookEvery is how often a kernel is asked for its routes.
const lookEvery = 5 * time.Millisecond

// shares adds up what processes have of the memory, in bytes, pages that they
// share divided among them (proc(5), smaps_rollup, Pss).
func shares(pids []int) (float64, error) {
	sum := 0.0
	for _, pid := range pids {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps_rollup"))
		if err != nil {
			return 0, fmt.Errorf("read a speaker's memory: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
				kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
				if err != nil {
					return 0, fmt.Errorf("read a speaker's memory: %w", err)
				}
				sum += kb * 1024
			}
		}
	}
	return sum, nil
}
