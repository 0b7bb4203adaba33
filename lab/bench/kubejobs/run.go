package kubejobs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
)

// Options say in which cluster to measure.
type Options struct {
	Plan
	API kubernetes.Interface
	// Logs is the API without a limit of time, for what is followed.
	Logs  kubernetes.Interface
	Host  string // of the API, for messages
	Name  string // of the cluster, for the report: its context
	Owner string // of this run, for others who find it at work

	Namespace, Image string
	Nodes            []string // the client's and the server's; empty: the first two that are fit
	HostPort         uint16   // of the control's server on its node, and the one after it
	// Import brings the image to nodes, where that can be done; undo takes it away
	// again. It may be nil.
	Import   func(ctx context.Context, nodes []string) (undo func(context.Context) error, err error)
	Progress matrix.Progress
}

// The bounds of a bench's stay.
const (
	readyWithin = 3 * time.Minute // images may have to be pulled
	unlimited   = 2 * time.Hour   // without a budget: servers end by themselves
)

// running is one on its way.
type running struct {
	Options
	pods
	uid       types.UID // of the namespace, once it is made
	token     string
	deadAfter time.Duration

	client, other string // nodes
	servers       map[string]endpoint
	machines      map[string]*report.Node // by name
	looks         map[string]float64      // how many of their Jobs were taken into account
	sender        map[string]Machine      // by role of the client
	version       string                  // of the cluster
}

// endpoint is a server that is there.
type endpoint struct {
	place
	address netip.Addr // its pod's
	service netip.Addr
}

// control and data are its ports.
func (r *running) ports(e endpoint) (control, data uint16) {
	if e.onNode {
		return r.HostPort, r.HostPort + 1
	}
	return podControl, podData
}

// The roles of the bench's pods.
const (
	toSame   = "server-same"
	toOther  = "server-other"
	toNode   = "server-node"
	fromPod  = "client-pod"
	fromNode = "client-node"
)

// serverFor is the server of a path.
func serverFor(path string) string {
	return map[string]string{matrix.SameNode: toSame, matrix.OtherNode: toOther, matrix.NodeNode: toNode}[path]
}

// Run measures. What it made is gone when it returns, also when ctx ended; a report
// comes back as far as it got, in whole rounds.
func Run(ctx context.Context, o Options) (rep *report.Report, err error) {
	started := time.Now()
	r := &running{
		Options: o, token: rand.Text(), deadAfter: deadAfter, servers: map[string]endpoint{}, machines: map[string]*report.Node{}, looks: map[string]float64{}, sender: map[string]Machine{},
		pods: pods{namespace: o.Namespace, image: o.Image, tolerant: len(o.Nodes) > 0},
	}
	nodes, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	if r.Import != nil {
		undo, err := r.Import(ctx, names(nodes))
		if undo != nil {
			defer func() { err = errors.Join(err, undo(context.WithoutCancel(ctx))) }()
		}
		if err != nil {
			return nil, err
		}
	}
	defer func() { err = errors.Join(err, r.leave(ctx)) }()
	if err := r.claim(ctx, r.has(matrix.NodeNode)); err != nil {
		return nil, err
	}
	alive, end := context.WithCancel(ctx)
	defer end()
	go r.beat(alive)
	if err := r.arrive(ctx); err != nil {
		return nil, err
	}
	m := matrix.Options{
		Generator: r.Generator, Version: r.Version, Rounds: r.Rounds, MaxRounds: r.MaxRounds, Seed: r.Seed, Progress: r.Progress,
		Round: r.round, Describe: r.describe, CPUTimes: func() (matrix.CPUTimes, error) { return matrix.CPUTimes{}, nil },
	}
	if r.Budget > 0 {
		m.Budget = max(r.Budget-time.Since(started)-stayTakes/2, time.Nanosecond)
	}
	rep, err = matrix.Run(ctx, m, r.beds(), r.Cases)
	if rep != nil {
		rep.Notes = append(rep.Notes, bench.Beside(rep, Cluster)...)
	}
	r.Progress.Phase("removing what was made", 0)
	return rep, err
}

// look finds out whether all can be done, before anything is.
func (r *running) look(ctx context.Context) ([]corev1.Node, error) {
	r.Progress.Phase("asking the API", 0)
	v, err := r.API.Discovery().ServerVersion()
	if err != nil {
		return nil, r.failed("ask for the API's version", err)
	}
	r.version = v.GitVersion
	if err := r.permitted(ctx); err != nil {
		return nil, err
	}
	nodes, err := r.choose(ctx, r.two())
	if err != nil {
		return nil, err
	}
	r.client = nodes[0].Name
	r.other = nodes[len(nodes)-1].Name
	if r.has(matrix.NodeNode) {
		for _, n := range nodes {
			if _, err := addressOf(n); err != nil {
				return nil, err
			}
		}
	}
	return nodes, nil
}

