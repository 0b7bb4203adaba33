package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/daytwo"
	"slipway/installer/facts"
	"slipway/installer/site"
	"slipway/installer/ssh"
	"slipway/lab/kube"
	"slipway/topology"
)

// installedCluster is a command's hold on a cluster that is installed: a lab's, or
// one on real hosts.
type installedCluster struct {
	daytwo.Cluster
	name string
	lab  bool
	// joining are the inputs of another cluster file, whose machines are there
	// then; leaving those of one that lacks some.
	joining, leaving func(ctx context.Context, c *topology.Cluster) (cluster.Inputs, error)
	// became writes down what the cluster is now.
	became func(ctx context.Context, in cluster.Inputs) error
	close  func()
}

// holdInstalled opens the cluster that the flags mean: one on real hosts by --site
// or by the name in -f, otherwise a lab's.
func (a *app) holdInstalled(ctx context.Context, o siteFlags, run string) (*installedCluster, error) {
	if o.site == "" && o.file != "" {
		c, err := a.readCluster(o.file)
		if err != nil {
			return nil, err
		}
		if onHosts(c) == nil {
			o.site = c.Metadata.Name
		} else if a.lab == "" {
			a.lab = c.Metadata.Name
		}
	}
	if o.site == "" {
		return a.holdLab(ctx)
	}
	return a.holdSite(ctx, o, run)
}

func (a *app) holdLab(ctx context.Context) (*installedCluster, error) {
	name, err := a.realLab()
	if err != nil {
		return nil, err
	}
	i, err := kube.OpenInstalled(ctx, name, a.buildProgress().on)
	if err != nil {
		return nil, err
	}
	h := &installedCluster{Cluster: i.Cluster, name: name, lab: true, close: i.Close}
	h.Tell = a.tellItems(nil)
	h.joining = func(ctx context.Context, c *topology.Cluster) (cluster.Inputs, error) {
		p := a.progress()
		defer p.clear()
		return i.Follow(ctx, c, p) // new machines come into the same map of hosts
	}
	h.leaving = func(_ context.Context, c *topology.Cluster) (cluster.Inputs, error) { return i.With(c) }
	h.became = func(ctx context.Context, in cluster.Inputs) error {
		p := a.progress()
		defer p.clear()
		_, err := i.Follow(ctx, in.Cluster, p)
		return err
	}
	return h, nil
}

// tellItems shows what becomes of items, and writes it down.
func (a *app) tellItems(write func(installer.Event)) func(installer.Event) {
	return func(e installer.Event) {
		if write != nil {
			write(e)
		}
		if e.Item != "" && e.Changed {
			fmt.Fprintf(a.err, "slipway: %s: %s: %s\n", e.Host, e.Phase, e.Item)
		}
	}
}

// holdSite opens a site as it was applied, and connects to those of its hosts that
// answer.
func (a *app) holdSite(ctx context.Context, o siteFlags, run string) (*installedCluster, error) {
	s, err := site.Load(o.site)
	if err != nil {
		return nil, &coded{exitUsage, err}
	}
	release, err := s.Lock()
	if err != nil {
		return nil, err
	}
	hosts, end := a.connectSome(ctx, s.Cluster, o.ssh)
	j, err := s.Journal()
	if err != nil {
		end()
		release()
		return nil, err
	}
	h := &installedCluster{name: s.Name, close: func() { _ = j.Close(); end(); release() }}
	if err := j.Write(site.Entry{Run: run}); err != nil {
		h.close()
		return nil, err
	}
	h.Hosts = hosts
	h.Tell = a.tellItems(func(e installer.Event) { _ = j.Write(site.EntryOf(e)) })
	p, err := a.planKnown(ctx, s, hosts, o)
	if err != nil {
		h.close()
		return nil, err
	}
	h.Inputs = p.Inputs
	plans := map[*topology.Cluster]func() error{}
	h.joining = func(ctx context.Context, c *topology.Cluster) (cluster.Inputs, error) {
		next, err := site.Open(c, s.Manifests)
		if err != nil {
			return cluster.Inputs{}, err
		}
		added := *c
		added.Spec.Nodes = slices.DeleteFunc(slices.Clone(c.Spec.Nodes), func(n topology.Node) bool { return hosts[n.Name] != nil })
		if len(added.Spec.Nodes) > 0 {
			more, stop, err := a.connect(ctx, &added, o.ssh)
			if err != nil {
				return cluster.Inputs{}, err
			}
			maps.Copy(hosts, more)
			before := h.close
			h.close = func() { stop(); before() }
			if err := next.Join(added.Spec.Nodes); err != nil {
				return cluster.Inputs{}, err
			}
		}
		p, err := a.planKnown(ctx, next, hosts, o)
		if err != nil {
			return cluster.Inputs{}, err
		}
		plans[p.Inputs.Cluster] = func() error { return next.Remember(p, true) }
		return p.Inputs, nil
	}
	h.leaving = h.joining
	h.became = func(_ context.Context, in cluster.Inputs) error {
		if keep := plans[in.Cluster]; keep != nil {
			return keep()
		}
		return s.Remember(p, true)
	}
	return h, nil
}

// planKnown plans with what is known of the hosts, and asks those of which nothing
// is known.
func (a *app) planKnown(ctx context.Context, s *site.Site, hosts map[string]installer.Host, o siteFlags) (*site.Planned, error) {
	known, err := s.KnownFacts()
	if err != nil {
		known = map[string]facts.Facts{}
	}
	ask := map[string]installer.Host{}
	for _, n := range s.Cluster.Spec.Nodes {
		if _, ok := known[n.Name]; !ok && hosts[n.Name] != nil {
			ask[n.Name] = hosts[n.Name]
		}
	}
	if len(ask) > 0 {
		found, err := facts.Gather(ctx, ask)
		if err != nil {
			return nil, err
		}
		maps.Copy(known, found)
		if err := s.KeepFacts(known); err != nil {
			return nil, err
		}
	}
	return a.planFrom(ctx, s, known, o)
}

// connectSome opens connections to the hosts that answer, and says which do not.
func (a *app) connectSome(ctx context.Context, c *topology.Cluster, o sshFlags) (map[string]installer.Host, func()) {
	opened, err := ssh.OpenAll(ctx, targets(c), a.sshOptions(o))
	if err != nil {
		fmt.Fprintf(a.err, "slipway: warning: %v\n", err)
	}
	hosts := map[string]installer.Host{}
	for name, h := range opened {
		hosts[name] = h
	}
	return hosts, func() { ssh.CloseAll(opened) }
}

// halfChanged adds how it goes on, unless nothing was begun.
func (h *installedCluster) halfChanged(ctx context.Context, err error) error {
	var refused *daytwo.RefusedError
	if errors.As(err, &refused) {
		return err
	}
	return leftOver(ctx, err, fmt.Sprintf("cluster %s is partly changed: the same command again goes on", h.name))
}

// addInstalled adds the flags by which an installed cluster is named.
func (o *siteFlags) addInstalled(c *cobra.Command, file string) {
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", file)
	f.StringVar(&o.site, "site", "", "a cluster on real hosts, by its name; without it and -f a lab's is meant (-L)")
	o.bundle.add(f)
	o.ssh.add(f)
}
