package curve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"slipway/lab"
	"slipway/lab/bench/footprint"
	"slipway/lab/bench/load"
)

// The ways in which speakers are connected.
const (
	fullMesh   = "full-mesh"
	reflectors = "2-route-reflectors"
)

var speakers = &kind{
	name: "bgp", title: "BGP among more and more nodes", unit: "speakers", param: "speakers",
	lines: []string{fullMesh, reflectors}, points: []int{3, 10, 20, 50, 100}, low: 3, high: 250,
	line: func(l string) error {
		if l != fullMesh && l != reflectors {
			return &OptionError{fmt.Sprintf("topology %q is not %s or %s", l, fullMesh, reflectors)}
		}
		return nil
	},
	control: fullMesh, main: []string{converged}, open: openBGP, patience: 3 * time.Minute,
	notes: []string{
		"Each round brings a lab in mode calico-bgp up, a speaker process on each node, and takes it down. converge is from the start of the first speaker until all have every route and have it in their kernels, the phases `daemon` and `converge` of `up`; converge-wait is the second of them alone.",
		"Right after `up` said so, the main routing tables of all nodes were read: kernel-routes are the routes by BGP to other nodes' blocks in them, missing-routes those that should have been there and were not. Sessions are counted when all stand, which may be a moment later than convergence: not every one carries routes that did not come over others.",
		"Memory is the speakers' private memory (RssAnon). Speakers, nodes and the program that looks at them share this machine's CPUs, which real nodes do not.",
	},
}

// mostMesh is the largest full mesh: of n speakers it has n(n−1)/2 sessions.
const mostMesh = 50

// memoryASpeaker is what has to be available for each speaker and its node: 16 MB
// and the kernel's part, half as much again.
const memoryASpeaker = 26 << 20

func openBGP(_ context.Context, o *Options) (*curve, error) {
	c := &curve{close: func(context.Context) error { return nil }}
	for _, n := range o.Points {
		if err := enough(int64(n) * memoryASpeaker); err != nil {
			c.notes = append(c.notes, fmt.Sprintf("%d speakers were left out: %v.", n, err))
			continue
		}
		for _, line := range o.Lines {
			if line == fullMesh && n > mostMesh {
				c.notes = append(c.notes, fmt.Sprintf("A full mesh of %d speakers, %d sessions, was left out.", n, n*(n-1)/2))
				continue
			}
			c.cells = append(c.cells, &cell{line: line, point: n, measure: func(ctx context.Context) ([]reading, error) {
				return c.bgpOnce(ctx, line, n)
			}})
		}
	}
	return c, nonempty(c)
}

// bgpSpec is a cluster of so many nodes on one segment.
func bgpSpec(line string, nodes int) string {
	var b strings.Builder
	b.WriteString("  network:\n    mode: calico-bgp\n")
	if line == reflectors {
		b.WriteString("    bgp: {topology: route-reflectors, routeReflectors: [node001, node002]}\n")
	}
	b.WriteString("  underlay: {segments: [{name: rack1, subnet: 192.168.0.0/16}]}\n  nodes:\n")
	for i := range nodes {
		roles := "[worker]"
		if i == 0 {
			roles = "[control-plane, etcd, worker]"
		}
		fmt.Fprintf(&b, "    - {name: node%03d, roles: %s}\n", i+1, roles)
	}
	return b.String()
}

// onePodEach is a pod on every node, so that every node has a block to announce.
const onePodEach = `apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec: {containers: [{name: c, image: each:1}]}
`

func (c *curve) bgpOnce(ctx context.Context, line string, nodes int) (out []reading, err error) {
	n, err := newNetwork("bgp")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.down(ctx)) }()
	res, err := n.up(ctx, bgpSpec(line, nodes), onePodEach)
	if err != nil {
		return nil, err
	}
	st, err := lab.ReadState(n.name)
	if err != nil {
		return nil, err
	}
	have, lack, err := blockRoutes(ctx, st)
	if err != nil {
		return nil, err
	}
	if lack > 0 {
		c.warnings = append(c.warnings, fmt.Sprintf("%s of %d speakers: %d routes were not in the kernels when `up` said that BGP had converged", line, nodes, lack))
	}
	ends, pids, err := n.standing(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := footprint.Private(pids...)
	if err != nil {
		return nil, err
	}
	wait := phase(res, "converge")
	return []reading{{workload: "bgp", figures: load.Figures{
		converged: (phase(res, "daemon") + wait).Seconds(), waited: wait.Seconds(), sessions: float64(ends) / 2,
		kernelRoutes: float64(have), missing: float64(lack),
		speakerTotal: float64(memory), speakerPage: float64(memory) / float64(len(pids)),
	}}}, nil
}

// sessionPatience bounds the wait for sessions that no route was waiting for.
const sessionPatience = 10 * time.Second

// standing waits until the speakers have all their sessions, some of which carry
// nothing that had not come over others, and returns their ends and the
// speakers' processes.
func (n *network) standing(ctx context.Context) (ends int, pids []int, err error) {
	for end := time.Now().Add(sessionPatience); ; {
		status, err := lab.DaemonStatus(ctx, n.name)
		if err != nil {
			return 0, nil, err
		}
		all := 0
		ends, pids = 0, nil
		for _, s := range status.Speakers {
			all, ends, pids = all+s.Peers, ends+s.Established, append(pids, s.PID)
		}
		if ends == all || time.Now().After(end) {
			return ends, pids, nil
		}
		select {
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// blockRoutes reads all nodes' kernels and counts the routes to blocks of other
// nodes that are there, by way of that node, and those that are not.
func blockRoutes(ctx context.Context, st *lab.State) (have, lack int, err error) {
	routes, err := lab.Routes(ctx, st)
	if err != nil {
		return 0, 0, err
	}
	type hop struct {
		on  string
		to  netip.Prefix
		via netip.Addr
	}
	there := map[hop]bool{}
	for _, r := range routes {
		there[hop{r.Node, r.Route.Dst, r.Route.Via}] = true
	}
	for _, node := range st.Snapshot.Nodes {
		for _, other := range st.Snapshot.Nodes {
			if node.Name == other.Name {
				continue
			}
			for _, block := range other.Blocks {
				if there[hop{node.Name, block, other.Address}] {
					have++
				} else {
					lack++
				}
			}
		}
	}
	return have, lack, nil
}
