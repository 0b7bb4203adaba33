package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"slipway/installer"
	reach "slipway/installer/verify"
	"slipway/lab"
	"slipway/lab/capture"
	"slipway/lab/remote"
	"slipway/lab/tracer"
	"slipway/topology"
)

// siteHosts are a site's hosts in the order of its file, and what its API has as a
// lab's state would name it.
func (a *app) siteHosts(ctx context.Context, o siteFlags) (hosts []installer.Host, st *lab.State, end func(), err error) {
	s, err := a.openSite(ctx, o)
	if err != nil {
		return nil, nil, nil, err
	}
	var masters []installer.Host
	for _, n := range s.Cluster.Spec.Nodes {
		hosts = append(hosts, s.hosts[n.Name])
		if slices.Contains(n.Roles, topology.RoleControlPlane) {
			masters = append(masters, s.hosts[n.Name])
		}
	}
	st, err = remote.State(ctx, s.Cluster, s.Applied().Allocation, reach.OnMasters(masters))
	if err != nil {
		if ctx.Err() == nil {
			fmt.Fprintf(a.err, "slipway: nodes alone are known by name, pods and services are not: %v\n", err)
			st, err = remote.Nodes(s.Cluster, s.Applied().Allocation)
		}
	}
	if err != nil {
		s.close()
		return nil, nil, nil, err
	}
	return hosts, st, s.close, nil
}

// captureSite listens on real hosts.
func (a *app) captureSite(ctx context.Context, names []string, f captureFlags) error {
	hosts, st, end, err := a.siteHosts(ctx, f.on)
	if err != nil {
		return err
	}
	defer end()
	choose := func(st *lab.State) ([]capture.Choice, error) { return capture.Select(st, names) }
	if f.all {
		choose = capture.All
	}
	o := capture.Options{Count: f.count, Duration: f.duration}
	if o.Places, err = choose(st); err != nil {
		return captureError(err)
	}
	program, err := installer.Own()
	if err != nil {
		return err
	}
	return a.captureWith(ctx, f, o, func(ctx context.Context, o capture.Options) (*capture.Summary, error) {
		return capture.RunOn(ctx, st, hosts, program, o)
	})
}

// traceSite follows a packet through real hosts.
func (a *app) traceSite(cmd *cobra.Command, f *traceFlags, args []string) (err error) {
	if f.follow {
		return usageError("on real hosts packets are sent, not waited for: leave out --follow (`slipway capture --site` listens)")
	}
	ctx := cmd.Context()
	hosts, st, end, err := a.siteHosts(ctx, f.on)
	if err != nil {
		return err
	}
	defer end()
	program, err := installer.Own()
	if err != nil {
		return err
	}
	party, err := remote.Visit(ctx, hosts, program)
	defer func() {
		if cerr := party.Close(ctx); cerr != nil {
			fmt.Fprintf(a.err, "slipway: not everything that was sent to hosts could be taken away: %v\n", cerr)
		}
	}()
	seen := party.Seen()
	if err != nil {
		if len(seen) == 0 || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(a.err, "slipway: not all hosts could be looked at: %v\n", err)
	}
	network, err := remote.Network(st, seen)
	if err != nil {
		return err
	}
	one := func(ctx context.Context) (*tracer.Bundle, error) {
		return tracer.TraceOn(ctx, st, network, party, tracer.Options{Observer: f.observer}, f.request(cmd, args, a.output))
	}
	if f.count > 1 {
		return a.traceMany(ctx, one, f)
	}
	b, err := one(ctx)
	if err != nil {
		return traceError(err)
	}
	return a.finish(f, b)
}
