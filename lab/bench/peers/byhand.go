package peers

import (
	"context"
	"errors"
	"fmt"
	"os/exec"

	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
	"slipway/lab/bench/report"
	"slipway/topology"
)

var byHandSection = Section{
	Name:    "byhand",
	About:   "vxlan, host-gw and bgp set up with ip and bridge beside our labs, with our rules and without",
	Missing: byHandMissing,
	Run:     runByHand,
}

func byHandMissing() []Missing {
	var out []Missing
	for _, program := range []string{"ip", "bridge"} {
		if _, err := exec.LookPath(program); err != nil {
			out = append(out, Missing{program, "install the package iproute2"})
		}
	}
	return out
}

// handBed is a path that was set up by hand.
type handBed struct {
	Bed
	net *handNet
}

// Close lets the namespaces end.
func (b *handBed) Close(context.Context) error { return b.net.close() }

// newHandBed sets a mode's path up with the addresses of a lab of that mode;
// rules says whether with the lab's rules, too.
func newHandBed(ctx context.Context, ours *Bed, mode topology.ModeName, rules bool) (_ *handBed, err error) {
	variant := "by hand/" + string(mode)
	net, err := newHandNet(ours.State.Snapshot)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variant, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("%s: %w", variant, err), net.close())
		}
	}()
	if err := net.setUp(ctx, mode); err != nil {
		return nil, err
	}
	if rules {
		variant += "+rules"
		if err := net.copyRules(ctx, ours.Lab); err != nil {
			return nil, err
		}
	}
	b := &handBed{Bed: Bed{variant: variant}, net: net}
	return b, b.look(ctx)
}

// look finds the ends and the devices, and waits until packets pass both ways.
func (b *handBed) look(ctx context.Context) error {
	ends := [2]*load.Place{&b.ends.Client, &b.ends.Server}
	for i, n := range b.net.nodes {
		node := load.Place{NS: b.net.spaces[n.name], Addr: n.outer.Addr(), Label: n.name}
		*ends[i] = load.Place{NS: b.net.spaces[n.pod], Addr: n.address, Label: n.pod}
		b.watch.Spaces = append(b.watch.Spaces, node, *ends[i])
		if err := b.addDevices(node); err != nil {
			return err
		}
	}
	b.ends.Sender = load.Device{NS: ends[0].NS, Name: "eth0", Label: ends[0].Label + "/eth0"}
	settle, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	if err := reaches(settle, *ends[0], ends[1].Addr); err != nil {
		return err
	}
	return reaches(settle, *ends[1], ends[0].Addr)
}

// byHandModes are those whose packets only the kernel moves.
var byHandModes = []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP}

// runByHand measures each mode's lab beside the same path made by hand: what the
// lab does besides is what it costs. The control has the lab's rules, since a
// cluster has them and packets pass them; the path without any stands beside it.
func runByHand(ctx context.Context, o Options) (*report.Report, error) {
	var all *report.Report
	for _, mode := range byHandModes {
		if !o.wants(string(mode)) {
			continue
		}
		r, err := runByHandMode(ctx, o, mode)
		all = merge(all, r)
		if err != nil {
			return all, err
		}
	}
	if all != nil {
		all.Notes = append(all.Notes,
			"\"by hand\": two nodes and two pods in namespaces of their own, set up with ip and bridge as the documentation of flannel and Calico says; \"+rules\": with the rules of the lab beside it loaded, too.")
	}
	return all, nil
}

func runByHandMode(ctx context.Context, o Options, mode topology.ModeName) (r *report.Report, err error) {
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
	o.phase("our lab of %s", mode)
	ours, err := OurBed(ctx, o, mode, "")
	if err != nil {
		return nil, err
	}
	beds = append(beds, ours)
	for _, rules := range []bool{true, false} {
		o.phase("%s by hand", mode)
		b, err := newHandBed(ctx, ours, mode, rules)
		if err != nil {
			return nil, err
		}
		beds = append(beds, b)
	}
	m := o.matrix(before)
	m.Control = beds[1].Name()
	return matrix.Run(ctx, m, beds, o.cases())
}
