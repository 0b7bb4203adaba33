package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer/daytwo"
	"slipway/internal/ordered"
	"slipway/topology"
)

func (a *app) addNodeCmd() *cobra.Command {
	var o siteFlags
	c := &cobra.Command{
		Use: "add-node -f FILE [NODE...]", Short: "Let nodes join an installed cluster",
		Long: `Make an installed cluster the one of a file that has more nodes than it: workers, control
planes, members of etcd or load balancers. The file is the whole cluster, not the new
nodes alone. A member joins etcd as a learner and gets its vote when it has all the data;
the others follow one at a time. With names, the file may add those and no others.`,
		Example: `  slipway install add-node -f cluster.yaml             # whoever is new in it
  slipway install add-node -f cluster.yaml master03 --accept-new`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.file == "" {
				return usageError("-f names the file of the cluster as it is to be")
			}
			to, err := a.readCluster(o.file)
			if err != nil {
				return err
			}
			h, err := a.holdInstalled(cmd.Context(), o, "add-node")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			added, removed := nodesDiffer(h.Inputs.Cluster, to)
			switch {
			case len(removed) > 0:
				return usageError("the file lacks %s: `install remove-node` takes nodes away", strings.Join(removed, ", "))
			case len(args) > 0 && !sameNames(args, added):
				return usageError("new in the file: %s", orNone(added))
			}
			return a.changeNodes(cmd.Context(), h, to, true, daytwo.ChangeOptions{})
		},
	}
	o.addInstalled(c, "cluster file, with the nodes that are to join; - reads stdin")
	return c
}

func (a *app) removeNodeCmd() *cobra.Command {
	var o siteFlags
	var change daytwo.ChangeOptions
	c := &cobra.Command{
		Use: "remove-node [-f FILE] [NODE...]", Short: "Take nodes out of an installed cluster",
		Long: `Take nodes out of an installed cluster: their pods are drained, they leave etcd while the
rest keeps its majority, the API forgets them, and on the machines everything is undone
that was installed. The others follow one at a time. With -f, those nodes are meant that
the file lacks. --force goes on without nodes that do not answer or cannot be drained.`,
		Example: `  slipway install remove-node node02 --site prod
  slipway install remove-node master01 -L demo
  slipway install remove-node -f cluster.yaml
  slipway install remove-node node03 --site prod --force       # the machine is gone`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.file == "" && len(args) == 0 {
				return usageError("name the nodes, or give a file without them")
			}
			h, err := a.holdInstalled(cmd.Context(), o, "remove-node")
			if err != nil {
				return err
			}
			defer func() { h.close() }()
			var to *topology.Cluster
			if o.file != "" {
				if to, err = a.readCluster(o.file); err != nil {
					return err
				}
			} else if to, err = without(h.Inputs.Cluster, h.Inputs.Snapshot, args); err != nil {
				return err
			}
			added, removed := nodesDiffer(h.Inputs.Cluster, to)
			switch {
			case len(added) > 0:
				return usageError("the file adds %s: `install add-node` lets nodes join", strings.Join(added, ", "))
			case len(args) > 0 && !sameNames(args, removed):
				return usageError("not in the file: %s", orNone(removed))
			}
			return a.changeNodes(cmd.Context(), h, to, false, change)
		},
	}
	o.addInstalled(c, "cluster file without the nodes that are to leave; - reads stdin")
	c.Flags().BoolVar(&change.Force, "force", false, "also if a node does not answer or cannot be drained, or etcd loses its majority")
	c.Flags().DurationVar(&change.Drain, "drain", daytwo.DrainPatience, "how long the pods of a node may take to go")
	return c
}

// changeNodes makes a cluster follow a file and says what was done.
func (a *app) changeNodes(ctx context.Context, h *installedCluster, file *topology.Cluster, join bool, o daytwo.ChangeOptions) error {
	began := time.Now()
	inputs := h.leaving
	if join {
		inputs = h.joining
	}
	to, err := inputs(ctx, file)
	if err != nil {
		return err
	}
	res, err := h.Change(ctx, to, o)
	if err == nil {
		err = h.became(ctx, to)
	}
	if err != nil {
		return h.halfChanged(ctx, err)
	}
	return a.print(res, func(w io.Writer) error {
		for _, n := range res.Added {
			fmt.Fprintf(w, "%s joined\n", n)
		}
		for _, n := range res.Removed {
			if slices.Contains(res.Left, n) {
				fmt.Fprintf(w, "%s left; what was installed on it is there still, as it did not answer\n", n)
				continue
			}
			fmt.Fprintf(w, "%s left, %s undone on it\n", n, plural(len(res.Undone[n]), "item"))
		}
		for _, n := range ordered.Keys(res.Undone) {
			if !slices.Contains(res.Removed, n) {
				fmt.Fprintf(w, "%s: %s no longer wanted\n", n, plural(len(res.Undone[n]), "item"))
			}
		}
		_, err := fmt.Fprintf(w, "cluster %s: %s in %s\n", h.name, plural(len(file.Spec.Nodes), "node"), ms(time.Since(began)))
		return err
	})
}

func nodesDiffer(from, to *topology.Cluster) (added, removed []string) {
	names := func(c *topology.Cluster) (out []string) {
		for _, n := range c.Spec.Nodes {
			out = append(out, n.Name)
		}
		return out
	}
	old, now := names(from), names(to)
	for _, n := range now {
		if !slices.Contains(old, n) {
			added = append(added, n)
		}
	}
	for _, n := range old {
		if !slices.Contains(now, n) {
			removed = append(removed, n)
		}
	}
	return added, removed
}

// without is a cluster file without some nodes; the others keep their addresses.
func without(c *topology.Cluster, s *topology.Snapshot, names []string) (*topology.Cluster, error) {
	out := *c
	out.Spec.Nodes = nil
	left := slices.Clone(names)
	for _, n := range c.Spec.Nodes {
		if i := slices.Index(left, n.Name); i >= 0 {
			left = slices.Delete(left, i, i+1)
			continue
		}
		for _, was := range s.Nodes {
			if was.Name == n.Name {
				n.Address = was.Interface.Prefix.Addr()
			}
		}
		out.Spec.Nodes = append(out.Spec.Nodes, n)
	}
	if len(left) > 0 {
		return nil, usageError("no node of the cluster is called %s", strings.Join(left, ", "))
	}
	return &out, nil
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "no node"
	}
	return strings.Join(names, ", ")
}
