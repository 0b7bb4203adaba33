package site

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"slipway/installer"
	"slipway/internal/ordered"
	"slipway/topology"
)

// Installed is the cluster with all nodes on which something may have been done:
// those of the last apply, those that were about to join, and those of the file,
// whose word on how a node is reached goes before that of others.
func (s *Site) Installed() *topology.Cluster {
	c := *s.Cluster
	c.Spec.Nodes = slices.Clone(c.Spec.Nodes)
	more := slices.Clone(s.kept.Joining)
	if s.kept.Cluster != nil {
		more = append(more, s.kept.Cluster.Spec.Nodes...)
	}
	for _, n := range more {
		if !has(c.Spec.Nodes, n.Name) {
			c.Spec.Nodes = append(c.Spec.Nodes, n)
		}
	}
	return &c
}

func has(nodes []topology.Node, name string) bool {
	return slices.ContainsFunc(nodes, func(n topology.Node) bool { return n.Name == name })
}

// Remaining are the nodes that were not reset since something was done to them.
func (s *Site) Remaining() (out []string) {
	for _, n := range s.Installed().Spec.Nodes {
		if !slices.Contains(s.kept.Undone, n.Name) {
			out = append(out, n.Name)
		}
	}
	return out
}

// Reset takes back on some hosts what was done there, and says by host what that
// was. Those that hold the cluster's memory come last, so that the others' agents
// can sign off. Which hosts are done is remembered: others can follow another day,
// and with the last one the site has nothing installed any more.
func (s *Site) Reset(ctx context.Context, hosts map[string]installer.Host, tell func(host string, undone []string, err error)) error {
	j, err := s.Journal()
	if err != nil {
		return err
	}
	defer j.Close() //nolint:errcheck // every line has been written
	if err := errors.Join(s.begunReset(), j.Write(Entry{Run: "reset"})); err != nil {
		return err
	}
	var mu sync.Mutex
	undo := func(name string) error {
		undone, err := installer.Undo(ctx, hosts[name])
		mu.Lock()
		defer mu.Unlock()
		for _, item := range undone {
			_ = j.Write(Entry{Host: name, Phase: "undo", Item: item, Changed: true})
		}
		tell(name, undone, err)
		if err == nil {
			err = s.undone(name)
		}
		return err
	}
	var errs []error
	for _, group := range s.resetOrder(hosts) {
		errs = append(errs, installer.Each(group, undo))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if len(s.Remaining()) > 0 {
		return nil
	}
	return s.Gone()
}

// undone notes a node on which nothing is any more.
func (s *Site) undone(name string) error {
	s.kept.Joining = slices.DeleteFunc(s.kept.Joining, func(n topology.Node) bool { return n.Name == name })
	if !slices.Contains(s.kept.Undone, name) {
		s.kept.Undone = append(s.kept.Undone, name)
	}
	return s.write(siteFile, s.kept)
}

// begunReset notes that the cluster is not whole any more.
func (s *Site) begunReset() error {
	if s.kept.Cluster == nil {
		s.kept.Cluster, s.kept.Manifests = s.Cluster, s.Manifests
	}
	s.kept.Complete = false
	if err := s.write(siteFile, s.kept); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	return nil
}

// resetOrder are the hosts without the control plane or etcd, and then the others.
func (s *Site) resetOrder(hosts map[string]installer.Host) [][]string {
	var first, last []string
	for _, name := range ordered.Keys(hosts) {
		if slices.ContainsFunc(s.Installed().Spec.Nodes, func(n topology.Node) bool {
			return n.Name == name && (n.HasRole(topology.RoleControlPlane) || n.HasRole(topology.RoleEtcd))
		}) {
			last = append(last, name)
		} else {
			first = append(first, name)
		}
	}
	return [][]string{first, last}
}
