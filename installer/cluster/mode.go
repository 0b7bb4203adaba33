package cluster

import (
	"bytes"
	"errors"
	"fmt"

	"slipway/installer"
	"slipway/topology"
)

// networkPhase is that of the agents and plugins of the pods' network.
const networkPhase = "09-network"

// IsNetwork reports whether a phase is that of the pods' network, in which nodes
// have to change together: those of two modes do not reach each other.
func IsNetwork(ph installer.Phase) bool { return ph.ID == networkPhase }

// ErrMore reports a cluster file that changes more than a command is for.
var ErrMore = errors.New("the file changes more than that")

// OnlyNodes returns [ErrMore] if two clusters differ in more than their nodes and
// the balancer before the API servers, which follows from how many there are.
func OnlyNodes(from, to Inputs) error {
	return differ(from, to, "who is in the cluster", func(c *topology.Cluster) {
		c.Spec.Nodes, c.Spec.ControlPlane.LoadBalancer = nil, topology.LoadBalancer{}
	})
}

// OnlyNetwork returns [ErrMore] if two clusters differ in more than their pods'
// network.
func OnlyNetwork(from, to Inputs) error {
	if a, b := from.Cluster.Spec.Network, to.Cluster.Spec.Network; a.PodCIDR != b.PodCIDR || a.ServiceCIDR != b.ServiceCIDR {
		return fmt.Errorf("the ranges of pods' and services' addresses: %w: they are for as long as the cluster is", ErrMore)
	}
	return differ(from, to, "the pods' network", func(c *topology.Cluster) { c.Spec.Network = topology.Network{} })
}

func differ(from, to Inputs, what string, take func(c *topology.Cluster)) error {
	var texts [2][]byte
	for i, in := range []Inputs{from, to} {
		c := *in.Cluster
		take(&c)
		var err error
		if texts[i], err = c.Marshal(); err != nil {
			return err
		}
	}
	if !bytes.Equal(texts[0], texts[1]) {
		return fmt.Errorf("%s: %w (`install apply` makes hosts follow a file)", what, ErrMore)
	}
	return nil
}

// newSandboxes has all pods of a node plugged in anew: kubelet makes a sandbox
// again that ended, with the plugin that is there then.
func newSandboxes(mode string) installer.Action {
	marker := "/run/slipway-sandboxes"
	return installer.Action{
		Name: "pods are plugged in by " + mode, Check: fmt.Sprintf("grep -qxF %s %s", mode, marker),
		Do: fmt.Sprintf(`%[1]s containers ls -q 'labels."io.cri-containerd.kind"==sandbox' | while read -r id; do %[1]s tasks kill -s SIGKILL "$id" 2>/dev/null || true; done
echo %[2]s >%[3]s`, ctr, mode, marker),
		Back: "rm -f " + marker,
	}
}

// Sandboxes are made again on all nodes, as their attachments are of one mode. ID
// tells this time from others.
func Sandboxes(in Inputs, id string) (installer.Phase, error) {
	p := newPlanner(in)
	work, err := on(p.kubelets(), func(topology.NodeState) ([]installer.Item, error) { return []installer.Item{newSandboxes(id)}, nil })
	return installer.Phase{ID: networkPhase, Title: "The pods' network", Steps: []installer.Step{{
		Name: "sandboxes", Why: "A pod's interface is of the mode that plugged it in: kubelet makes each sandbox again. Pods keep their names and get new addresses.", Work: work,
	}}}, err
}
