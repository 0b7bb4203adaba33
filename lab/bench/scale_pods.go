package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/lab"
	"slipway/lab/bench/footprint"
	"slipway/topology"
)

// The targets of the project for each pod of a big lab.
const (
	podMillis   = 2.0   // of wall time, plugging it in
	podKernelKB = 400.0 // of kernel memory
	podDaemonKB = 30.0  // of the daemon's
)

const (
	podsPatienceBase = 2 * time.Minute
	// patienceAPod lets a lab take many times what it should, on a machine that
	// others use: a bench that is slow is to say so, and one that hangs to end.
	patienceAPod = 60 * time.Millisecond
)

// pods brings up one lab after the other of each size in each mode.
func (s *scale) pods(ctx context.Context) (Group, error) {
	g := Group{Part: PartPods, Title: fmt.Sprintf("Many pods on %d nodes", s.Nodes), Notes: []string{
		"CPU time is of `up`, the programs that it starts and the lab's daemon; what the kernel does later on its own threads is not in it.",
		"Kernel memory is by how much grew what is neither free, nor page cache, nor a process's own; slab and per-CPU memory are most of it. It is divided by the pods, the nodes' part included. What became unavailable counts the lab's processes and its state files, too.",
		"Daemon memory is the process's private memory (RssAnon) divided by the pods, its fixed part included; beneath it stand what is more than in a lab of the same nodes and one pod, and the whole resident set, with the pages of the program.",
		"Every pod is asked over HTTP from a pod of another node, over a connection of its own, and has to say that it is itself.",
		"The kernel tears namespaces down on its own threads after `down` has ended; the next lab waits until it is done, as counted by its slab allocator.",
	}}
	for _, n := range s.Pods {
		for _, m := range s.PodModes {
			c, notes, err := s.podCase(ctx, n, m)
			if err != nil {
				return g, fmt.Errorf("%d pods, %s: %w", n, m, err)
			}
			if g.Notes = append(g.Notes, notes...); len(c.Figures) > 0 {
				g.Cases = append(g.Cases, c)
			}
		}
	}
	return g, nil
}

// podLab is what one big lab showed.
type podLab struct {
	empty            footprint.Daemon // of a lab of the same nodes and one pod
	pods, nodes      int
	first, again     upRun
	before, after    footprint.Memory
	daemon           footprint.Daemon
	answers          answers
	down             ran
	tornDown         time.Duration
	tornDownToTheEnd bool
}

func (s *scale) podCase(ctx context.Context, n int, mode topology.ModeName) (Case, []string, error) {
	name := fmt.Sprintf("%d pods, %s", n, mode)
	if err := enoughMemory(n); err != nil {
		return Case{}, []string{name + " was not run: " + err.Error()}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, podsPatienceBase+time.Duration(n)*patienceAPod)
	defer cancel()
	file, err := s.writeCluster(s.labName(string(mode)), s.Nodes, workloadText(n))
	if err != nil {
		return Case{}, nil, err
	}
	empty, err := s.emptyLab(ctx, mode)
	if err != nil {
		return Case{}, nil, err
	}
	l, err := s.podLab(ctx, file, s.labName(string(mode)), mode, n)
	if err != nil {
		return Case{}, nil, err
	}
	l.empty = empty
	var notes []string
	if l.answers.wrong != "" {
		notes = append(notes, name+": "+l.answers.wrong)
	}
	if !l.tornDownToTheEnd {
		notes = append(notes, fmt.Sprintf("%s: the kernel was still tearing namespaces down when %s were over; what came after was disturbed by it.", name, footprint.TearDownPatience))
	}
	return Case{Name: name, Figures: l.figures()}, notes, nil
}

// memoryAPod is what has to be available for each pod: half as much again as
// the target, so that a lab that misses it does not take the machine with it.
const memoryAPod = int64((podKernelKB + podDaemonKB) * 1.5 * 1024)

// enoughMemory fails if the machine cannot hold a lab of so many pods.
func enoughMemory(pods int) error {
	m, err := footprint.ReadMemory()
	if err != nil {
		return err
	}
	if need := int64(pods) * memoryAPod; m.Available < need {
		return fmt.Errorf("it could need %.1f GB of memory, and %.1f GB are available", float64(need)/1e9, float64(m.Available)/1e9)
	}
	return nil
}

// emptyLab reads the daemon's cost in a lab of all nodes and one pod.
func (s *scale) emptyLab(ctx context.Context, mode topology.ModeName) (c footprint.Daemon, err error) {
	name := s.labName(string(mode)) + "-0"
	if err := refuseTaken(name); err != nil {
		return c, err
	}
	s.Progress.Phase(fmt.Sprintf("%d nodes, %s, one pod", s.Nodes, mode), 0)
	file, err := s.writeCluster(name, s.Nodes, workloadText(1))
	if err != nil {
		return c, err
	}
	alive, _, err := footprint.NamespacesAlive()
	if err != nil {
		return c, err
	}
	defer func() {
		err = errors.Join(err, takeDown(ctx, name))
		if err == nil {
			_, _, err = footprint.AwaitTearDown(ctx, alive)
		}
	}()
	if _, err := s.program.up(ctx, file, name, mode); err != nil {
		return c, err
	}
	return footprint.ReadDaemon(ctx, name)
}

