package kubejobs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// schedulers may take so long before what they say is final: nodes may be added.
const scheduleWithin = 20 * time.Second

// clientFor is the role of the client of a path.
func clientFor(path string) string {
	if path == matrix.NodeNode {
		return fromNode
	}
	return fromPod
}

// round has one Job for each client measure its part, one Job after the other, and
// in every other round the other way round.
func (r *running) round(ctx context.Context, round int, asked []matrix.Asked, step func()) ([]matrix.Answer, error) {
	answers := make([]matrix.Answer, len(asked))
	roles := []string{fromPod, fromNode}
	if round%2 == 1 {
		roles = []string{fromNode, fromPod}
	}
	for _, role := range roles {
		t := Task{Token: r.token}
		var at []int
		within := readyWithin
		for i, a := range asked {
			if clientFor(a.Path) != role {
				continue
			}
			at = append(at, i)
			t.Asks = append(t.Asks, r.ask(a.Case))
			within += reachWithin/4 + 4*a.Takes()
		}
		if len(at) == 0 {
			continue
		}
		c := &collected{answers: answers, at: at, step: step}
		p := place{name: jobName(role, round), role: role, node: r.client, onNode: role == fromNode}
		if err := r.runJob(ctx, p, t, within, c); err != nil {
			return nil, err
		}
		r.learn(role, c)
	}
	return answers, nil
}

// ask is a case as a client does it.
func (r *running) ask(c matrix.Case) Ask {
	e := r.servers[c.Path]
	control, data := r.ports(e)
	to := e.address
	if c.Target == matrix.ClusterIP {
		to = e.service
	}
	return Ask{Job: jobOf(c.Job), Control: netip.AddrPortFrom(e.address, control), To: netip.AddrPortFrom(to, data)}
}

// runJob runs one Job to its end, and collects what it prints.
func (r *running) runJob(ctx context.Context, p place, t Task, within time.Duration, c *collected) error {
	j, err := r.job(p, t, within)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, within+scheduleWithin, fmt.Errorf("Job %s did not end within %s", p.name, within))
	defer cancel()
	jobs := r.API.BatchV1().Jobs(r.Namespace)
	if _, err := jobs.Create(ctx, j, metav1.CreateOptions{}); err != nil {
		return r.failed("create Job "+p.name, err)
	}
	// The pods' controller labels them so (k8s.io/api/batch/v1, JobNameLabel, and
	// before 1.27 without its prefix).
	of := metav1.ListOptions{LabelSelector: "job-name=" + p.name}
	pod, err := r.until(ctx, of, p, func(p *corev1.Pod) bool { return p.Status.Phase != corev1.PodPending })
	if err != nil {
		return err
	}
	if err := r.read(ctx, pod.Name, true, c); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, err := r.until(ctx, of, p, func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodSucceeded }); err != nil {
		return err
	}
	if !c.done { // what is followed may be cut off
		if err := r.read(ctx, pod.Name, false, c); err != nil {
			return r.failed("read the log of pod "+pod.Name, err)
		}
	}
	if !c.done {
		return &PodError{pod.Name, p.node, strings.TrimSpace(fmt.Sprintf("its log is not that of a client's (is slipway the entry point of the image %s?) %s", r.Image, strings.Join(c.said, " ")))}
	}
	background := metav1.DeletePropagationBackground
	if err := jobs.Delete(ctx, p.name, metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		return r.failed("delete Job "+p.name, err)
	}
	return nil
}

// until waits until a pod is as it should be; one that will not be is an error.
func (r *running) until(ctx context.Context, which metav1.ListOptions, at place, so func(*corev1.Pod) bool) (*corev1.Pod, error) {
	begun := time.Now()
	last := "it is not there"
	for {
		list, err := r.API.CoreV1().Pods(r.Namespace).List(ctx, which)
		if err != nil && ctx.Err() == nil {
			return nil, r.failed("list the pods of "+at.name, err)
		}
		if err == nil && len(list.Items) > 0 {
			p := &list.Items[0]
			if so(p) {
				return p, nil
			}
			if err := troubleOf(p, at.node, time.Since(begun) < scheduleWithin); err != nil {
				return nil, err
			}
			last = "it is " + string(p.Status.Phase)
		}
		if time.Since(begun) > readyWithin && last != "it is "+string(corev1.PodRunning) {
			return nil, &PodError{at.name, at.node, fmt.Sprintf("%s after %s", last, readyWithin)}
		}
		if err := pause(ctx, lookEvery); err != nil {
			return nil, err
		}
	}
}

// read takes in a pod's log.
func (r *running) read(ctx context.Context, pod string, follow bool, c *collected) error {
	text, err := r.Logs.CoreV1().Pods(r.Namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: follow}).Stream(ctx)
	if err != nil {
		return err
	}
	defer text.Close() //nolint:errcheck // only read
	return c.take(text)
}

// collected is what a Job has printed.
type collected struct {
	answers []matrix.Answer
	at      []int // the answers' places, by the Job's numbers
	step    func()

	have     map[int]bool
	machine  *Machine
	machines []Machine
	said     []string // what was no line
	done     bool
}

// maxLine bounds a line.
const maxLine = 1 << 20

// take reads lines, also those that it has read before.
func (c *collected) take(from io.Reader) error {
	if c.have == nil {
		c.have = map[int]bool{}
	}
	s := bufio.NewScanner(from)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		var l Line
		if err := json.Unmarshal(s.Bytes(), &l); err != nil {
			c.said = append(c.said, s.Text())
			continue
		}
		switch {
		case l.Machine != nil:
			c.machine = l.Machine
		case len(l.Machines) > 0:
			c.machines, c.done = l.Machines, len(c.have) == len(c.at)
		case l.N != nil && *l.N >= 0 && *l.N < len(c.at) && !c.have[*l.N]:
			c.have[*l.N] = true
			a := matrix.Answer{Figures: l.Figures}
			if l.Error != "" {
				a = matrix.Answer{Err: errors.New(l.Error)}
			}
			c.answers[c.at[*l.N]] = a
			c.step()
		}
	}
	return s.Err()
}

// learn remembers the machines that took part: what their processors did is the mean
// of the Jobs.
func (r *running) learn(role string, c *collected) {
	if c.machine != nil {
		r.sender[role] = *c.machine
	}
	for _, m := range c.machines {
		n := r.machines[m.Node]
		if n == nil {
			n = &report.Node{
				Name: m.Node, Kernel: m.Kernel + " " + m.Arch, CPU: m.CPU, CPUs: m.CPUs, MemoryByte: m.Memory, LoadBefore: m.Load, Machine: m.ID,
			}
			r.machines[m.Node] = n
		}
		r.looks[m.Node]++
		n.StealPercent += (100*m.Steal - n.StealPercent) / r.looks[m.Node]
		n.IdlePercent += (100*m.Idle - n.IdlePercent) / r.looks[m.Node]
	}
}
