package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"slipway/lab"
	"slipway/lab/bench/matrix"
	"slipway/topology"
)

// Running is a lab that is up, with the places in it where a bench's pods will be.
type Running struct {
	Lab        string
	Components topology.Components

	variant Variant
	pods    []benchPod
	nodes   int // that carry pods
}

// ErrNotMeasurable reports a lab that a bench has no place in.
var ErrNotMeasurable = errors.New("nothing can be measured in this lab")

// LookAt finds the places for a bench's pods in a running lab: the client and its
// neighbour on the first worker, the server on the next one of the same segment,
// and one more on the first worker behind a router. What the lab lacks is left out.
func LookAt(ctx context.Context, name string) (*Running, error) {
	st, err := lab.Settled(ctx, name)
	if err != nil {
		return nil, err
	}
	if !st.Complete || st.Snapshot == nil {
		return nil, fmt.Errorf("lab %s is only partly up (`slipway up` repairs it): %w", name, ErrNotMeasurable)
	}
	return placesIn(st.Snapshot)
}

func placesIn(s *topology.Snapshot) (*Running, error) {
	r := &Running{Lab: s.Lab, Components: s.Components, variant: Variant{Mode: s.Network.Mode}}
	if s.Network.Mode == topology.FlannelUDP {
		r.variant.UDP = s.Network.UDP.Implementation
	}
	var workers []topology.NodeState
	for _, n := range s.Nodes {
		if n.HasRole(topology.RoleWorker) && n.InDatapath() {
			workers = append(workers, n)
		}
	}
	if len(workers) == 0 {
		return nil, fmt.Errorf("lab %s has no worker: %w", s.Lab, ErrNotMeasurable)
	}
	first := workers[0]
	r.pods = []benchPod{{name: client, node: first.Name, path: matrix.Hairpin}, {name: "near", node: first.Name, path: matrix.SameNode}}
	for _, of := range []struct {
		name, path string
		same       bool
	}{{"server", matrix.OtherNode, true}, {"far", matrix.OtherRack, false}} {
		i := slices.IndexFunc(workers[1:], func(n topology.NodeState) bool {
			return (n.Interface.Segment == first.Interface.Segment) == of.same
		})
		if i >= 0 {
			r.pods = append(r.pods, benchPod{name: of.name, node: workers[1+i].Name, path: of.path})
		}
	}
	r.nodes = len(workers)
	return r, r.choosePorts(s)
}

// choosePorts gives every pod's service a node port that the lab's do not have,
// from the end of the range, as people name those at its beginning.
func (r *Running) choosePorts(s *topology.Snapshot) error {
	taken := map[int]bool{}
	for _, svc := range s.Services {
		if svc.Namespace == hereNamespace { // of a bench that was killed
			continue
		}
		taken[svc.HealthCheckNodePort] = true
		for _, p := range svc.Ports {
			taken[p.NodePort] = true
		}
	}
	port := s.Proxy.NodePorts.Last
	for i := range r.pods {
		for taken[port] {
			port--
		}
		if port < s.Proxy.NodePorts.First {
			return fmt.Errorf("lab %s has no node port left in %s: %w", s.Lab, s.Proxy.NodePorts, ErrNotMeasurable)
		}
		r.pods[i].nodePort = port
		port--
	}
	return nil
}

// Name is the report's variant: the mode, with the components where they are real:
// "flannel-vxlan+full".
func (r *Running) Name() string {
	if !r.Components.Real() {
		return r.variant.Name()
	}
	return r.variant.Name() + "+" + string(r.Components)
}

// String describes the lab in a report.
func (r *Running) String() string {
	return fmt.Sprintf("%s, as it runs: %s, components: %s, workers: %d", r.Lab, r.variant.Name(), cmp.Or(r.Components, topology.ComponentsNone), r.nodes)
}

// Paths are those that the lab has. A control between two places of one veth pair
// is none of them, as that would have to be put into the lab's machines.
func (r *Running) Paths() []string {
	has := []string{matrix.Loopback}
	for _, p := range r.pods {
		has = append(has, p.path)
		if p.path == matrix.OtherNode {
			has = append(has, matrix.NodeNode)
		}
	}
	return slices.DeleteFunc(Paths(), func(path string) bool { return !slices.Contains(has, path) })
}

// notes say how to read a report of a running lab.
func (r *Running) notes() []string {
	return []string{
		"Measured in the lab " + r.String() + ". Its own pods and whatever they did went on meanwhile; the bench's pods (" + r.placed() + ") were there for as long as it took.",
		"There is one network only, and no ratio to another: figures of two runs met different disturbances (`slipway bench compare` says how sure a difference is).",
		"CPU time is the whole machine's: generator, both ends, datapath, and the lab's other processes; the daemon's is of all processes that ran in the lab before and after the bench's pods came.",
	}
}

// placed says which pod is on which node.
func (r *Running) placed() string {
	var out []string
	for _, p := range r.pods {
		out = append(out, p.name+" on "+p.node)
	}
	return strings.Join(out, ", ")
}
