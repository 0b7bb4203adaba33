package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// Changed is what two cluster files differ in, as to who is in the cluster.
type Changed struct {
	Added, Removed []string // machines
	// Former are those that were nodes of the cluster and are none any more: removed
	// ones, and those that only run etcd or balance from now on.
	Former []string
	// Leaving are those that no longer run etcd, removed ones among them.
	Leaving []topology.NodeState
}

// Changes compares the inputs of a cluster with those that it is to have. What
// cannot be done without taking the cluster down is an error.
func Changes(from, to Inputs) (Changed, error) {
	var c Changed
	before, after := newPlanner(from), newPlanner(to)
	if a, b := from.Cluster.Metadata.Name, to.Cluster.Metadata.Name; a != b {
		return c, fmt.Errorf("the file is of cluster %s, not of %s", b, a)
	}
	old := map[string]topology.NodeState{}
	for _, n := range before.allNodes() {
		old[n.Name] = n
	}
	for _, n := range after.allNodes() {
		was, known := old[n.Name]
		switch {
		case !known:
			c.Added = append(c.Added, n.Name)
		case address(was) != address(n):
			return c, fmt.Errorf("node %s has the address %s, and %s in the file: remove it and add it again", n.Name, address(was), address(n))
		}
		delete(old, n.Name)
	}
	for _, n := range before.allNodes() {
		if _, gone := old[n.Name]; gone {
			c.Removed = append(c.Removed, n.Name)
		}
	}
	for _, n := range before.datapath() {
		if !named(after.datapath(), n.Name) {
			c.Former = append(c.Former, n.Name)
		}
	}
	for _, m := range before.members {
		if !after.isMember(m) {
			c.Leaving = append(c.Leaving, m)
		}
	}
	stays := func(a, b []topology.NodeState) bool {
		return len(a) == 0 || slices.ContainsFunc(a, func(n topology.NodeState) bool { return named(b, n.Name) })
	}
	switch {
	case !stays(before.members, after.members):
		return c, errors.New("no member of etcd stays: all that the API knows would be lost")
	case !stays(before.masters, after.masters):
		return c, errors.New("no node of the control plane stays: nobody could let others in")
	}
	return c, nil
}

// QuorumError says that etcd would lose its majority.
type QuorumError struct {
	Leaving, Dead []string
	Members       int // that there are afterwards
	Alive         int // of those
}

// Error says what can be done instead.
func (e *QuorumError) Error() string {
	s := fmt.Sprintf("without %s etcd has %d members of which %d live, and needs %d", strings.Join(e.Leaving, ", "), e.Members, e.Alive, e.Members/2+1)
	if len(e.Dead) > 0 {
		s += fmt.Sprintf(": bring %s back, or remove that first", strings.Join(e.Dead, ", "))
	}
	return s
}

// Quorum returns a [QuorumError] if members that leave take etcd's majority with
// them. Alive are those members that answer now.
func Quorum(to Inputs, leaving []topology.NodeState, alive map[string]bool) error {
	if len(leaving) == 0 {
		return nil
	}
	e := &QuorumError{}
	for _, m := range leaving {
		e.Leaving = append(e.Leaving, m.Name)
	}
	for _, m := range newPlanner(to).members {
		e.Members++
		if alive[m.Name] {
			e.Alive++
		} else {
			e.Dead = append(e.Dead, m.Name)
		}
	}
	if e.Alive > e.Members/2 {
		return nil
	}
	return e
}

// MemberHealth is the command by which a member says whether it is healthy.
func MemberHealth() string { return etcdctl + " --command-timeout 5s endpoint health" }

// leaveID is the phase in which nodes leave.
const leaveID = "30-leave"

