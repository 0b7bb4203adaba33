package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/site"
)

func (a *app) installApplyCmd() *cobra.Command {
	var o siteFlags
	var unrehearsed bool
	var patience time.Duration
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Install the cluster of a file on real hosts",
		Long: `Carry the rehearsed plan out on the hosts of a cluster file. A plan that was not
rehearsed, or is not the one that was, is refused unless --unrehearsed is given. What
would stand in the way is looked for on all hosts first, and named before anything is
changed. A second time nothing changes; one that was cut off or failed goes on where it
stopped. What is done on each host is written there, and 'install reset' undoes it.`,
		Example: `  slipway install rehearse -f cluster.yaml && slipway install apply -f cluster.yaml
  slipway install apply -f cluster.yaml --bundle core.tgz     # hosts without a network
  slipway install apply -f cluster.yaml --phase 04-etcd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, done, err := a.lockSite(cmd.Context(), o)
			if err != nil {
				return err
			}
			defer done()
			p, part, err := a.planSite(cmd.Context(), s, o)
			if err != nil {
				return err
			}
			if err := s.CheckRehearsed(p); err != nil && !unrehearsed {
				return err
			}
			if gone := s.Dropped(); len(gone) > 0 {
				return usageError("%s: installed, and not in %s any more: `slipway install remove-node` takes nodes away", strings.Join(gone, ", "), o.file)
			}
			if err := a.preflightSite(cmd.Context(), s, p, o.check); err != nil {
				return err
			}
			return a.applySite(cmd.Context(), s, p, part.Patient(patience))
		},
	}
	o.add(c, true)
	o.check.add(c.Flags())
	c.Flags().DurationVar(&patience, "patience", 0, "wait at least so long for each thing that was started, as slow hosts need it")
	c.Flags().BoolVar(&o.check.noMesh, "no-mesh", false, "do not try the ports between the hosts first")
	c.Flags().BoolVar(&unrehearsed, "unrehearsed", false, "carry out a plan that was not rehearsed, or is another than the one that was")
	return c
}

// applySite carries a plan out and says what was done.
func (a *app) applySite(ctx context.Context, s *onSite, p *site.Planned, part installer.Plan) error {
	pr := &hostProgress{a.progress()}
	res, err := s.Apply(ctx, s.hosts, p, part, pr)
	pr.clear()
	if err != nil {
		done := 0
		if res != nil {
			done = res.Changed
		}
		var failed *installer.StepError
		if errors.As(err, &failed) && failed.Phase == "00-preflight" && done == 0 {
			return err // nothing was changed
		}
		return leftOver(ctx, err, fmt.Sprintf("site %s is partly done, %d items changed: `slipway install apply` again goes on, `slipway install reset` undoes it", s.Name, done))
	}
	return a.print(res, func(w io.Writer) error { return printApplied(w, res) })
}

func printApplied(w io.Writer, r *site.Result) error {
	var rows [][]string
	for _, ph := range r.Phases {
		rows = append(rows, []string{ph.ID, ph.Title, fmt.Sprint(ph.Changed), ms(ph.Took)})
	}
	if err := printTable(w, []string{"PHASE", "WHAT", "CHANGED", "TOOK"}, rows); err != nil {
		return err
	}
	what := "no changes"
	if r.Changed > 0 {
		var hosts []string
		for h, n := range r.ByHost {
			hosts = append(hosts, fmt.Sprintf("%s %d", h, n))
		}
		slices.Sort(hosts)
		what = fmt.Sprintf("%d items changed (%s)", r.Changed, strings.Join(hosts, ", "))
	}
	_, err := fmt.Fprintf(w, "%s: %s in %s\n", r.Cluster, what, ms(r.Took))
	return err
}

// hostProgress shows steps, and with --verbose each item that changed, by host.
type hostProgress struct{ *progress }

func (p *hostProgress) Step(ph installer.Phase, st installer.Step) {
	p.Phase(ph.ID+": "+st.Name, len(st.Work))
}

func (p *hostProgress) Event(e installer.Event) {
	switch {
	case e.Item == "":
		p.progress.Step()
	case e.Before != e.Want && p.verbose: // changed, or waited for
		p.note(fmt.Sprintf("%s: %s", e.Host, e.Item))
	}
}

func (a *app) diffCmd() *cobra.Command {
	var o siteFlags
	c := &cobra.Command{
		Use: "diff [-f FILE]", Short: "Compare real hosts with the cluster file and with what was rehearsed",
		Long: `Compare the hosts with the plan that follows from the cluster file, and the plan with
the one that was rehearsed last: files, units, settings, programs, routes and rules of
the network, and certificates that soon expire. Exit code 1 says that something differs.`,
		Example: `  slipway install diff -f cluster.yaml
  slipway install diff --site prod -o json`,
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
			d, err := s.Drift(cmd.Context(), s.hosts, p, part)
			if err != nil {
				return err
			}
			if err := a.print(d, func(w io.Writer) error { return printDrift(w, d) }); err != nil {
				return err
			}
			if !d.None() {
				return &silentError{exitNo}
			}
			return nil
		},
	}
	o.add(c, true)
	return c
}

func printDrift(w io.Writer, d *site.Drift) error {
	if err := printView(w, d.View); err != nil {
		return err
	}
	var rows [][]string
	for _, x := range d.Network {
		rows = append(rows, []string{x.Host, x.What, x.State})
	}
	for _, x := range d.Certificates {
		rows = append(rows, []string{x.Host, x.Path, x.State})
	}
	for _, x := range d.Rehearsal {
		rows = append(rows, []string{"", x, "since the rehearsal"})
	}
	if len(rows) == 0 {
		return nil
	}
	return printTable(w, []string{"HOST", "WHAT", "STATE"}, rows)
}
