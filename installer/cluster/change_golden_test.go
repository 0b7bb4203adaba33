package cluster

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/diff"

	"slipway/installer"
	"slipway/topology"
)

// leaver is a cluster whose machines each have one part of it: a control plane, a
// member of etcd, a balancer with the virtual address, and a worker can go.
const leaver = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: full
  controlPlane: {loadBalancer: {mode: external, software: haproxy, vip: 192.168.233.100}}
  nodes:
    - {name: master01, roles: [control-plane, etcd], address: 192.168.233.10}
    - {name: master02, roles: [control-plane, etcd], address: 192.168.233.11}
    - {name: etcd03, roles: [etcd], address: 192.168.233.12}
    - {name: lb01, roles: [load-balancer], address: 192.168.233.20}
    - {name: lb02, roles: [load-balancer], address: 192.168.233.21}
    - {name: node01, roles: [worker], address: 192.168.233.30}
    - {name: node02, roles: [worker], address: 192.168.233.31}
`

// leave are the inputs of a cluster without one of its nodes.
func leave(t *testing.T, in Inputs, name string) Inputs {
	t.Helper()
	c := *in.Cluster
	c.Spec.Nodes = nil
	for _, n := range in.Cluster.Spec.Nodes {
		if n.Name != name {
			c.Spec.Nodes = append(c.Spec.Nodes, n)
		}
	}
	in.Cluster = &c
	_, had, err := topology.Allocate(inputs(t, leaver).Cluster, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if in.Snapshot, _, err = topology.Allocate(&c, &topology.Objects{}, had); err != nil {
		t.Fatal(err)
	}
	return in
}

// What is done when a node leaves, by what it was: who is asked, and what follows
// on those that stay. On the node itself all records are followed back.
func TestGoldenLeave(t *testing.T) {
	for _, name := range []string{"node02", "master01", "etcd03", "lb01"} {
		t.Run(name, func(t *testing.T) {
			from := inputs(t, leaver)
			to := leave(t, from, name)
			if _, err := to.PKI.Ensure(Certificates(to)); err != nil {
				t.Fatal(err)
			}
			ch, err := Changes(from, to)
			if err != nil {
				t.Fatal(err)
			}
			before, err := Plan(from)
			if err != nil {
				t.Fatal(err)
			}
			after, err := Plan(to)
			if err != nil {
				t.Fatal(err)
			}
			text := said(Drain(to, ch.Former, 5*time.Minute)) + said(Quiet(from, to)) + "## the others follow, one at a time\n" + follow(before, after, name, false)
			if len(ch.Leaving) > 0 {
				text += said(LeaveEtcd(Members(to)[0].Name, ch.Leaving))
			}
			text += fmt.Sprintf("## everything is undone on %s\n", name) + "## no longer wanted on those that stay\n" + follow(before, after, name, true) + said(Forget(to, ch.Former))
			compare(t, "testdata/leave-"+name+".txt", text)
		})
	}
}

// What is done to bring a snapshot back, by host.
func TestGoldenRestore(t *testing.T) {
	plan, err := Restore(inputs(t, threeMasters), Restoration{ID: "THIS-TIME", File: "/var/lib/slipway/daytwo-restore/snapshot.db"})
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, ph := range plan.Phases {
		text += said(ph)
	}
	compare(t, "testdata/restore.txt", text)
}

// said is a phase with what its actions do, once where several hosts do the same.
func said(ph installer.Phase) string {
	var b strings.Builder
	if len(ph.Hosts()) == 0 {
		return ""
	}
	seen := map[string]string{}
	fmt.Fprintf(&b, "## %s %s\n", ph.ID, ph.Title)
	for _, st := range ph.Steps {
		for _, w := range st.Work {
			fmt.Fprintf(&b, "# %s on %s\n", st.Name, w.Host)
			for _, it := range w.Items {
				text := it.ID() + "\n"
				if a, ok := it.(installer.Action); ok {
					text += "\tunless: " + indent(a.Check) + "\n\tdo: " + indent(a.Do) + "\n"
				}
				if first := seen[text]; first != "" {
					text = it.ID() + " (as on " + first + ")\n"
				} else {
					seen[text] = w.Host
				}
				b.WriteString(text)
			}
		}
	}
	return clients.ReplaceAllString(b.String(), "$1 ")
}

// clients are how kubectl and etcdctl are called, which plans' own goldens have.
var clients = regexp.MustCompile(`/usr/local/bin/(kubectl|etcdctl) (?:--(?:cache-dir|kubeconfig|request-timeout|cacert|cert|key|endpoints|command-timeout) \S+ ?)+`)

func indent(text string) string { return strings.ReplaceAll(text, "\n", "\n\t") }

// follow are the items of hosts that stay which are others in a plan than they
// were, with the difference; or, if gone, those that it has no more.
func follow(before, after installer.Plan, left string, gone bool) string {
	has := map[string]installer.Item{}
	old, now := before, after
	if gone {
		old, now = after, before
	}
	for it := range old.Items() {
		has[it.Host+" "+it.Item.ID()] = it.Item
	}
	var b strings.Builder
	for it := range now.Items() {
		was := has[it.Host+" "+it.Item.ID()]
		if it.Host == left || was != nil && (gone || was.Want() == it.Item.Want()) {
			continue
		}
		fmt.Fprintf(&b, "%s: %s: %s\n", it.Host, it.Phase, it.Item.ID())
		if gone || was == nil {
			continue
		}
		if s, ok := it.Item.(installer.Shower); ok {
			_, wanted, secret := s.Shown()
			_, had, _ := was.(installer.Shower).Shown()
			if !secret && !strings.Contains(string(wanted), "BEGIN CERTIFICATE") {
				for l := range strings.Lines(string(diff.Diff("had", had, "has", wanted))) {
					if (l[0] == '+' || l[0] == '-') && !strings.HasPrefix(l, "+++") && !strings.HasPrefix(l, "---") {
						b.WriteString("\t" + l)
					}
				}
			}
		}
	}
	return b.String()
}
