package curve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench"
	"slipway/lab/bench/footprint"
	"slipway/lab/bench/load"
	"slipway/topology"
)

const (
	// downPatience bounds the removal of a lab.
	downPatience = 2 * time.Minute
	// convergePatience bounds the wait for BGP in a lab of many speakers.
	convergePatience = 2 * time.Minute
)

// network is a lab that a curve has made, and the namespaces in it that were
// looked at.
type network struct {
	name   string
	opened []*netns.NS
}

// newNetwork names a lab. The name is short, as it is part of every namespace's.
func newNetwork(what string) (*network, error) {
	n := &network{name: fmt.Sprintf("bench-%d-%s", os.Getpid(), strings.ReplaceAll(what, "/", "-"))}
	switch _, err := lab.ReadState(n.name); {
	case errors.Is(err, lab.ErrNoLab):
		return n, nil
	case err != nil:
		return nil, err
	default: // it would not be ours to take down
		return nil, fmt.Errorf("a lab %s is already up: `slipway down %s` takes it down", n.name, n.name)
	}
}

// networks are labs that are up at the same time.
type networks []*network

// add names one more; from then on it is taken down with the others.
func (n *networks) add(what string) (*network, error) {
	one, err := newNetwork(what)
	if err == nil {
		*n = append(*n, one)
	}
	return one, err
}

// down takes all of them down.
func (n *networks) down(ctx context.Context) error {
	var errs []error
	for _, one := range *n {
		errs = append(errs, one.down(ctx))
	}
	*n = nil
	return errors.Join(errs...)
}

// up makes the lab equal to a cluster file's spec and manifests.
func (n *network) up(ctx context.Context, spec, objects string) (*lab.Result, error) {
	text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %q}\nspec:\n%s", topology.APIVersion, topology.KindCluster, n.name, spec)
	c, diags := topology.Parse(n.name, []byte(text))
	if err := diags.Err(); err != nil {
		return nil, err
	}
	o, _, err := topology.LoadManifests(n.name+"-objects", []byte(objects))
	if err != nil {
		return nil, err
	}
	return lab.Up(ctx, lab.UpOptions{Cluster: c, Objects: o, ConvergeTimeout: convergePatience})
}

// down takes the lab down, also when the context has ended, and waits until the
// kernel has done so, too: what it tears down later would disturb others.
func (n *network) down(ctx context.Context) error {
	for _, ns := range n.opened {
		_ = ns.Close() // a read-only descriptor
	}
	n.opened = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
	defer cancel()
	if _, err := lab.Down(ctx, n.name); err != nil && !errors.Is(err, lab.ErrNoLab) {
		return fmt.Errorf("take lab %s down (run `slipway down %s`): %w", n.name, n.name, err)
	}
	return footprint.Drain(ctx)
}

// place opens a pod's namespace.
func (n *network) place(p topology.Pod) (load.Place, error) {
	ns, err := netns.Open(lab.NSOfPod(n.name, p.Key()))
	if err != nil {
		return load.Place{}, err
	}
	n.opened = append(n.opened, ns)
	return load.Place{NS: ns, Addr: p.Address, Label: p.Key()}, nil
}

// podDevice is what every pod's own device is called.
const podDevice = "eth0"

// nature is that of the device that a pod sends from.
func nature(p load.Place) (load.Nature, error) {
	return load.Device{NS: p.NS, Name: podDevice, Label: p.Label + "/" + podDevice}.Nature()
}

// pair are two pods of two nodes, and the first one's device.
type pair struct {
	client, server load.Place
	nature         load.Nature
}

// The pods of a pair and the nodes that they are on.
const (
	pairNodes   = "  nodes: [{name: node01, roles: [control-plane, worker]}, {name: node02, roles: [worker]}]\n"
	pairObjects = `apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node01, containers: [{name: c, image: client:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server}
spec: {nodeName: node02, containers: [{name: c, image: server:1}]}
`
)

// pair brings a lab of two pods up and finds them.
func (n *network) pair(ctx context.Context, spec string) (pair, *lab.State, error) {
	var p pair
	if _, err := n.up(ctx, spec+pairNodes, pairObjects); err != nil {
		return p, nil, err
	}
	st, err := lab.ReadState(n.name)
	if err != nil {
		return p, nil, err
	}
	for _, pod := range st.Snapshot.Pods {
		to := map[string]*load.Place{"default/client": &p.client, "default/server": &p.server}[pod.Key()]
		if to == nil { // the cluster's own DNS
			continue
		}
		if *to, err = n.place(pod); err != nil {
			return p, nil, err
		}
	}
	p.nature, err = nature(p.client)
	return p, st, err
}

// job is a measurement between the pair.
func (p pair) job(o *Options, workload string) load.Job {
	return load.Job{Workload: workload, Client: p.client, Server: p.server, Duration: o.Duration, WarmUp: o.WarmUp}
}

// shortest is how long the measurement of a round trip without load takes.
const shortest = 200 * time.Millisecond

// roundTripOf measures the round trip of the pair without load.
func (p pair) roundTripOf(ctx context.Context) (time.Duration, error) {
	f, err := load.Native{}.Run(ctx, load.Job{Workload: load.TCPRequests, Client: p.client, Server: p.server, Duration: shortest})
	return time.Duration(f[load.P50] * float64(time.Second)), err
}

// networkOf is a cluster file's network in a variant, with more settings if
// wanted.
func networkOf(v bench.Variant, more string) string {
	udp := ""
	if v.UDP != "" {
		udp = fmt.Sprintf(", udp: {implementation: %s}", v.UDP)
	}
	return fmt.Sprintf("  network: {mode: %s%s%s}\n", v.Mode, udp, more)
}

// variantOf reads a line that is a mode, "flannel-vxlan" or "flannel-udp/ebpf".
func variantOf(line string) (bench.Variant, error) {
	v, err := bench.ParseVariant(line)
	if err != nil {
		return v, &OptionError{err.Error()}
	}
	return v, nil
}

func isVariant(line string) error {
	_, err := variantOf(line)
	return err
}

// addrs are a place's address and port as what a client connects to.
func addrs(a netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }
