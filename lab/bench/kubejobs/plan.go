package kubejobs

import (
	"fmt"
	"slices"
	"time"

	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
)

// The report's variants: the pod network, and the nodes' own as its control.
const (
	Cluster = "cluster"
	Control = matrix.NodeNode
)

// Paths are the ways that a cluster is measured on.
func Paths() []string { return []string{matrix.OtherNode, matrix.SameNode, matrix.NodeNode} }

// Targets are the kinds of destination that the matrix has in any cluster.
func Targets() []string { return []string{matrix.Pod, matrix.ClusterIP} }

// Plan is a bench that is decided.
type Plan struct {
	bench.ModesOptions
	Cases []matrix.Case
	Round time.Duration // that one is expected to take
	Jobs  int           // of a round
}

// What a Job takes beside its measurements, and the servers to come and all to go.
const (
	jobTakes  = 3 * time.Second
	stayTakes = 15 * time.Second
)

// shown are the workloads that are measured by ClusterIP, too, unless targets are
// asked for: what a service adds.
var shown = []string{load.TCPStream, load.TCPRequests, load.TCPConnects}

// Decide lays out what the options ask for.
func Decide(o bench.ModesOptions) Plan {
	o.Workloads = slices.DeleteFunc(slices.Clone(o.Workloads), func(w string) bool { return w == load.Idle })
	p := Plan{ModesOptions: o}
	clients := map[bool]bool{}
	for _, c := range o.Cases() {
		if !slices.Contains(Paths(), c.Path) || c.Target != matrix.Direct && !slices.Contains(Targets(), c.Target) {
			continue
		}
		p.Cases = append(p.Cases, c)
		if len(o.Targets) == 0 && c.Path == matrix.OtherNode && c.Target == matrix.Pod && c.Job.Streams <= 1 && c.Job.Rate == 0 &&
			slices.Contains(shown, c.Job.Workload) && c.Job.Workload != load.TCPConnects { // which all targets have anyway
			c.Target = matrix.ClusterIP
			p.Cases = append(p.Cases, c)
		}
	}
	for _, c := range p.Cases {
		p.Round += c.Takes()
		clients[c.Path == matrix.NodeNode] = true
	}
	p.Jobs = len(clients)
	p.Round += time.Duration(p.Jobs) * jobTakes
	return p
}

// has reports whether a path is measured.
func (p Plan) has(path string) bool {
	return slices.ContainsFunc(p.Cases, func(c matrix.Case) bool { return c.Path == path })
}

// two reports whether anything is measured between two nodes.
func (p Plan) two() bool { return p.has(matrix.OtherNode) || p.has(matrix.NodeNode) }

// Expected is how long all rounds take, the stay included.
func (p Plan) Expected() time.Duration { return stayTakes + time.Duration(p.MaxRounds)*p.Round }

// Least is how long the plan's fewest rounds take.
func (p Plan) Least() time.Duration { return stayTakes + p.Round }

// Fit is how many rounds there is time for.
func (p Plan) Fit() int {
	if p.Budget == 0 {
		return p.MaxRounds
	}
	return min(p.MaxRounds, int((p.Budget-stayTakes)/p.Round))
}

// String is the plan in words.
func (p Plan) String() string {
	rounds := fmt.Sprint(p.Rounds)
	if p.MaxRounds > p.Rounds {
		rounds += fmt.Sprintf(" to %d", p.MaxRounds)
	}
	text := fmt.Sprintf("%d cases of %s, %s rounds of about %s in %d Jobs each: ", len(p.Cases), p.Duration, rounds, p.Round.Round(time.Second), p.Jobs)
	switch expected := p.Expected(); {
	case p.Budget == 0:
		text += fmt.Sprintf("about %s in all", expected.Round(time.Second))
	case expected < p.Budget:
		text += fmt.Sprintf("about %s, at most %s in all", expected.Round(time.Second), p.Budget)
	default:
		text += fmt.Sprintf("at most %s in all", p.Budget)
	}
	if fit := p.Fit(); fit < p.Rounds {
		text += fmt.Sprintf(", enough for about %d rounds", fit)
	}
	return text
}
