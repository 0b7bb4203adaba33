package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"

	"github.com/spf13/cobra"

	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/topology"
)

// heapBeforeGC is how far, in bytes, the heap of an `up` grows before garbage is
// collected at all; a lab of thousands of pods needs about half of it.
const heapBeforeGC = 1 << 30

func (a *app) upCmd() *cobra.Command {
	var o struct {
		file, mode, components, cni string
		timings, keep, quiet        bool
	}
	c := &cobra.Command{
		Use:   "up [-f FILE]",
		Short: "Create a lab from a cluster file, or make a running one follow it",
		Long: `Create a lab, or change a running one so that it equals the file again: what
differs is changed, what is damaged is repaired, what is gone from the file is
removed. A second run changes nothing. A new lab that fails or is interrupted is
taken down again. Without -f, a lab that is up is repaired, or a default one of
one control-plane and two workers is made.`,
		Example: `  slipway up                                   # three nodes, flannel-vxlan
  slipway up -f examples/flannel-3node.yaml
  slipway up -f examples/two-racks.yaml --mode calico-bgp --timings
  slipway up --components light                # real etcd, API, controllers, scheduler, kube-proxy
  cat cluster.yaml | slipway up -f -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := a.upOptions(o.file, o.mode, o.components, o.cni)
			if err != nil {
				return err
			}
			opts.KeepFailed = o.keep
			if isReal(opts.Cluster) {
				return a.upReal(cmd.Context(), kube.Options{UpOptions: opts}, o.timings, o.quiet)
			}
			// A command that is over in a moment has better things to do than to
			// collect garbage.
			debug.SetGCPercent(-1)
			debug.SetMemoryLimit(heapBeforeGC)
			p := a.progress()
			opts.Progress = p
			res, err := lab.Up(cmd.Context(), opts)
			p.clear()
			if err != nil {
				return a.halfDone(cmd.Context(), opts.Cluster.Metadata.Name, err)
			}
			return a.print(res, func(w io.Writer) error { return printResult(w, res, o.timings, o.quiet) })
		},
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "cluster file; - reads stdin")
	f.StringVar(&o.mode, "mode", "", "datapath mode instead of the file's")
	f.StringVar(&o.components, "components", "", "how much of Kubernetes really runs in the nodes: none, light (all but kubelet and containers) or full")
	f.StringVar(&o.cni, "cni", "", "how pods are plugged in: in-process (default) or exec, the plugin binary through libcni")
	f.BoolVar(&o.timings, "timings", false, "print where the time went")
	f.BoolVar(&o.keep, "keep-failed", false, "leave a new lab that could not be finished as it is")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "do not list the changes")
	return c
}

func (a *app) upOptions(file, mode, components, cni string) (lab.UpOptions, error) {
	var o lab.UpOptions
	var err error
	if file != "" {
		o, err = a.fromFile(file, components)
	} else {
		o, err = a.runningOrDefault()
		if err == nil && components != "" {
			err = withComponents(o.Cluster, components)
		}
	}
	if err != nil {
		return o, err
	}
	if mode != "" {
		if err := withMode(o.Cluster, mode); err != nil {
			return o, err
		}
	}
	switch lab.CNIPath(cni) {
	case "", lab.CNIInProcess, lab.CNIExec:
		o.CNI = lab.CNIPath(cni)
	default:
		return o, usageError("%w, not %q", errBadCNI, cni)
	}
	return o, nil
}

// fromFile reads a cluster file, and its manifests as what they are for: objects
// to plan with, or files for the API.
func (a *app) fromFile(file, components string) (o lab.UpOptions, err error) {
	if o.Cluster, err = a.readCluster(file); err != nil {
		return o, err
	}
	if a.lab != "" {
		o.Cluster.Metadata.Name = a.lab
		if err := validName(o.Cluster); err != nil {
			return o, err
		}
	}
	if components != "" {
		if err := withComponents(o.Cluster, components); err != nil {
			return o, err
		}
	}
	if isReal(o.Cluster) {
		o.Objects = &topology.Objects{}
		o.Manifests, err = a.loadFiles(file, o.Cluster)
		return o, err
	}
	o.Objects, err = a.loadObjects(file, o.Cluster)
	return o, err
}

// withComponents checks and sets a cluster's components as --components asks.
func withComponents(c *topology.Cluster, components string) error {
	all := []topology.Components{topology.ComponentsNone, topology.ComponentsLight, topology.ComponentsFull}
	if c.Spec.Components = topology.Components(components); !slices.Contains(all, c.Spec.Components) {
		return usageError("components %q is not one of %s", components, join(all))
	}
	if err := topology.Validate(c).Err(); err != nil {
		return &coded{exitUsage, fmt.Errorf("components %s: %w", components, err)}
	}
	return nil
}

func validName(c *topology.Cluster) error {
	if err := topology.Validate(c).Err(); err != nil {
		return &coded{exitUsage, fmt.Errorf("lab name %q: %w", c.Metadata.Name, err)}
	}
	return nil
}

// runningOrDefault is the cluster of the lab that is up, or a default one.
func (a *app) runningOrDefault() (o lab.UpOptions, err error) {
	name := a.lab
	if name == "" {
		names, err := lab.Names()
		if err != nil {
			return o, err
		}
		if len(names) > 1 {
			_, err := a.labName()
			return o, err
		}
		name = "demo"
		if len(names) == 1 {
			name = names[0]
		}
	}
	st, err := lab.ReadState(name)
	if err == nil {
		return lab.UpOptions{Cluster: st.Cluster, Objects: st.FromFile, Manifests: st.Manifests}, nil
	}
	if !errors.Is(err, lab.ErrNoLab) {
		return o, err
	}
	o.Objects = &topology.Objects{}
	o.Cluster, err = defaultCluster(name)
	return o, err
}

// leftError is a command that was cut off or failed and left something that
// running it again, or another command, finishes.
type leftError struct {
	err  error
	said string
}

func (e *leftError) Error() string { return e.err.Error() + "\n" + e.said }
func (e *leftError) Unwrap() error { return e.err }

// halfDone gives an error the exit code that says what it left behind.
func (a *app) halfDone(ctx context.Context, name string, err error) error {
	if _, e := lab.ReadState(name); e != nil {
		return err
	}
	return leftOver(ctx, err, fmt.Sprintf("lab %s is partly done: `slipway up` again repairs it, `slipway down %s` removes it", name, name))
}

// leftOver adds what a command left, unless it was refused before it began.
func leftOver(ctx context.Context, err error, said string) error {
	left := &leftError{err, said}
	switch exitCode(ctx, err) {
	case exitInterrupted:
		return left
	case exitNo:
		return &coded{exitPartial, left}
	default:
		return err
	}
}

func printResult(w io.Writer, r *lab.Result, timings, quiet bool) error {
	if !r.Created && !quiet {
		for _, c := range r.Changes {
			fmt.Fprintf(w, "%-7s %-12s %s\n", c.Action, c.Node, c.Command)
		}
	}
	switch {
	case r.Created:
		fmt.Fprintf(w, "lab %s is up: %s, %s, %s, %s in %s\n", r.Lab, r.Mode, plural(r.Nodes, "node"), plural(r.Pods, "pod"), plural(r.Services, "service"), ms(r.Took))
	case len(r.Changes) == 0:
		fmt.Fprintf(w, "lab %s: no changes (%s)\n", r.Lab, ms(r.Took))
	default:
		fmt.Fprintf(w, "lab %s: %s in %s\n", r.Lab, plural(len(r.Changes), "change"), ms(r.Took))
	}
	for _, k := range ordered.Keys(r.Implementations) {
		fmt.Fprintf(w, "  %s: %s\n", k, r.Implementations[k])
	}
	if timings {
		for _, t := range r.Timings {
			fmt.Fprintf(w, "  %-10s %s\n", t.Phase, ms(t.Took))
		}
	}
	return nil
}

func (a *app) downCmd() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down [NAME...] [--all]",
		Short: "Take labs down, however they were left",
		Long: `Take labs down: end their processes, remove their namespaces and files. It works
from the journal and from the marks that everything of a lab carries, after any
crash, and touches nothing that is not the lab's. It can be repeated.`,
		Example: "  slipway down\n  slipway down demo other\n  slipway down --all",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			names, _ := lab.Names()
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.down(cmd.Context(), args, all) },
	}
	c.Flags().BoolVar(&all, "all", false, "take all labs down")
	return c
}

