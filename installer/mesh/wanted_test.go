package mesh_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer/mesh"
)

// summary is who reaches whom, by port: "2379/tcp master01>etcd01".
func summary(pairs []mesh.Pair) map[string][]string {
	out := map[string][]string{}
	for _, p := range pairs {
		out[p.Name()] = append(out[p.Name()], p.From+">"+p.To)
	}
	for _, v := range out {
		slices.Sort(v)
	}
	return out
}

// full is every way between some names.
func full(names ...string) (out []string) {
	for _, f := range names {
		for _, t := range names {
			if f != t {
				out = append(out, f+">"+t)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Machines are m (control plane and etcd), e (etcd alone), n and o (workers, o on
// another segment), l and k (balancers).
func TestWanted(t *testing.T) {
	const header = `  components: full
  underlay: {segments: [{name: a, subnet: 10.0.1.0/24}, {name: b, subnet: 10.0.2.0/24}], routers: [{name: r, segments: [a, b]}]}
`
	const nodes = `  nodes:
    - {name: m, roles: [control-plane, etcd], segment: a}
    - {name: e, roles: [etcd], segment: a}
    - {name: n, roles: [worker], segment: a}
    - {name: o, roles: [worker], segment: b}
`
	const balancers = `    - {name: l, roles: [load-balancer], segment: a}
    - {name: k, roles: [load-balancer], segment: a}
  controlPlane: {loadBalancer: {mode: external, vip: 10.0.1.200}}
`
	apart := []string{"m>o", "n>o", "o>m", "o>n"}
	inCluster := full("m", "n", "o") // e is no node of the cluster
	// Services are reached from all machines, at all that pods and services are on.
	fromEtcd := slices.Concat(inCluster, []string{"e>m", "e>n", "e>o"})
	slices.Sort(fromEtcd)
	services := slices.Concat(fromEtcd, []string{"l>m", "l>n", "l>o", "k>m", "k>n", "k>o"})
	slices.Sort(services)
	base := map[string][]string{
		"2379/tcp": {"m>e"}, "2380/tcp": {"e>m", "m>e"}, "6443/tcp": {"n>m", "o>m"}, "10250/tcp": {"m>n", "m>o"}, "10256/tcp": {"m>n", "m>o"},
		"2381/tcp": {"e>e", "m>m"}, "10257/tcp": {"m>m"}, "10259/tcp": {"m>m"}, "10249/tcp": {"m>m", "n>n", "o>o"}, "10248/tcp": {"m>m", "n>n", "o>o"},
		"30000/tcp": fromEtcd, "31383/tcp": fromEtcd, "32767/tcp": fromEtcd,
	}
	with := func(more map[string][]string) map[string][]string {
		out := maps.Clone(base)
		maps.Copy(out, more)
		return out
	}
	for name, c := range map[string]struct {
		spec string
		want map[string][]string
	}{
		"vxlan":                      {"  network: {mode: flannel-vxlan}\n" + nodes, with(map[string][]string{"8472/udp": inCluster})},
		"vxlan, direct on a segment": {"  network: {mode: flannel-vxlan, vxlan: {port: 4789, directRouting: true}}\n" + nodes, with(map[string][]string{"4789/udp": apart})},
		"udp":                        {"  network: {mode: flannel-udp}\n" + nodes, with(map[string][]string{"8285/udp": inCluster})},
		"ipip":                       {"  network: {mode: calico-ipip}\n" + nodes, with(map[string][]string{"ipip": inCluster, "179/tcp": inCluster})},
		"ipip between segments":      {"  network: {mode: calico-ipip, ipip: {policy: cross-subnet}}\n" + nodes, with(map[string][]string{"ipip": apart, "179/tcp": inCluster})},
		"a reflector":                {"  network: {mode: calico-ipip, bgp: {topology: route-reflectors, routeReflectors: [n]}}\n" + nodes, with(map[string][]string{"ipip": inCluster, "179/tcp": {"m>n", "n>m", "n>o", "o>n"}})},
		"a balancer on each node": {"  network: {mode: flannel-vxlan}\n" + nodes + "  controlPlane: {loadBalancer: {mode: node-local}}\n", with(map[string][]string{
			"8472/udp": inCluster, "8443/tcp": {"m>m", "n>n", "o>o"}, "8081/tcp": {"m>m", "n>n", "o>o"}, "9090/tcp": {"m>m", "n>n", "o>o"},
		})},
		"balancers": {"  network: {mode: flannel-vxlan}\n" + nodes + balancers, with(map[string][]string{
			"8472/udp": inCluster, "vrrp": full("l", "k"), "8081/tcp": full("l", "k"), "9090/tcp": {"k>k", "l>l"}, "30000/tcp": services, "31383/tcp": services, "32767/tcp": services,
			"6443/tcp": {"k>m", "l>m", "m>k", "m>l", "n>k", "n>l", "o>k", "o>l"},
		})},
	} {
		t.Run(name, func(t *testing.T) {
			pairs := wanted(t, header+c.spec)
			if d := cmp.Diff(c.want, summary(pairs)); d != "" {
				t.Error(d)
			}
			for _, p := range pairs {
				if own := p.From == p.To; own != p.Address.IsLoopback() || p.For == "" {
					t.Errorf("%+v", p)
				}
			}
		})
	}
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "    - {name: w%d, roles: [worker], segment: a}\n", i)
	}
	if n := len(wanted(t, header+nodes+b.String())); n > 60000 {
		t.Errorf("%d pairs of 104 machines", n)
	}
}
