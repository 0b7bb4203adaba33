package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/facts"
	"slipway/installer/site"
	"slipway/internal/ordered"
	"slipway/lab/kube"
	"slipway/topology"
)

// siteFlags are what commands on real hosts have in common.
type siteFlags struct {
	file, site string
	phases     []string
	ssh        sshFlags
	bundle     bundleFlags
	check      preflightFlags
}

func (o *siteFlags) add(c *cobra.Command, phases bool) {
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "cluster file; - reads stdin")
	f.StringVar(&o.site, "site", "", "a cluster that was applied before, as it was then, instead of a file")
	if phases {
		f.StringSliceVar(&o.phases, "phase", nil, "only this phase, as 04 or 04-etcd; may be repeated")
		o.bundle.add(f)
	}
	o.ssh.add(f)
}

// onSite is a command's hold on a site: its hosts are connected.
type onSite struct {
	*site.Site
	hosts map[string]installer.Host
	close func()
}

// readSite is the site of a file, or one that was applied before.
func (a *app) readSite(o siteFlags) (*site.Site, error) {
	if o.file == "" {
		s, err := site.Load(o.site)
		if err != nil {
			return nil, &coded{exitUsage, fmt.Errorf("%w (-f FILE, or --site NAME of one that was applied)", err)}
		}
		return s, nil
	}
	c, err := a.readCluster(o.file)
	if err != nil {
		return nil, err
	}
	if o.site != "" && o.site != c.Metadata.Name {
		return nil, usageError("--site %s is not the cluster of %s, which is %s", o.site, o.file, c.Metadata.Name)
	}
	if err := onHosts(c); err != nil {
		return nil, err
	}
	files, err := a.loadFiles(o.file, c)
	if err != nil {
		return nil, err
	}
	var manifests []cluster.Manifest
	for _, m := range files {
		manifests = append(manifests, cluster.Manifest(m))
	}
	return site.Open(c, manifests)
}

// onHosts checks that all nodes are machines that are reached by SSH.
func onHosts(c *topology.Cluster) error {
	var without []string
	for _, n := range c.Spec.Nodes {
		if n.SSH == nil {
			without = append(without, n.Name)
		}
	}
	if len(without) > 0 {
		return usageError("%s: no `ssh` says how to reach %s (for labs there is `slipway install rehearse`)", c.Metadata.Name, strings.Join(without, ", "))
	}
	return nil
}

// openSite opens a site and connects to its hosts.
func (a *app) openSite(ctx context.Context, o siteFlags) (*onSite, error) {
	s, err := a.readSite(o)
	if err != nil {
		return nil, err
	}
	hosts, end, err := a.connect(ctx, s.Cluster, o.ssh)
	if err != nil {
		return nil, err
	}
	return &onSite{s, hosts, end}, nil
}

// lockSite opens a site for a change; done gives it back.
func (a *app) lockSite(ctx context.Context, o siteFlags) (s *onSite, done func(), err error) {
	if s, err = a.openSite(ctx, o); err != nil {
		return nil, nil, err
	}
	release, err := s.Lock()
	if err != nil {
		s.close()
		return nil, nil, err
	}
	return s, func() { release(); s.close() }, nil
}

// planSite gathers the facts of all hosts and makes the plan.
func (a *app) planSite(ctx context.Context, s *onSite, o siteFlags) (*site.Planned, installer.Plan, error) {
	found, err := facts.Gather(ctx, s.hosts)
	if err != nil {
		return nil, installer.Plan{}, err
	}
	if err := s.KeepFacts(found); err != nil {
		return nil, installer.Plan{}, err
	}
	p, err := a.planFrom(ctx, s.Site, found, o)
	if err != nil {
		return nil, installer.Plan{}, err
	}
	part, err := p.Part(o.phases)
	if err == nil && len(part.Phases) == 0 {
		err = usageError("no phase is called %s", strings.Join(o.phases, ", "))
	}
	return p, part, err
}

