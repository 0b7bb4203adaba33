package daytwo

import (
	"context"
	"slices"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/topology"
)

// roll brings a plan about on a cluster that runs: phase by phase, and within a
// phase one host at a time, of those where something is another. A phase's own
// waits tell whether a host is well before the next is touched; the first that is
// not ends it. What is there already stays as it is, so that it goes on from
// where it stopped.
func (c *Cluster) roll(ctx context.Context, in cluster.Inputs, plan installer.Plan) error {
	e := c.engine()
	for _, ph := range plan.Phases {
		states, err := e.Look(ctx, installer.Plan{Phases: []installer.Phase{ph}})
		if err != nil {
			return err
		}
		differs := map[string]bool{}
		for _, s := range states {
			differs[s.Host] = differs[s.Host] || s.Differs()
		}
		for _, host := range c.knownFirst(ph.Hosts()) {
			if !differs[host] {
				continue
			}
			if err := c.turn(ctx, e, in, ph.On(host), host); err != nil {
				return err
			}
		}
	}
	return nil
}

// knownFirst has hosts that are in the cluster go before those that join: who was
// alone so far has to know of others before these are there.
func (c *Cluster) knownFirst(hosts []string) []string {
	joins := func(host string) int {
		if slices.ContainsFunc(c.Inputs.Snapshot.Nodes, func(n topology.NodeState) bool { return n.Name == host }) {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(hosts, func(a, b string) int { return joins(a) - joins(b) })
	return hosts
}

// phases in which a node's containers or its network may be started again.
var touchNodes = []string{"02-runtime", "08-nodes", "09-network"}

// turn is one host's turn in a phase.
func (c *Cluster) turn(ctx context.Context, e *installer.Engine, in cluster.Inputs, ph installer.Phase, host string) error {
	phases := []installer.Phase{ph}
	if ph.ID == "04-etcd" && c.memberWell(ctx, host) {
		others, err := cluster.MembersWell(in, host)
		if err != nil {
			return err
		}
		phases = []installer.Phase{others, ph}
	}
	if slices.Contains(touchNodes, ph.ID) && cluster.RunsKubelet(in, host) && c.joined(ctx, in, host) {
		phases = append(phases, cluster.NodeWell(in, host))
	}
	return e.Apply(ctx, installer.Plan{Phases: phases})
}

// joined reports whether a machine is a node that has been ready once: one that is
// on its way to become one is waited for at the end.
func (c *Cluster) joined(ctx context.Context, in cluster.Inputs, host string) bool {
	h := c.Hosts[cluster.Masters(in)[0].Name]
	if h == nil {
		return false
	}
	out, err := run(ctx, h, cluster.KubeletVersion(in, host))
	return err == nil && len(out) > 0
}

// memberWell reports whether a host's member of etcd is healthy. One that is down
// takes nobody's majority with it when it is touched.
func (c *Cluster) memberWell(ctx context.Context, host string) bool {
	_, err := run(ctx, c.Hosts[host], cluster.MemberHealth())
	return err == nil
}
