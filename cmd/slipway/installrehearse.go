package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/installer/site"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/topology"
)

// rehearsal is what `install rehearse` is told.
type rehearsal struct {
	siteFlags
	mode, components, facts string
	step, keep, down        bool
}

func (a *app) rehearseCmd() *cobra.Command {
	var o rehearsal
	c := &cobra.Command{
		Use: "rehearse [-f FILE]", Short: "Go through a whole installation in a lab",
		Long: `Go through the installation of a cluster in a lab whose nodes are network namespaces
of this machine: the same phases, files, units and programs that real machines get.
It says how long each phase took and how much it had to change. A second time nothing
changes. With --step it stops before each step, says what the step is for, and shows
the files that it writes. The lab stays up to be looked at (` + "`slipway down`" + ` ends it).

Where the file's nodes have ` + "`ssh`" + `, it is the hosts' own plan that is rehearsed: they are
looked at, and the lab's nodes get their addresses and MTU, their certificates, and
somebody who listens at the ports that are taken there. That the plan works is written
down, and ` + "`slipway install apply`" + ` carries out no other.`,
		Example: `  slipway install rehearse -f examples/three-masters.yaml
  slipway install rehearse --components light --step
  slipway install rehearse --phase 04-etcd      # this phase alone, again
  slipway install rehearse -f examples/real-hosts.yaml --down`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.file != "" && o.file != "-" && o.components == "" && o.mode == "" {
				c, err := a.readQuietly(o.file)
				if err == nil && onHosts(c) == nil {
					return a.rehearseSite(cmd.Context(), o)
				}
			}
			return a.rehearseLab(cmd.Context(), o)
		},
	}
	o.add(c, true)
	o.check.add(c.Flags())
	f := c.Flags()
	f.StringVar(&o.mode, "mode", "", "datapath mode instead of the file's")
	f.StringVar(&o.components, "components", "", "light or full (default: the file's, else full)")
	f.StringVar(&o.facts, "facts", "", "take what the hosts are from this file of facts instead of asking them; last takes what was learned last")
	f.BoolVar(&o.step, "step", false, "explain each step, show its files, and wait for Enter")
	f.BoolVar(&o.keep, "keep-failed", true, "leave what could be installed when a step fails, to look at and to go on from")
	f.BoolVar(&o.down, "down", false, "take the lab down when the rehearsal went well")
	return c
}

// readQuietly reads a cluster file for a first look; what is wrong with it is said
// by the second.
func (a *app) readQuietly(path string) (*topology.Cluster, error) {
	c, diags, err := topology.Load(path)
	return c, errors.Join(err, diags.Err())
}

// rehearseLab is the rehearsal of a cluster that is nobody's hosts.
func (a *app) rehearseLab(ctx context.Context, o rehearsal) error {
	opts, err := a.upOptions(o.file, o.mode, o.components, "")
	if err != nil {
		return err
	}
	if !isReal(opts.Cluster) {
		opts.Cluster.Spec.Components = topology.ComponentsFull
	}
	opts.KeepFailed = o.keep
	r := &site.Rehearsal{At: time.Now().UTC().Truncate(time.Second), Lab: opts.Cluster.Metadata.Name}
	err = a.rehearse(ctx, kube.Options{UpOptions: opts, Only: o.phases}, o, r)
	// It is the lab's own, and goes with it.
	if data, e := json.MarshalIndent(r, "", "  "); e == nil {
		_ = os.WriteFile(lab.Dir(r.Lab)+"/rehearsal.json", data, 0o600)
	}
	return err
}

// rehearse runs an installation in a lab and notes what becomes of each item.
func (a *app) rehearse(ctx context.Context, k kube.Options, o rehearsal, r *site.Rehearsal) error {
	if o.step {
		k.Before = a.stepThrough()
	}
	k.Tell = func(e installer.Event) {
		if e.Step != cluster.StandInStep {
			r.Journal = append(r.Journal, site.EntryOf(e))
		}
	}
	began := time.Now()
	err := a.upReal(ctx, k, true, false)
	r.Took, r.OK = time.Since(began), err == nil
	if err != nil {
		r.Error = site.FirstLine(err)
		return err
	}
	if o.down {
		_, err = lab.Down(ctx, r.Lab)
	}
	return err
}

// rehearseSite goes through the plan of real hosts in a lab, and remembers it.
func (a *app) rehearseSite(ctx context.Context, o rehearsal) error {
	s, err := a.readSite(o.siteFlags)
	if err != nil {
		return err
	}
	found, err := a.factsFor(ctx, s, o)
	if err != nil {
		return err
	}
	release, err := s.Lock()
	if err != nil {
		return err
	}
	defer release()
	p, err := a.planFrom(ctx, s, found, o.siteFlags)
	if err != nil {
		return err
	}
	up := lab.UpOptions{Cluster: p.Inputs.Cluster, Objects: &topology.Objects{}, KeepFailed: o.keep}
	for _, m := range s.Manifests {
		up.Manifests = append(up.Manifests, lab.Manifest(m))
	}
	k := kube.Options{UpOptions: up, Only: o.phases, PKI: s.PKI().Dir, Like: p.Inputs.Facts, Prepare: func(ctx context.Context, hosts map[string]installer.Host, programs map[string]installer.Blob) error {
		return occupy(ctx, hosts, programs["slipway"], site.Taken(p))
	}}
	r := &site.Rehearsal{Hash: p.Hash, Items: p.Items, At: time.Now().UTC().Truncate(time.Second), Lab: s.Name}
	err = a.rehearse(ctx, k, o, r)
	if len(o.phases) > 0 { // a part of it says nothing of the whole
		return err
	}
	return errors.Join(err, s.KeepRehearsal(r))
}

// factsFor are what the hosts of a rehearsal are.
func (a *app) factsFor(ctx context.Context, s *site.Site, o rehearsal) (map[string]facts.Facts, error) {
	switch o.facts {
	case "":
		hosts, end, err := a.connect(ctx, s.Cluster, o.ssh)
		if err != nil {
			return nil, err
		}
		defer end()
		found, err := facts.Gather(ctx, hosts)
		return found, errors.Join(err, s.KeepFacts(found))
	case "last":
		found, err := s.KnownFacts()
		if err != nil {
			return nil, &coded{exitUsage, fmt.Errorf("nothing was learned of the hosts of %s before: %w", s.Name, err)}
		}
		return found, nil
	}
	var found map[string]facts.Facts
	f, err := os.Open(o.facts)
	if err != nil {
		return nil, &coded{exitUsage, err}
	}
	defer f.Close() //nolint:errcheck // only read
	data, err := io.ReadAll(f)
	if err == nil {
		err = json.Unmarshal(data, &found)
	}
	if err != nil {
		return nil, &coded{exitUsage, fmt.Errorf("read %s: %w", o.facts, err)}
	}
	return found, nil
}
