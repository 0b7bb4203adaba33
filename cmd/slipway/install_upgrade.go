package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/daytwo"
	"slipway/internal/digest"
	"slipway/topology"
)

func (a *app) upgradeCmd() *cobra.Command {
	var o siteFlags
	var programs []string
	var dry bool
	c := &cobra.Command{
		Use: "upgrade", Short: "Bring other versions of the components to an installed cluster",
		Long: `Bring the components of this slipway's catalogue to a cluster that was installed with
others: component by component in the order of the installation, one host at a time. What
was started again has to be well before the next host is touched; the first that is not
ends the upgrade, with what it said. Run again, it goes on from there.
--program takes a program from a file instead of the catalogue. The next apply or upgrade
without it goes back to the catalogue's, unless the cluster file names it (spec.programs).`,
		Example: `  slipway install upgrade --site prod --dry-run
  slipway install upgrade --site prod
  slipway install upgrade -L demo --program etcd=./etcd`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			other, err := given(programs)
			if err != nil {
				return err
			}
			h, err := a.holdInstalled(cmd.Context(), o, "upgrade")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			for name := range other {
				if runs, err := h.Runs(name); err != nil {
					return err
				} else if !runs {
					return usageError("the cluster runs no program %s", name)
				}
			}
			to := h.With(other)
			list, err := h.Outdated(cmd.Context(), to)
			if err != nil {
				return err
			}
			if !dry {
				if err := h.Upgrade(cmd.Context(), to); err != nil {
					return h.halfChanged(cmd.Context(), err)
				}
				if err := h.became(cmd.Context(), to); err != nil {
					return h.halfChanged(cmd.Context(), err)
				}
			}
			if !dry {
				a.forOneTime(other)
			}
			return a.print(list, func(w io.Writer) error { return printPrograms(w, list, dry) })
		},
	}
	o.addInstalled(c, "cluster file of the cluster that is meant")
	c.Flags().StringSliceVar(&programs, "program", nil, "NAME=FILE, a program from a file; may be repeated")
	c.Flags().BoolVar(&dry, "dry-run", false, "only say which programs are others, and where")
	return c
}

// given are programs from files.
func given(list []string) (map[string]installer.Blob, error) {
	out := map[string]installer.Blob{}
	for _, text := range list {
		name, path, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return nil, usageError("--program %q is not NAME=FILE", text)
		}
		sum, size, err := digest.File(path)
		if err != nil {
			return nil, &coded{exitUsage, err}
		}
		out[name] = installer.Blob{Sum: sum, Size: size, Path: path}
	}
	return out, nil
}

// forOneTime says how programs from files stay.
func (a *app) forOneTime(programs map[string]installer.Blob) {
	for _, name := range slices.Sorted(maps.Keys(programs)) {
		b := programs[name]
		fmt.Fprintf(a.err, "slipway: warning: the next apply or upgrade brings the catalogue's %s back, unless the cluster file has spec.programs: [{name: %s, file: %s, sha256: %s}]\n", name, name, b.Path, b.Sum)
	}
}

func printPrograms(w io.Writer, list []daytwo.Program, dry bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "all hosts have these programs already")
		return err
	}
	var rows [][]string
	for _, p := range list {
		rows = append(rows, []string{p.Host, p.Path, fmt.Sprintf("%.12s", p.Have), fmt.Sprintf("%.12s", p.Want)})
	}
	if err := printTable(w, []string{"HOST", "PROGRAM", "HAD", map[bool]string{true: "WOULD HAVE", false: "HAS"}[dry]}, rows); err != nil {
		return err
	}
	return nil
}

func (a *app) installModeCmd() *cobra.Command {
	var o siteFlags
	c := &cobra.Command{
		Use: "mode MODE", Short: "Move an installed cluster on real hosts to another network mode",
		Long: `Move an installed cluster to another mode of its pods' network. The control plane follows
one host at a time; the network's agents change on all nodes together, as those of two
modes do not reach each other; then every pod is plugged in anew, and keeps its name but
not its address. For labs, 'slipway mode' also measures the gap.`,
		Example: `  slipway install mode calico-bgp --site prod
  slipway install mode flannel-host-gw -f cluster.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := a.holdInstalled(cmd.Context(), o, "mode")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			c := *h.Inputs.Cluster
			if err := withMode(&c, args[0]); err != nil {
				return err
			}
			if h.lab {
				return usageError("%s is a lab: `slipway mode %s` switches it", h.name, args[0])
			}
			to, err := h.joining(cmd.Context(), &c)
			if err != nil {
				return err
			}
			res, err := h.SwitchMode(cmd.Context(), to)
			if err == nil {
				err = h.became(cmd.Context(), to)
			}
			if err != nil {
				return h.halfChanged(cmd.Context(), err)
			}
			return a.print(res, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "cluster %s: %s -> %s\n", h.name, h.Inputs.Cluster.Spec.Network.Mode, topology.ModeName(args[0]))
				return err
			})
		},
	}
	o.addInstalled(c, "cluster file of the cluster that is meant")
	return c
}
