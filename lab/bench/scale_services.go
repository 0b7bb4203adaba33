package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

const (
	endpoints = 3 // of each service
	// serviceNodeCPU is the target in CPU seconds a node for a thousand services
	// of three endpoints.
	serviceNodeCPU      = 1.0
	serviceNodeCPUCount = 1_000
	// servicesAsked bounds how many services are asked, spread over all.
	servicesAsked    = 1_000
	serviceLabNodes  = 3
	servicesPatience = 10 * time.Minute
)

// services loads many services' rules, once on one node alone and once in a
// running lab of three.
func (s *scale) services(ctx context.Context) (Group, error) {
	g := Group{Part: PartServices, Title: fmt.Sprintf("Many services of %d endpoints each", endpoints), Notes: []string{
		"One node: the rules are planned and loaded into an empty namespace by the code that `up` runs; CPU time is of this process and the iptables programs that it starts. Again: the same over rules that are there, which are read and compared.",
		fmt.Sprintf("Lab: an `up` that adds all services to a running lab of %d nodes, the whole command, its CPU time divided by the nodes.", serviceLabNodes),
		"All services have the same three pods behind them: the rules are as many as with pods of their own.",
		fmt.Sprintf("The target is for %d services.", serviceNodeCPUCount),
	}}
	for _, n := range s.Services {
		c, wrong, err := s.serviceCase(ctx, n)
		if err != nil {
			return g, fmt.Errorf("%d services: %w", n, err)
		}
		g.Cases = append(g.Cases, c)
		if wrong != "" {
			g.Notes = append(g.Notes, c.Name+": "+wrong)
		}
	}
	return g, nil
}

func (s *scale) serviceCase(ctx context.Context, n int) (Case, string, error) {
	ctx, cancel := context.WithTimeout(ctx, servicesPatience)
	defer cancel()
	c := Case{Name: fmt.Sprintf("%d services × %d", n, endpoints)}
	snap, err := serviceSnapshot(n)
	if err != nil {
		return c, "", err
	}
	one, err := s.oneNode(ctx, snap, n)
	if err != nil {
		return c, "", err
	}
	l, err := s.serviceLab(ctx, n)
	if err != nil {
		return c, "", err
	}
	cpu := figure("one node: CPU", "s", one.cpu...)
	labCPU := figure("lab: CPU a node", "s", l.added.cpu.Seconds()/serviceLabNodes)
	if n == serviceNodeCPUCount {
		cpu, labCPU = cpu.atMost(serviceNodeCPU), labCPU.atMost(serviceNodeCPU)
	}
	c.Figures = []Figure{
		figure("rules on a node", "", float64(one.rules)),
		cpu,
		figure("one node: wall", "s", one.wall...),
		figure("one node, again: wall", "s", one.again...),
		labCPU,
		figure("lab: wall", "s", l.added.wall.Seconds()),
		figure("· nodes", "s", l.added.phase("nodes").Seconds()),
		figure("lab, again: wall", "s", l.again.wall.Seconds()),
		figure("services asked", "", float64(l.answers.asked)),
		figure("services that answered", "", float64(l.answers.right)).atLeast(float64(l.answers.asked)),
		figure("· slowest answer", "ms", millis(l.answers.slowest)),
	}
	return c, l.answers.wrong, nil
}

// serviceSnapshot decides everything about a cluster with the services.
func serviceSnapshot(n int) (*topology.Snapshot, error) {
	c, diags := topology.Parse("services", []byte(clusterText("bench", serviceLabNodes, "objects.yaml")))
	if err := diags.Err(); err != nil {
		return nil, err
	}
	objects, _, err := topology.LoadManifests("objects.yaml", []byte(workloadText(endpoints)+servicesText(n)))
	if err != nil {
		return nil, err
	}
	return lab.Preview(c, objects)
}

// nodeLoad are the rounds of one node, in seconds.
type nodeLoad struct {
	cpu, wall, again []float64
	rules            int
}