func (a *app) planFrom(ctx context.Context, s *site.Site, found map[string]facts.Facts, o siteFlags) (*site.Planned, error) {
	versions, err := a.loadBundle(ctx, o.bundle)
	if err != nil {
		return nil, err
	}
	builds := a.buildProgress()
	known := map[string]string{}
	return s.Plan(ctx, site.From{Facts: found, Versions: versions, Programs: known, Ignore: o.check.ignore, Supply: func(ctx context.Context, c *topology.Cluster) (programs, images map[string]installer.Blob, err error) {
		defer func() { maps.Copy(known, kube.Versions(ctx, c)) }()
		return kube.Supply(ctx, c, builds.on)
	}})
}

func (a *app) planCmd() *cobra.Command {
	var o siteFlags
	c := &cobra.Command{
		Use: "plan -f FILE", Short: "Show what an installation would change on real hosts, and why",
		Long: `Connect to the hosts of a cluster file, look at them, and print what would be changed:
every file with its difference, every unit, setting, program and command, and what each
step is for. Nothing is changed. Keys and tokens are never shown. The plan has a hash;
'rehearse' remembers it, and 'apply' refuses a plan with another.`,
		Example: `  slipway install plan -f examples/real-hosts.yaml
  slipway install plan -f cluster.yaml --phase 04-etcd
  slipway install plan -f cluster.yaml -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openSite(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer s.close()
			p, part, err := a.planSite(cmd.Context(), s, o)
			if err != nil {
				return err
			}
			v, err := s.Look(cmd.Context(), s.hosts, p, part)
			if err != nil {
				return err
			}
			if err := s.KeepView(v); err != nil {
				return err
			}
			return a.print(v, func(w io.Writer) error { return printView(w, v) })
		},
	}
	o.add(c, true)
	return c
}

// printView shows a plan host by host, each step with what it is for.
func printView(w io.Writer, v *site.View) error {
	b := &strings.Builder{}
	var hosts []string
	for _, c := range v.Changes {
		if !slices.Contains(hosts, c.Host) {
			hosts = append(hosts, c.Host)
		}
	}
	for _, h := range hosts {
		fmt.Fprintf(b, "%s\n", h)
		step := ""
		for _, c := range v.Changes {
			if c.Host != h {
				continue
			}
			if s := c.Phase + ", " + c.Step; s != step {
				step = s
				fmt.Fprintf(b, "  %s: %s\n", s, c.Why)
			}
			printChange(b, c)
		}
	}
	fmt.Fprintln(b, summary(v))
	_, err := io.WriteString(w, b.String())
	return err
}

// marks say what becomes of an item: it comes, it changes, it is run or waited for.
func markOf(c site.Change) string {
	switch {
	case c.Kind == "wait":
		return "…"
	case c.Kind == "requirement":
		return "!"
	case c.Kind == "action":
		return ">"
	case strings.HasPrefix(c.Before, "absent") || c.Before == "unknown" || strings.HasPrefix(c.Diff, "--- /dev/null"):
		return "+"
	default:
		return "~"
	}
}

func printChange(b *strings.Builder, c site.Change) {
	fmt.Fprintf(b, "    %s %s", markOf(c), c.Item)
	switch {
	case c.Secret:
		b.WriteString(" (secret, not shown)")
	case c.Version != "" && c.Had != "" && c.Had != c.Version:
		fmt.Fprintf(b, ": %s -> %s", c.Had, c.Version)
	case c.Version != "":
		fmt.Fprintf(b, " (%s)", c.Version)
	case markOf(c) == "~" && c.Diff == "":
		fmt.Fprintf(b, ": %s -> %s", c.Before, c.Want)
	}
	b.WriteString("\n")
	text := c.Diff
	if text == "" {
		text = c.Command
	}
	if text != "" && c.Kind != "sysctl" {
		fmt.Fprintf(b, "        %s\n", strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n        "))
	}
}

// summary counts what a plan would change.
func summary(v *site.View) string {
	var parts []string
	for _, kind := range ordered.Keys(v.Counts) {
		parts = append(parts, fmt.Sprintf("%s %d", kind, v.Counts[kind]))
	}
	what := "no changes"
	if len(v.Changes) > 0 {
		what = fmt.Sprintf("%d of %d items are not as wanted (%s)", len(v.Changes), v.Items, strings.Join(parts, ", "))
	}
	return fmt.Sprintf("%s: %s; plan %.12s, rehearsed: %s", v.Cluster, what, v.Hash, v.Rehearsed)
}
