package cluster

import (
	"fmt"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// How long another host may take to be well before one more is touched.
const wellWithin = time.Minute

// MembersWell is that the members of etcd but one are healthy: while a member is
// started again, the others have to carry on. Machines that are no member yet do
// not count.
func MembersWell(in Inputs, but string) (installer.Phase, error) {
	p := newPlanner(in)
	work, err := on(p.members, func(n topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{
			Name: "the member is healthy before " + but + " is touched", Until: wellWithin,
			Check: fmt.Sprintf("if [ -d %s/member ]; then %s endpoint health; fi", etcdData, etcdctl),
		}}, nil
	})
	ph := installer.Phase{ID: "04-etcd", Title: "etcd, the cluster's memory", Steps: []installer.Step{{
		Name: "others", Why: "One member at a time: of three, two have to be well.", Work: work,
	}}}
	return without(ph, but), err
}

// NodeWell is that a node is ready, as the API sees it.
func NodeWell(in Inputs, name string) installer.Phase {
	p := newPlanner(in)
	ctl := kubectl(p.masters[0])
	return installer.Phase{ID: "11-verify", Title: "Does it work?", Steps: []installer.Step{{
		Name: "node", Why: "The next one is not touched before this one is ready.",
		Work: []installer.Work{{Host: p.masters[0].Name, Items: []installer.Item{nodeReady(ctl, name)}}},
	}}}
}

// nodeReady waits for a node's condition.
func nodeReady(ctl, name string) installer.Wait {
	return installer.Wait{
		Name: "node " + name + " is ready", Until: 2 * time.Minute,
		Check: fmt.Sprintf(`said=$(%s get node %s -o jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status} {.message}{end}') && case $said in True*) ;; *) echo "$said"; exit 1 ;; esac`, ctl, name),
	}
}

// without is a phase but for one host.
func without(ph installer.Phase, host string) installer.Phase {
	var steps []installer.Step
	for _, st := range ph.Steps {
		var work []installer.Work
		for _, w := range st.Work {
			if w.Host != host {
				work = append(work, w)
			}
		}
		if st.Work = work; len(work) > 0 {
			steps = append(steps, st)
		}
	}
	ph.Steps = steps
	return ph
}

// RunsKubelet reports whether a node is one whose containers kubelet runs.
func RunsKubelet(in Inputs, name string) bool { return named(newPlanner(in).kubelets(), name) }

// KubeletVersion is the command that prints, on a master, what kubelet a node has
// told the API of; nothing, if it never did.
func KubeletVersion(in Inputs, name string) string {
	return fmt.Sprintf("%s get node %s -o jsonpath='{.status.nodeInfo.kubeletVersion}' --ignore-not-found", kubectl(newPlanner(in).masters[0]), name)
}

// ListNodes is the command that prints, on a master, the names of the nodes that
// the API knows.
func ListNodes(in Inputs) string {
	return kubectl(newPlanner(in).masters[0]) + " get nodes -o jsonpath='{range .items[*]}{.metadata.name} {end}'"
}