// oneNode plans and loads the rules in a new namespace, round by round.
func (s *scale) oneNode(ctx context.Context, snap *topology.Snapshot, n int) (nodeLoad, error) {
	var l nodeLoad
	for round := range s.Rounds {
		s.Progress.Phase(fmt.Sprintf("%d services on one node, round %d of %d", n, round+1, s.Rounds), 0)
		if err := l.round(ctx, snap, filepath.Join(s.dir, "xtables")); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *nodeLoad) round(ctx context.Context, snap *topology.Snapshot, lock string) error {
	ns, err := netns.Anonymous()
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // the namespace ends with it
	host, err := linux.Open(ns, linux.Options{LockFile: lock})
	if err != nil {
		return err
	}
	defer host.Close()
	node := snap.Nodes[0].Name
	apply := func() (datapath.Diff, time.Duration, error) {
		start := time.Now()
		rules, err := kubeproxy.Plan(*snap, node, kubeproxy.DefaultOptions(*snap))
		if err != nil {
			return nil, 0, err
		}
		l.rules = countRules(rules)
		diff, err := host.Apply(ctx, datapath.NodeConfig{Node: node, PodRange: snap.Network.PodCIDR, RuleSets: []datapath.RuleSet{rules}})
		return diff, time.Since(start), err
	}
	before, err := cpuTime()
	if err != nil {
		return err
	}
	_, wall, err := apply()
	if err != nil {
		return err
	}
	after, err := cpuTime()
	if err != nil {
		return err
	}
	left, again, err := apply()
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("the rules were loaded again although they were there: %s", left[0].Command)
	}
	l.cpu, l.wall, l.again = append(l.cpu, (after-before).Seconds()), append(l.wall, wall.Seconds()), append(l.again, again.Seconds())
	return nil
}

// cpuTime is what this process and the ones it has waited for have used.
func cpuTime() (time.Duration, error) {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum, nil
}

// serviceLabRun is what adding services to a running lab showed.
type serviceLabRun struct {
	added, again upRun
	answers      answers
}

func (s *scale) serviceLab(ctx context.Context, n int) (l serviceLabRun, err error) {
	name := s.labName("services")
	if err := refuseTaken(name); err != nil {
		return l, err
	}
	mode := topology.FlannelVXLAN
	file, err := s.writeCluster(name, serviceLabNodes, workloadText(endpoints))
	if err != nil {
		return l, err
	}
	s.Progress.Phase(fmt.Sprintf("%d services in a lab", n), 0)
	defer func() { err = errors.Join(err, takeDown(ctx, name)) }()
	if _, err := s.program.up(ctx, file, name, mode); err != nil {
		return l, err
	}
	if _, err := s.writeCluster(name, serviceLabNodes, workloadText(endpoints)+servicesText(n)); err != nil {
		return l, err
	}
	if l.added, err = s.program.up(ctx, file, name, mode); err != nil {
		return l, err
	}
	if l.again, err = s.program.up(ctx, file, name, mode); err != nil {
		return l, err
	}
	if err := unchanged(l.again); err != nil {
		return l, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return l, err
	}
	questions := ofServices(st.Snapshot)
	s.Progress.Phase(fmt.Sprintf("ask %d services", len(questions)), len(questions))
	l.answers, err = ask(ctx, name, questions, s.Progress.Step)
	return l, err
}

// ofServices asks the made services, at most [servicesAsked] of them, from
// every pod in turn.
func ofServices(s *topology.Snapshot) []question {
	var made []netip.AddrPort
	for _, svc := range s.Services {
		if svc.Namespace == "default" {
			made = append(made, netip.AddrPortFrom(svc.ClusterIP, servicePort))
		}
	}
	every := max(1, (len(made)+servicesAsked-1)/servicesAsked)
	var out []question
	for i := 0; i < len(made); i += every {
		out = append(out, question{from: s.Pods[len(out)%len(s.Pods)], to: made[i]})
	}
	return out
}

func countRules(s datapath.RuleSet) int {
	n := 0
	for _, t := range s.Tables {
		n += len(t.Rules) + len(t.Jumps)
	}
	return n
}
