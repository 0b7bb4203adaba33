package cluster

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/topology"
)

// with are the inputs of a cluster of nodes, "name role,role address".
func with(t *testing.T, nodes ...string) Inputs {
	t.Helper()
	c := "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec:\n  nodes:\n"
	for _, n := range nodes {
		f := strings.Fields(n)
		c += fmt.Sprintf("    - {name: %s, roles: [%s], address: 192.168.233.%s}\n", f[0], f[1], f[2])
	}
	cluster, wrong := topology.Parse("c.yaml", []byte(c))
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	snap, _, err := topology.Allocate(cluster, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Inputs{Cluster: cluster, Snapshot: snap}
}

const m1, m2, e3, w1 = "m1 control-plane,etcd 10", "m2 control-plane,etcd 11", "e3 etcd 12", "w1 worker 20"

func TestChanges(t *testing.T) {
	for name, c := range map[string]struct {
		from, to                []string
		added, removed, leaving string
		former                  string
		fails                   string
	}{
		"a worker joins":           {[]string{m1}, []string{m1, w1}, "w1", "", "", "", ""},
		"a master leaves":          {[]string{m1, m2, e3, w1}, []string{m2, e3, w1}, "", "m1", "m1", "m1", ""},
		"a role goes":              {[]string{m1, m2, "w1 worker,etcd 20"}, []string{m1, m2, w1}, "", "", "w1", "", ""},
		"a worker runs etcd alone": {[]string{m1, "w1 worker,etcd 20"}, []string{m1, "w1 etcd 20"}, "", "", "", "w1", ""},
		"one for another":          {[]string{m1, e3}, []string{m1, m2}, "m2", "e3", "e3", "", ""},
		"no member stays":          {[]string{"m1 control-plane 10", e3}, []string{"m1 control-plane 10", "e4 etcd 13"}, "", "", "", "", "no member of etcd stays"},
		"no control plane stays":   {[]string{"m1 control-plane 10", e3}, []string{"m2 control-plane 11", e3}, "", "", "", "", "no node of the control plane stays"},
		"an address is of another": {[]string{m1, w1}, []string{m1, "w1 worker 21"}, "", "", "", "", "remove it and add it again"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Changes(with(t, c.from...), with(t, c.to...))
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v", err)
				}
				return
			}
			var leaving []string
			for _, n := range got.Leaving {
				leaving = append(leaving, n.Name)
			}
			all := []string{strings.Join(got.Added, ","), strings.Join(got.Removed, ","), strings.Join(leaving, ","), strings.Join(got.Former, ",")}
			if d := cmp.Diff([]string{c.added, c.removed, c.leaving, c.former}, all); d != "" || err != nil {
				t.Errorf("%v %s", err, d)
			}
		})
	}
}

// Of those that stay more than half must live.
func TestQuorum(t *testing.T) {
	from := with(t, m1, m2, e3)
	for name, c := range map[string]struct {
		to    []string
		alive string
		ok    bool
	}{
		"three, all alive":               {[]string{m1, m2}, "m1 m2 e3", true},
		"three, the dead one goes":       {[]string{m1, m2}, "m1 m2", true},
		"three, one dead, another goes":  {[]string{m1, m2}, "m1 e3", false}, // of two both are needed
		"two go, and the one left lives": {[]string{m1}, "m1", true},
	} {
		t.Run(name, func(t *testing.T) {
			to := with(t, c.to...)
			ch, err := Changes(from, to)
			if err != nil {
				t.Fatal(err)
			}
			alive := map[string]bool{}
			for _, n := range strings.Fields(c.alive) {
				alive[n] = true
			}
			err = Quorum(to, ch.Leaving, alive)
			var lost *QuorumError
			if c.ok != (err == nil) || !c.ok && !errors.As(err, &lost) {
				t.Errorf("%v", err)
			}
		})
	}
}

// A command changes what it is for, and nothing else that a file says.
func TestOnlyTheFileSaysMore(t *testing.T) {
	a, b := with(t, m1, w1), with(t, m1, m2, w1)
	if err := OnlyNodes(a, b); err != nil {
		t.Error(err)
	}
	if err := OnlyNetwork(a, b); !errors.Is(err, ErrMore) {
		t.Errorf("%v", err)
	}
	other := with(t, m1, m2, w1)
	other.Cluster.Spec.Network.Mode = topology.CalicoBGP
	if err := OnlyNodes(a, other); !errors.Is(err, ErrMore) {
		t.Errorf("%v", err)
	}
	if err := OnlyNetwork(b, other); err != nil {
		t.Error(err)
	}
}