func names(nodes []corev1.Node) (out []string) {
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

// arrive makes the servers, and waits until they run.
func (r *running) arrive(ctx context.Context) error {
	if _, err := r.API.CoreV1().ServiceAccounts(r.Namespace).Create(ctx, r.accountFor(), metav1.CreateOptions{}); err != nil {
		return r.failed("create service account "+account, err)
	}
	life := unlimited
	if r.Budget > 0 {
		life = r.Budget + readyWithin
	}
	for _, path := range Paths() {
		if !r.has(path) {
			continue
		}
		e := endpoint{place: place{name: serverFor(path), role: serverFor(path), node: r.other, onNode: path == matrix.NodeNode}}
		if path == matrix.SameNode {
			e.node = r.client
		}
		control, data := r.ports(e)
		p, err := r.server(e.place, ServerConfig{Token: r.token, Control: control, Data: data, LifeNs: life.Nanoseconds()})
		if err != nil {
			return err
		}
		if _, err := r.API.CoreV1().Pods(r.Namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return r.failed("create pod "+p.Name, err)
		}
		if !e.onNode {
			s, err := r.API.CoreV1().Services(r.Namespace).Create(ctx, r.service(e.place), metav1.CreateOptions{})
			if err != nil {
				return r.failed("create service "+e.name, err)
			}
			if e.service, err = netip.ParseAddr(s.Spec.ClusterIP); err != nil {
				return fmt.Errorf("service %s has the address %q: %w", e.name, s.Spec.ClusterIP, err)
			}
		}
		r.servers[path] = e
	}
	return r.ready(ctx)
}

// ready waits until the servers run.
func (r *running) ready(ctx context.Context) error {
	r.Progress.Phase("servers", len(r.servers))
	for path, e := range r.servers {
		p, err := r.until(ctx, metav1.ListOptions{LabelSelector: roleLabel + "=" + e.role}, e.place, func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodRunning && p.Status.PodIP != ""
		})
		if err != nil {
			return err
		}
		if e.address, err = netip.ParseAddr(p.Status.PodIP); err != nil || !e.address.Is4() {
			return fmt.Errorf("pod %s has the address %q: only IPv4 can be measured", p.Name, p.Status.PodIP)
		}
		r.servers[path] = e
		r.Progress.Step()
	}
	return nil
}

// beds are the pod network's and the nodes'. What lies where is the Jobs' to know.
func (r *running) beds() []matrix.Bed {
	out := []matrix.Bed{bed{Cluster, []string{matrix.OtherNode, matrix.SameNode}}}
	if r.has(matrix.NodeNode) {
		out = append(out, bed{Control, []string{matrix.NodeNode}})
	}
	return out
}

// bed is a name for paths that are measured elsewhere.
type bed struct {
	name  string
	paths []string
}

// Name is the variant's.
func (b bed) Name() string { return b.name }

// Ends are known by their labels alone.
func (b bed) Ends(path, _ string) (matrix.Ends, bool) {
	for _, p := range b.paths {
		if p == path {
			return matrix.Ends{Client: load.Place{Label: clientLabel}, Server: load.Place{Label: serverLabel}}, true
		}
	}
	return matrix.Ends{}, false
}

// Watch is the pods' own.
func (b bed) Watch() load.Watch { return load.Watch{} }

// Close leaves all to [Run].
func (b bed) Close(context.Context) error { return nil }

// describe writes down where the figures are from.
func (r *running) describe(rep *report.Report) {
	c := &rep.Conditions
	c.Host, c.Cluster = "", fmt.Sprintf("%s, Kubernetes %s: client on %s, server on %s", r.Name, r.version, r.client, r.other)
	oneMachine := true
	for _, name := range []string{r.client, r.other} {
		n := r.machines[name]
		if n == nil || len(c.Nodes) > 0 && c.Nodes[0].Name == name {
			continue
		}
		c.Nodes = append(c.Nodes, *n)
		oneMachine = oneMachine && n.Machine == c.Nodes[0].Machine
	}
	if len(c.Nodes) > 0 {
		n := c.Nodes[0]
		c.Kernel, c.CPU, c.CPUs, c.MemoryByte, c.LoadBefore = n.Kernel, n.CPU, n.CPUs, n.MemoryByte, n.LoadBefore
		c.StealPercent, c.IdlePercent = n.StealPercent, n.IdlePercent
	}
	for i := range rep.Series {
		s := &rep.Series[i]
		m := r.sender[clientFor(s.Path)]
		s.MTU, s.Offloads = m.MTU, m.Offload
	}
	text := "CPU time is that of both nodes as a whole: generator, both ends, datapath, and what else they did."
	if oneMachine {
		text = "Both nodes are on one machine: no wire limits, and CPU time is the whole machine's: generator, both ends, datapath, and what else it did."
	}
	rep.Notes = append(rep.Notes,
		"Measured in a running cluster, by Jobs: one for the pods and one for the nodes' network each round. Other pods went on meanwhile; ratios to another cluster are `slipway bench compare`'s.", text,
		"The pods have no privileges: socket buffers of datagrams are as large as the nodes' net.core.rmem_max and wmem_max let them be; receiver-drops is what they did not hold.")
}
