package curve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/lab"
	"slipway/lab/bench/footprint"
	"slipway/lab/bench/load"
	"slipway/topology"
)

var pods = &kind{
	name: "pods", title: "A node of more and more pods", unit: "pods on a node", param: "pods",
	lines: []string{string(topology.FlannelHostGW), string(topology.CalicoBGP)}, points: []int{1, 10, 50, 110, 250, 500}, low: 1, high: 1000,
	line: isVariant, control: string(topology.FlannelHostGW), main: []string{plugged, load.P50}, open: openPods, patience: 2 * time.Minute,
	notes: []string{
		"Each round brings a lab of two nodes up, adds the pods to one of them, and takes it down. The time of a pod is the phase `pods` of the command that adds them, divided by the pods; up is all of that command.",
		"Kernel memory is by how much grew what is neither free, nor page cache, nor a process's own, between the lab without the pods and with them; it moves by a megabyte or two on its own, and is divided only from ten pods on.",
		"Latencies are of tcp-rr, requests of one byte over a standing connection: between the first and the last pod of the node, and between its first pod and one of the other node.",
	},
}

const (
	// podsRoom is room for 1,000 pods on a node; calico takes as many blocks as
	// it needs.
	podsRoom = ", nodePrefixLength: 22"
	// manyPods are the pods whose number grows.
	manyPods = `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: %d
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {nodeName: node01, containers: [{name: c, image: many:1}]}
`
	manyOwner = "Deployment/many"
	// memoryAPodMost is what has to be available for each pod: half as much again
	// as the project's target for them.
	memoryAPodMost = 645 << 10
	// divisible is from how many pods on memory is divided by them.
	divisible = 10
)

func openPods(_ context.Context, o *Options) (*curve, error) {
	c := &curve{close: func(context.Context) error { return nil }}
	for _, n := range o.Points {
		if err := enough(int64(n) * memoryAPodMost); err != nil {
			c.notes = append(c.notes, fmt.Sprintf("%d pods were left out: %v.", n, err))
			continue
		}
		for _, line := range o.Lines {
			c.cells = append(c.cells, &cell{line: line, point: n, measure: func(ctx context.Context) ([]reading, error) {
				return podsOnce(ctx, o, line, n)
			}})
		}
	}
	return c, nonempty(c)
}

// enough fails if so many bytes are not available.
func enough(bytes int64) error {
	m, err := footprint.ReadMemory()
	if err != nil {
		return err
	}
	if m.Available < bytes {
		return fmt.Errorf("they could need %.1f GB of memory, and %.1f GB are available", float64(bytes)/1e9, float64(m.Available)/1e9)
	}
	return nil
}

func nonempty(c *curve) error {
	if len(c.cells) == 0 {
		return &OptionError{"nothing is left to measure. " + strings.Join(c.notes, " ")}
	}
	return nil
}

// podsOnce measures one lab from nothing to nothing.
func podsOnce(ctx context.Context, o *Options, line string, pods int) (out []reading, err error) {
	v, err := variantOf(line)
	if err != nil {
		return nil, err
	}
	n, err := newNetwork("pods")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.down(ctx)) }()
	spec := networkOf(v, podsRoom) + pairNodes
	if _, err := n.up(ctx, spec, pairObjects); err != nil {
		return nil, err
	}
	before, err := footprint.SettledMemory(ctx)
	if err != nil {
		return nil, err
	}
	res, err := n.up(ctx, spec, pairObjects+fmt.Sprintf(manyPods, pods))
	if err != nil {
		return nil, err
	}
	after, err := footprint.SettledMemory(ctx)
	if err != nil {
		return nil, err
	}
	d, err := footprint.ReadDaemon(ctx, n.name)
	if err != nil {
		return nil, err
	}
	f := load.Figures{
		plugged: phase(res, "pods").Seconds() / float64(pods), upTook: res.Took.Seconds(),
		kernelMemory: float64(after.Kernel - before.Kernel), daemonMemory: float64(d.Private),
	}
	if pods >= divisible {
		f[memoryAPod] = f[kernelMemory] / float64(pods)
	}
	latencies, err := n.latencies(ctx, o)
	return append([]reading{{workload: "pods", figures: f}}, latencies...), err
}

// phase is how long a phase of an up took.
func phase(r *lab.Result, name string) (took time.Duration) {
	for _, t := range r.Timings {
		if t.Phase == name {
			took += t.Took
		}
	}
	return took
}

// latencies asks from the first of the many pods the last, and the one on the
// other node.
func (n *network) latencies(ctx context.Context, o *Options) ([]reading, error) {
	st, err := lab.ReadState(n.name)
	if err != nil {
		return nil, err
	}
	var many []topology.Pod
	var far topology.Pod
	for _, p := range st.Snapshot.Pods {
		switch {
		case p.Owner == manyOwner:
			many = append(many, p)
		case p.Name == "server":
			far = p
		}
	}
	first, err := n.place(many[0])
	if err != nil {
		return nil, err
	}
	dev, err := nature(first)
	if err != nil {
		return nil, err
	}
	to := map[string]topology.Pod{"other-node": far}
	if len(many) > 1 {
		to["same-node"] = many[len(many)-1]
	}
	var out []reading
	for _, path := range []string{"same-node", "other-node"} {
		pod, ok := to[path]
		if !ok {
			continue
		}
		server, err := n.place(pod)
		if err != nil {
			return nil, err
		}
		f, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPRequests, Client: first, Server: server, Duration: o.Duration, WarmUp: o.WarmUp})
		if err != nil {
			return nil, err
		}
		out = append(out, reading{load.TCPRequests, path, "pod", dev, only(f, load.P50, load.P99, load.Rate)})
	}
	return out, nil
}

// only are some of the figures.
func only(f load.Figures, names ...string) load.Figures {
	out := load.Figures{}
	for _, n := range names {
		if v, ok := f[n]; ok {
			out[n] = v
		}
	}
	return out
}
