package peers

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/internal/nl"
	"slipway/lab"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
	"slipway/lab/procs"
	"slipway/topology"
)

var flanneldSection = Section{
	Name:       "flanneld",
	About:      "the real flanneld's udp, vxlan and host-gw beside ours, pod to pod between two nodes",
	Components: []string{"etcd", "flannel"},
	Missing:    flanneldMissing,
	Run:        runFlanneld,
}

// twoNodes are the nodes of a lab that is measured, and twoPods what runs there.
const (
	twoNodes = `  nodes:
    - {name: node01, roles: [control-plane, worker]}
    - {name: node02, roles: [worker]}
`
	twoPods = `apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node01, containers: [{name: c, image: bench:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server}
spec: {nodeName: node02, containers: [{name: c, image: bench:1}]}
`
)

// settlePatience is how long flanneld may take until packets pass: eight seconds
// are usual.
const settlePatience = time.Minute

// Bed is a lab of two nodes with a pod on each, whoever its datapath is by.
type Bed struct {
	*Lab
	variant string
	ends    matrix.Ends
	watch   load.Watch
}

// Name is the variant's.
func (b *Bed) Name() string { return b.variant }

// Ends are the two pods.
func (b *Bed) Ends(path, target string) (matrix.Ends, bool) {
	return b.ends, path == matrix.OtherNode && target == matrix.Pod
}

// Watch looks at the nodes and pods, the nodes' devices, and every process of
// the datapath.
func (b *Bed) Watch() load.Watch { return b.watch }

// OurBed is a lab with one of our modes; udp is empty but for flannel-udp.
func OurBed(ctx context.Context, o Options, mode topology.ModeName, udp topology.UDPImplementation) (*Bed, error) {
	variant, spec := string(mode), fmt.Sprintf("  network: {mode: %s}\n", mode)
	if udp != "" {
		variant += "/" + string(udp)
		spec = fmt.Sprintf("  network: {mode: %s, udp: {implementation: %s}}\n", mode, udp)
	}
	l, err := Up(ctx, o.Exe, strings.NewReplacer("flannel-", "", "/", "-").Replace(variant), spec+twoNodes, twoPods)
	if err != nil {
		return nil, err
	}
	return l.bed(ctx, variant, nil)
}

// FlanneldBed is the same lab, its pods, bridges, wires and rules, but for the
// datapath between the nodes, which is the real flanneld's.
func FlanneldBed(ctx context.Context, o Options, mode topology.ModeName) (_ *Bed, err error) {
	// flannel-host-gw leaves the least to take away; the MTU is the mode's.
	spec := fmt.Sprintf("  network: {mode: flannel-host-gw, mtu: %d}\n", mtuOf[mode])
	l, err := Up(ctx, o.Exe, "flanneld-"+Backend(mode), spec+twoNodes, twoPods)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close(ctx))
		}
	}()
	settle, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	r, err := StartRegistry(settle, l, o.Binary("etcd", "etcd"), Backend(mode))
	if err != nil {
		return nil, err
	}
	for _, node := range []string{"node01", "node02"} {
		if err := Strip(l, node); err != nil {
			return nil, err
		}
	}
	for _, node := range []string{"node01", "node02"} {
		if _, err := StartFlanneld(settle, r, o.Binary("flannel", "flanneld"), node); err != nil {
			return nil, err
		}
	}
	return l.bed(ctx, "flanneld/"+Backend(mode), r)
}

// mtuOf is the pods' MTU in bytes: what a wire of 1500 leaves besides the
// encapsulation (flannel pkg/backend/udp, 28; pkg/backend/vxlan, 50).
var mtuOf = map[topology.ModeName]int{topology.FlannelUDP: 1472, topology.FlannelVXLAN: 1450, topology.FlannelHostGW: 1500}