// Drain takes the pods off nodes that leave, and lets no new ones come. It works
// from a master that stays.
func Drain(to Inputs, names []string, patience time.Duration) installer.Phase {
	first := newPlanner(to).masters[0]
	ctl := kubectl(first)
	work := installer.Work{Host: first.Name}
	for _, n := range names {
		work.Items = append(work.Items, installer.Action{
			Name: "node " + n + " is drained",
			Check: fmt.Sprintf(`there=$(%[1]s get node %[2]s --ignore-not-found -o jsonpath='{.metadata.name} {.spec.unschedulable}')
[ -z "$there" ] || { [ "$there" = '%[2]s true' ] && pods=$(%[1]s get pods -A --field-selector spec.nodeName=%[2]s -o jsonpath='{range .items[*]}{.metadata.ownerReferences[0].kind}.{"\n"}{end}') && ! printf '%%s\n' "$pods" | grep -v '^DaemonSet[.]$\|^Node[.]$\|^$'; }`, ctl, n),
			Do: fmt.Sprintf("%s drain %s --ignore-daemonsets --delete-emptydir-data --force --timeout=%ds", ctl, n, int(patience.Seconds())),
		})
	}
	return installer.Phase{ID: leaveID, Title: "Nodes leave", About: "Pods go first, then who knows the node, then what is on it.", Steps: []installer.Step{{
		Name: "drain", Why: "Controllers make the pods again elsewhere, as far as disruption budgets allow.", Work: []installer.Work{work},
	}}}
}

// Quiet stops, on nodes that leave or lose a role, what must not be there twice:
// controllers and schedulers, as one that is alone asks nobody whether it leads, and
// who holds the virtual address, as who knows of no other takes it.
func Quiet(from, to Inputs) installer.Phase {
	before, after := newPlanner(from), newPlanner(to)
	var work []installer.Work
	stop := func(had, have []topology.NodeState, units ...string) {
		for _, n := range had {
			if !named(have, n.Name) {
				work = append(work, installer.Work{Host: n.Name, Items: stopped(units...)})
			}
		}
	}
	stop(before.masters, after.masters, "kube-scheduler.service", "kube-controller-manager.service")
	if before.external() {
		stop(before.balancers(), after.balancers(), vipUnit)
	}
	return installer.Phase{ID: leaveID, Title: "Nodes leave", Steps: []installer.Step{{
		Name: "quiet", Why: "Before the others hear that they are alone: of what leads there must not be two.", Work: work,
	}}}
}

// LeaveEtcd makes members known no more. It works from a member that stays.
func LeaveEtcd(by string, gone []topology.NodeState) installer.Phase {
	work := installer.Work{Host: by}
	ctl := strings.Replace(etcdctl, " --endpoints", " --command-timeout 10s --endpoints", 1)
	for _, n := range gone {
		id := fmt.Sprintf(`%s member list | awk -F', ' '$4 == "%s" {print $1}'`, ctl, peerURL(n))
		work.Items = append(work.Items, installer.Action{
			Name:  n.Name + " is no member of etcd",
			Check: fmt.Sprintf(`list=$(%s member list) && ! printf '%%s\n' "$list" | grep -qF ', %s, '`, ctl, peerURL(n)),
			Do: fmt.Sprintf(`tries=0
while id=$(%[1]s) && [ -n "$id" ]; do
	said=$(%[2]s member remove "$id" 2>&1) || { tries=$((tries + 1)); [ $tries -lt 20 ] || { printf '%%s\n' "$said" >&2; exit 1; }; sleep 1; }
done`, id, ctl),
		})
	}
	return installer.Phase{ID: leaveID, Title: "Nodes leave", Steps: []installer.Step{{
		Name: "membership", Why: "Before it stops: a member that is only silent counts for the majority still.", Work: []installer.Work{work},
	}}}
}

// Forget removes nodes from the API.
func Forget(to Inputs, names []string) installer.Phase {
	first := newPlanner(to).masters[0]
	ctl := kubectl(first)
	work := installer.Work{Host: first.Name}
	for _, n := range names {
		work.Items = append(work.Items, installer.Action{
			Name:  "the API does not know " + n,
			Check: fmt.Sprintf(`there=$(%s get node %s --ignore-not-found -o name) && [ -z "$there" ]`, ctl, n),
			Do:    fmt.Sprintf("%s delete node %s --ignore-not-found --timeout=60s", ctl, n),
		})
	}
	return installer.Phase{ID: leaveID, Title: "Nodes leave", Steps: []installer.Step{{
		Name: "node", Why: "Its range of pod addresses is free again, and others drop their routes there.", Work: []installer.Work{work},
	}}}
}