func (a *app) down(ctx context.Context, names []string, all bool) error {
	if all {
		if len(names) > 0 {
			return usageError("--all takes no names")
		}
		err := lab.Sweep(ctx)
		if err != nil {
			return err
		}
		if names, err = lab.Names(); err != nil {
			return err
		}
	} else if len(names) == 0 {
		n, err := a.labName()
		if err != nil {
			return err
		}
		names = []string{n}
	}
	results := []*lab.DownResult{}
	var errs []error
	for _, n := range names {
		r, err := lab.Down(ctx, n)
		switch {
		case errors.Is(err, lab.ErrNoLab):
			errs = append(errs, err)
		case err != nil:
			errs = append(errs, leftOver(ctx, err, fmt.Sprintf("lab %s is partly down: `slipway down %s` again finishes it", n, n)))
		default:
			results = append(results, r)
		}
	}
	err := errors.Join(errs...)
	if len(results) == 0 && err != nil {
		return err
	}
	return errors.Join(err, a.printDown(results, all))
}

func (a *app) printDown(results []*lab.DownResult, all bool) error {
	return a.print(results, func(w io.Writer) error {
		for _, r := range results {
			fmt.Fprintf(w, "lab %s is down: %s and %s removed in %s\n", r.Lab, plural(r.Namespaces, "namespace"), plural(len(r.Ended), "process"), ms(r.Took))
			for _, h := range r.Holding {
				fmt.Fprintf(w, "  left alone: process %d (%s) stands in a namespace of the lab, which lives until it ends\n", h.PID, h.Command)
			}
		}
		if len(results) == 0 && all {
			fmt.Fprintln(w, "no lab is up")
		}
		return nil
	})
}