// bed opens what is measured, and waits until packets pass both ways.
func (l *Lab) bed(ctx context.Context, variant string, r *Registry) (_ *Bed, err error) {
	b := &Bed{Lab: l, variant: variant}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", variant, err), l.Close(ctx))
		}
	}()
	for name, place := range map[string]*load.Place{"client": &b.ends.Client, "server": &b.ends.Server, "node01": nil, "node02": nil} {
		ns, t, err := l.At(name)
		if err != nil {
			return nil, err
		}
		p := load.Place{NS: ns, Addr: t.Address, Label: t.Label}
		b.watch.Spaces = append(b.watch.Spaces, p)
		if place != nil {
			*place = p
		} else if err := b.addDevices(p); err != nil {
			return nil, err
		}
	}
	b.ends.Sender = load.Device{NS: b.ends.Client.NS, Name: "eth0", Label: b.ends.Client.Label + "/eth0"}
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(l.State), procs.MarkEnv+"="))
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		if r == nil || p.PID != r.etcd.PID() {
			b.watch.Processes = append(b.watch.Processes, p.PID)
		}
	}
	settle, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	if err := l.Reaches(settle, "client", b.ends.Server.Addr); err != nil {
		return nil, err
	}
	return b, l.Reaches(settle, "server", b.ends.Client.Addr)
}

// addDevices lists a node's devices, without loopback.
func (b *Bed) addDevices(p load.Place) error {
	h, err := nl.At(p.NS)
	if err != nil {
		return err
	}
	defer h.Close()
	links, err := nl.Dump(h.LinkList)
	if err != nil {
		return fmt.Errorf("list devices of %s: %w", p.Label, err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" {
			b.watch.Devices = append(b.watch.Devices, load.Device{NS: p.NS, Name: name, Label: p.Label + "/" + name})
		}
	}
	return nil
}

// against is a backend of flanneld's with what of ours is measured beside it.
type against struct {
	mode topology.ModeName
	ours []topology.UDPImplementation
}

var backends = []against{
	{topology.FlannelUDP, []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched, topology.UDPeBPF}},
	{topology.FlannelVXLAN, []topology.UDPImplementation{""}},
	{topology.FlannelHostGW, []topology.UDPImplementation{""}},
}

// runFlanneld measures each backend beside ours of the same mode.
func runFlanneld(ctx context.Context, o Options) (*report.Report, error) {
	var all *report.Report
	for _, a := range backends {
		if !o.wants(Backend(a.mode)) {
			continue
		}
		r, err := runBackend(ctx, o, a)
		all = merge(all, r)
		if err != nil {
			return all, err
		}
	}
	return all, nil
}

func runBackend(ctx context.Context, o Options, a against) (r *report.Report, err error) {
	before, err := matrix.ReadMachine()
	if err != nil {
		return nil, err
	}
	var beds []matrix.Bed
	defer func() {
		for _, b := range beds {
			err = errors.Join(err, b.Close(ctx))
		}
	}()
	o.phase("lab of flanneld's %s", Backend(a.mode))
	control, err := FlanneldBed(ctx, o, a.mode)
	if err != nil {
		return nil, err
	}
	beds = append(beds, control)
	for _, udp := range a.ours {
		o.phase("lab of our %s %s", a.mode, udp)
		b, err := OurBed(ctx, o, a.mode, udp)
		if err != nil {
			return nil, err
		}
		beds = append(beds, b)
	}
	m := o.matrix(before)
	m.Control = control.Name()
	return matrix.Run(ctx, m, beds, o.cases())
}

// cases are the workloads, from pod to pod of another node.
func (o Options) cases() []matrix.Case {
	var out []matrix.Case
	for _, w := range []struct {
		name, main string
		params     map[string]string
	}{
		{load.TCPStream, load.Throughput, map[string]string{"write": "128KiB", "streams": "1"}},
		{load.TCPRequests, load.P50, map[string]string{"size": "1"}},
		{load.UDPRequests, load.P50, map[string]string{"size": "16"}},
		{load.UDPPackets, load.PacketRate, nil},
	} {
		out = append(out, matrix.Case{
			Path: matrix.OtherNode, Target: matrix.Pod, Params: w.params, Main: w.main,
			Job: load.Job{Workload: w.name, Duration: o.Duration, WarmUp: o.WarmUp},
		})
	}
	return out
}
