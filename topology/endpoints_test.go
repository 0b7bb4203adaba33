package topology

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// addressesOf lists endpoints by their addresses.
func addressesOf(in []Endpoint) []string {
	out := []string{}
	for _, e := range in {
		out = append(out, e.Address.String())
	}
	return out
}

func TestPreferredEndpoints(t *testing.T) {
	at := func(addr string, zones, nodes []string) Endpoint {
		return Endpoint{Address: netip.MustParseAddr(addr), Ready: true, ForZones: zones, ForNodes: nodes}
	}
	east, west := []string{"east"}, []string{"west"}
	node := NodeState{Node: Node{Name: "node01", Labels: map[string]string{"topology.kubernetes.io/zone": "east"}}}
	for name, c := range map[string]struct {
		in   []Endpoint
		want []string
	}{
		"none":               {nil, []string{}},
		"no hints":           {[]Endpoint{at("10.0.0.1", nil, nil), at("10.0.0.2", nil, nil)}, []string{"10.0.0.1", "10.0.0.2"}},
		"zones":              {[]Endpoint{at("10.0.0.1", east, nil), at("10.0.0.2", west, nil)}, []string{"10.0.0.1"}},
		"zones but for one":  {[]Endpoint{at("10.0.0.1", east, nil), at("10.0.0.2", nil, nil)}, []string{"10.0.0.1", "10.0.0.2"}},
		"other zones":        {[]Endpoint{at("10.0.0.1", west, nil), at("10.0.0.2", west, nil)}, []string{"10.0.0.1", "10.0.0.2"}},
		"nodes before zones": {[]Endpoint{at("10.0.0.1", east, []string{"node01"}), at("10.0.0.2", east, []string{"node02"})}, []string{"10.0.0.1"}},
		"other nodes": {
			[]Endpoint{at("10.0.0.1", east, []string{"node02"}), at("10.0.0.2", east, []string{"node03"}), at("10.0.0.3", west, []string{"node04"})},
			[]string{"10.0.0.1", "10.0.0.2"},
		},
	} {
		if d := cmp.Diff(c.want, addressesOf(Preferred(c.in, node))); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
}

// TestSlicesAreReadAsKubeProxyDoes: what the API leaves open of an endpoint.
func TestSlicesAreReadAsKubeProxyDoes(t *testing.T) {
	objs := manifests(t, service("web", "{ports: [{port: 80}]}")+`
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}, {name: ""}]
endpoints:
  - {addresses: [192.0.2.1, 192.0.2.2], hints: {forZones: [{name: east}], forNodes: [{name: node01}]}}
  - {addresses: [192.0.2.3], conditions: {ready: false, terminating: true}}
  - {addresses: [192.0.2.3], nodeName: node02, conditions: {ready: true}}
  - {addresses: [192.0.2.4], conditions: {ready: true}}
  - {addresses: [192.0.2.4], conditions: {ready: false, terminating: true}}
`)
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	at := netip.MustParseAddr
	want := []Endpoint{
		{Address: at("192.0.2.1"), Port: 8080, Ready: true, Serving: true, ForZones: []string{"east"}, ForNodes: []string{"node01"}},
		{Address: at("192.0.2.3"), Port: 8080, Node: "node02", Ready: true, Serving: true},
		{Address: at("192.0.2.4"), Port: 8080, Ready: true, Serving: true},
	}
	if d := cmp.Diff(want, serviceNamed(t, snap, "default/web").Ports[0].Endpoints, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestTheControllersSlicesAreAll: where the API's own controller has written a
// service's slices, pods are not selected a second time.
func TestTheControllersSlicesAreAll(t *testing.T) {
	objs := manifests(t, service("web", "{selector: {a: b}, ports: [{port: 80}]}")+`
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {a: b}}
spec: {nodeName: node01, containers: [{name: c}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [192.0.2.1]}]
`)
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	if d := cmp.Diff([]string{"192.0.2.1"}, addressesOf(serviceNamed(t, snap, "default/web").Ports[0].Endpoints)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// TestOutsideAddressesOfServices: ranges may have spaces, and a balancer that is
// a proxy keeps its address.
func TestOutsideAddressesOfServices(t *testing.T) {
	objs := manifests(t, service("web", `{type: LoadBalancer, loadBalancerSourceRanges: [" 192.0.2.0/24"], ports: [{port: 80}]}`+
		"\nstatus: {loadBalancer: {ingress: [{ip: 192.0.2.7, ipMode: Proxy}, {ip: 192.0.2.8, ipMode: VIP}]}}"))
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	s := serviceNamed(t, snap, "default/web")
	if len(s.LoadBalancerIPs) != 1 || s.LoadBalancerIPs[0].String() != "192.0.2.8" || len(s.SourceRanges) != 1 || s.SourceRanges[0].String() != "192.0.2.0/24" {
		t.Errorf("addresses %v, ranges %v", s.LoadBalancerIPs, s.SourceRanges)
	}
	_, _, err := LoadManifests("m", []byte(service("web", `{type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.300/24], ports: [{port: 80}]}`)))
	if err == nil {
		t.Error("a range that is none is taken")
	}
}