// podLab measures one lab from nothing to nothing.
func (s *scale) podLab(ctx context.Context, file, name string, mode topology.ModeName, pods int) (l podLab, err error) {
	if err := refuseTaken(name); err != nil {
		return l, err
	}
	s.Progress.Phase(fmt.Sprintf("%d pods, %s: up", pods, mode), 0)
	alive, _, err := footprint.NamespacesAlive()
	if err != nil {
		return l, err
	}
	if l.before, err = footprint.SettledMemory(ctx); err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, takeDown(ctx, name)) }()
	if l.first, err = s.program.up(ctx, file, name, mode); err != nil {
		return l, err
	}
	l.pods, l.nodes = l.first.result.Pods, l.first.result.Nodes
	if l.after, err = footprint.SettledMemory(ctx); err != nil {
		return l, err
	}
	if l.daemon, err = footprint.ReadDaemon(ctx, name); err != nil {
		return l, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return l, err
	}
	questions := neighbourly(st.Snapshot)
	s.Progress.Phase(fmt.Sprintf("%d pods, %s: ask each", pods, mode), len(questions))
	if l.answers, err = ask(ctx, name, questions, s.Progress.Step); err != nil {
		return l, err
	}
	s.Progress.Phase(fmt.Sprintf("%d pods, %s: up again", pods, mode), 0)
	if l.again, err = s.program.up(ctx, file, name, mode); err != nil {
		return l, err
	}
	if err := unchanged(l.again); err != nil {
		return l, err
	}
	s.Progress.Phase(fmt.Sprintf("%d pods, %s: down", pods, mode), 0)
	if l.down, err = s.program.down(ctx, name); err != nil {
		return l, err
	}
	s.Progress.Phase(fmt.Sprintf("%d pods, %s: the kernel tears down", pods, mode), 0)
	l.tornDown, l.tornDownToTheEnd, err = footprint.AwaitTearDown(ctx, alive)
	return l, err
}

// unchanged fails unless an up found everything as it had left it.
func unchanged(u upRun) error {
	if n := len(u.result.Changes); n > 0 {
		return fmt.Errorf("the second up made %d changes, the first of them %s", n, u.result.Changes[0].Command)
	}
	return nil
}

func (l podLab) figures() []Figure {
	pods := float64(l.pods)
	cpu := l.first.cpu + l.daemon.CPU
	kb := func(bytes int64) float64 { return float64(bytes) / 1024 / pods }
	out := []Figure{
		figure("first up", "s", l.first.wall.Seconds()),
		figure("· nodes", "s", (l.first.phase("underlay") + l.first.phase("nodes")).Seconds()),
		figure("· pods", "s", l.first.phase("pods").Seconds()),
		figure("· daemon", "s", l.first.phase("daemon").Seconds()),
	}
	if d := l.first.phase("converge"); d > time.Millisecond {
		out = append(out, figure("· converge", "s", d.Seconds()))
	}
	out = append(out,
		figure("wall a pod, in the phase pods", "ms", millis(l.first.phase("pods"))/pods).atMost(podMillis),
		figure("wall a pod, whole up", "ms", millis(l.first.wall)/pods),
		figure("CPU a pod, whole up", "ms", millis(cpu)/pods),
		figure("kernel memory a pod", "KB", kb(l.after.Kernel-l.before.Kernel)).atMost(podKernelKB),
		figure("· slab and per-CPU", "KB", kb(l.after.Slab-l.before.Slab+l.after.PerCPU-l.before.PerCPU)),
		figure("· unavailable, all in all", "KB", kb(l.before.Available-l.after.Available)),
		figure("daemon memory a pod", "KB", kb(l.daemon.Private)).atMost(podDaemonKB),
		figure("· more than with one pod", "KB", kb(l.daemon.Private-l.empty.Private)),
		figure("· resident set", "KB", kb(l.daemon.Resident)),
		figure("pods asked", "", float64(l.answers.asked)),
		figure("pods that answered", "", float64(l.answers.right)).atLeast(float64(l.answers.asked)),
		figure("asking all", "s", l.answers.took.Seconds()),
		figure("· slowest answer", "ms", millis(l.answers.slowest)),
		figure("second up", "s", l.again.wall.Seconds()),
		figure("second ÷ first", "", l.again.wall.Seconds()/l.first.wall.Seconds()).atMost(againRatio),
		figure("down", "s", l.down.wall.Seconds()))
	if l.pods+l.nodes > footprint.UncountedFree {
		out = append(out, figure("· the kernel after that", "s", l.tornDown.Seconds()))
	}
	return out
}
