package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/site"
	"slipway/installer/ssh"
	"slipway/topology"
)

func (a *app) resetCmd() *cobra.Command {
	var o siteFlags
	var only []string
	var purge bool
	c := &cobra.Command{
		Use: "reset [-f FILE]", Short: "Undo on real hosts what was installed, and only that",
		Long: `Take back on every host what was done there, the last first: each host has records of
it. Files that were changed come back as they were. What the cluster's programs left in
the kernel (devices, rules, mounts, control groups) goes as well. Hosts that do not answer
are named, the others are reset, and the exit code is 5: the same command again, or with
--only, goes on with what is left. The site's authorities and journal stay on this machine
unless --purge is given; it takes effect when all hosts are reset.`,
		Example: `  slipway install reset --site prod
  slipway install reset --site prod --only node03     # it did not answer the last time
  slipway install reset -f cluster.yaml --purge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.readSite(o)
			if err != nil {
				return err
			}
			release, err := s.Lock()
			if err != nil {
				return err
			}
			defer release()
			if s, err = a.readSite(o); err != nil { // as it is now that nobody else changes it
				return err
			}
			return a.resetSite(cmd.Context(), s, o.ssh, only, purge)
		},
	}
	o.add(c, false)
	c.Flags().StringSliceVar(&only, "only", nil, "only this host; may be repeated")
	c.Flags().BoolVar(&purge, "purge", false, "forget the site's authorities, keys and journal, too")
	return c
}

// undoneOn is what was taken back on a host.
type undoneOn struct {
	Host  string   `json:"host"`
	State string   `json:"state"` // undone, stopped, not reached
	Items []string `json:"items"`
	Error string   `json:"error,omitempty"`
}

// picked is the cluster with some of its nodes alone; all, if none is named.
func picked(c *topology.Cluster, only []string) (*topology.Cluster, error) {
	if len(only) == 0 {
		return c, nil
	}
	out := *c
	out.Spec.Nodes = nil
	for _, n := range c.Spec.Nodes {
		if slices.Contains(only, n.Name) {
			out.Spec.Nodes = append(out.Spec.Nodes, n)
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(out.Spec.Nodes, func(n topology.Node) bool { return n.Name == name }) {
			return nil, usageError("--only %s: no node of the cluster is called that", name)
		}
	}
	return &out, nil
}

// resetSite resets the hosts that answer, and fails if others do not.
func (a *app) resetSite(ctx context.Context, s *site.Site, o sshFlags, only []string, purge bool) error {
	c, err := picked(s.Installed(), only)
	if err != nil {
		return err
	}
	opened, unreached := ssh.OpenAll(ctx, targets(c), a.sshOptions(o))
	defer ssh.CloseAll(opened)
	if len(opened) == 0 { // nothing was changed
		return unreached
	}
	hosts := map[string]installer.Host{}
	for name, h := range opened {
		hosts[name] = h
	}
	all := notReached(s, c, hosts, unreached)
	missing := len(all) > 0
	var mu sync.Mutex
	err = s.Reset(ctx, hosts, func(host string, undone []string, err error) {
		mu.Lock()
		defer mu.Unlock()
		u := undoneOn{Host: host, State: "undone", Items: undone}
		if err != nil {
			u.State, u.Error = "stopped", err.Error()
		}
		all = append(all, u)
	})
	slices.SortFunc(all, func(x, y undoneOn) int { return strings.Compare(x.Host, y.Host) })
	said := a.print(all, func(w io.Writer) error {
		var rows [][]string
		for _, u := range all {
			rows = append(rows, []string{u.Host, fmt.Sprint(len(u.Items)), u.State})
		}
		return printTable(w, []string{"HOST", "ITEMS", "STATE"}, rows)
	})
	left := s.Remaining()
	if err == nil && missing {
		err = unreached
	}
	if err != nil {
		return leftOver(ctx, errors.Join(err, said), fmt.Sprintf("left to reset: %s; `slipway install reset` again goes on", strings.Join(left, ", ")))
	}
	if len(left) > 0 {
		fmt.Fprintf(a.err, "slipway: left to reset: %s\n", strings.Join(left, ", "))
	} else if purge {
		said = errors.Join(said, s.Forget())
	}
	return said
}

// notReached are the hosts that did not answer and on which something is still.
func notReached(s *site.Site, c *topology.Cluster, hosts map[string]installer.Host, why error) (out []undoneOn) {
	left := s.Remaining()
	for _, n := range c.Spec.Nodes {
		if hosts[n.Name] != nil || !slices.Contains(left, n.Name) {
			continue
		}
		u := undoneOn{Host: n.Name, State: "not reached", Items: []string{}}
		var each interface{ Unwrap() []error }
		if errors.As(why, &each) {
			for _, err := range each.Unwrap() {
				if strings.HasPrefix(err.Error(), n.Name+": ") {
					u.Error = err.Error()
				}
			}
		}
		out = append(out, u)
	}
	return out
}
