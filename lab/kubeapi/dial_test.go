package kubeapi

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/lab"
	"slipway/topology"
)

const three = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: light
  nodes:
    - {name: m1, roles: [control-plane, etcd], address: 192.168.233.11}
    - {name: m2, roles: [control-plane, etcd], address: 192.168.233.12}
    - {name: m3, roles: [control-plane, etcd], address: 192.168.233.13}
    - {name: node01, roles: [worker]}
`

const external = three + `    - {name: lb1, roles: [load-balancer]}
    - {name: lb2, roles: [load-balancer]}
  controlPlane: {loadBalancer: {mode: external, vip: 192.168.233.100}}
`

func ways(t *testing.T, file string) (out []string) {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(file))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := waysOf(&lab.State{Lab: "demo", Cluster: c, Snapshot: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range list {
		out = append(out, w.from+" "+w.to.String())
	}
	return out
}

func TestWays(t *testing.T) {
	masters := []string{"m1 192.168.233.11:6443", "m2 192.168.233.12:6443", "m3 192.168.233.13:6443"}
	if d := cmp.Diff(masters, ways(t, three)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(append([]string{"external 192.168.233.100:6443"}, masters...), ways(t, external)); d != "" {
		t.Error(d)
	}
}

func TestOrder(t *testing.T) {
	at := func(n string) way { return way{n, netip.MustParseAddrPort("192.0.2.1:6443")} }
	all := []way{at("a"), at("b"), at("c")}
	for _, tc := range []struct {
		name string
		d    *dialer
		want string
	}{
		{"at first", &dialer{}, "abc"},
		{"the one that answered", &dialer{last: at("b")}, "bca"},
		{"the one after the one that hung", &dialer{last: at("b"), left: true}, "cab"},
		{"after the last the first", &dialer{last: at("c"), left: true}, "abc"},
		{"one that is no master any more", &dialer{last: at("d")}, "abc"},
	} {
		got := ""
		for _, w := range tc.d.order(all) {
			got += w.from
		}
		if got != tc.want {
			t.Errorf("%s: %s, not %s", tc.name, got, tc.want)
		}
	}
}
