package topology

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func serviceNamed(t *testing.T, s *Snapshot, key string) Service {
	t.Helper()
	for _, svc := range s.Services {
		if svc.Key() == key {
			return svc
		}
	}
	t.Fatalf("no service %s", key)
	return Service{}
}

// endpoints renders a port's endpoints as "address:port node".
func endpoints(p ServicePort) []string {
	var out []string
	for _, e := range p.Endpoints {
		out = append(out, fmt.Sprintf("%s:%d %s", e.Address, e.Port, e.Node))
	}
	return out
}

func TestServicePortsResolvePerPod(t *testing.T) {
	objs := manifests(t, `
apiVersion: v1
kind: Pod
metadata: {name: old, labels: {app: web}}
spec:
  nodeName: node01
  containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: new, labels: {app: web}}
spec:
  nodeName: node02
  containers: [{name: c, ports: [{name: http, containerPort: 9090}, {name: stats, containerPort: 9999, protocol: UDP}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: else, labels: {app: web}}
spec:
  containers: [{name: c, ports: [{name: http, containerPort: 1}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
    - {name: http, port: 80, targetPort: http}
    - {name: stats, port: 81, targetPort: stats, protocol: UDP, nodePort: 30001}
    - {name: plain, port: 82}
`)
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	web := serviceNamed(t, snap, "default/web")
	want := []struct {
		Name, Target string
		NodePort     int
		Endpoints    []string
	}{
		{"http", "http", 30000, []string{"10.244.1.2:8080 node01", "10.244.2.2:9090 node02"}},
		{"stats", "stats", 30001, []string{"10.244.2.2:9999 node02"}}, // the old pod has no such port
		{"plain", "82", 30001, []string{"10.244.1.2:82 node01", "10.244.2.2:82 node02"}},
	}
	for i, w := range want {
		p := web.Ports[i]
		if p.Name != w.Name || p.TargetPort != w.Target || p.NodePort != w.NodePort {
			t.Errorf("port %+v, want %+v", p, w)
		}
		if d := cmp.Diff(w.Endpoints, endpoints(p)); d != "" {
			t.Errorf("endpoints of %s (-want +got)\n%s", p.Name, d)
		}
	}
}

func service(name, spec string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: " + spec + "\n---\n"
}

func TestServiceKinds(t *testing.T) {
	objs := manifests(t,
		service("sticky", "{sessionAffinity: ClientIP, ports: [{port: 80}], selector: {a: b}, externalIPs: [192.0.2.1]}")+
			service("brief", "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, ports: [{port: 80}]}")+
			service("alias", "{type: ExternalName, externalName: example.org.}")+
			service("cloud", "{type: LoadBalancer, externalTrafficPolicy: Local, internalTrafficPolicy: Local, loadBalancerIP: 192.0.2.9, ports: [{port: 80}]}"))
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	if s := serviceNamed(t, snap, "default/sticky"); !s.AffinityClientIP || s.AffinitySeconds != 10800 ||
		s.ExternalIPs[0].String() != "192.0.2.1" || len(s.Ports[0].Endpoints) != 0 || s.ClusterIP.String() != "10.96.0.11" {
		t.Errorf("sticky %+v", s)
	}
	if s := serviceNamed(t, snap, "default/brief"); s.AffinitySeconds != 60 || s.ClusterIP.String() != "10.96.0.12" {
		t.Errorf("brief %+v", s)
	}
	if s := serviceNamed(t, snap, "default/alias"); s.ExternalName != "example.org" || s.ClusterIP.IsValid() {
		t.Errorf("alias %+v", s)
	}
	s := serviceNamed(t, snap, "default/cloud")
	if !s.ExternalPolicyLocal || !s.InternalPolicyLocal || s.LoadBalancerIPs[0].String() != "192.0.2.9" ||
		s.Ports[0].NodePort == 0 || s.HealthCheckNodePort == 0 || s.HealthCheckNodePort == s.Ports[0].NodePort {
		t.Errorf("cloud %+v", s)
	}
}

func TestServiceNumbersAreStableAndExplicitOnesWin(t *testing.T) {
	c := cluster(t, "")
	_, alloc := allocate(t, c, manifests(t, service("b", "{type: NodePort, ports: [{port: 1}]}")+service("c", "{ports: [{port: 1}]}")), nil)
	if alloc.ClusterIPs["default/b"] != "10.96.0.11" || alloc.NodePorts["default/b:1/TCP"] != 30000 {
		t.Fatalf("first allocation %+v", alloc)
	}
	// a is new and comes first; d asks for c's address.
	snap, _ := allocate(t, c, manifests(t,
		service("a", "{type: NodePort, ports: [{port: 1}]}")+service("b", "{type: NodePort, ports: [{port: 1}]}")+
			service("c", "{ports: [{port: 1}]}")+service("d", "{clusterIP: 10.96.0.12, ports: [{port: 1}]}")), alloc)
	want := map[string]string{
		"default/a": "10.96.0.13 30001", "default/b": "10.96.0.11 30000", "default/c": "10.96.0.14 0", "default/d": "10.96.0.12 0",
	}
	for key, w := range want {
		s := serviceNamed(t, snap, key)
		if got := fmt.Sprintf("%s %d", s.ClusterIP, s.Ports[0].NodePort); got != w {
			t.Errorf("%s has %s, want %s", key, got, w)
		}
	}
}

func TestServiceConflicts(t *testing.T) {
	objs := manifests(t,
		service("a", "{clusterIP: 10.96.0.20, ports: [{port: 1}]}")+
			service("b", "{clusterIP: 10.96.0.20, ports: [{port: 1}]}")+
			service("c", "{clusterIP: 10.97.0.20, ports: [{port: 1}]}")+
			service("d", "{clusterIP: 10.96.0.10, ports: [{port: 1}]}")+
			service("e", "{type: NodePort, ports: [{port: 1, nodePort: 30000}]}")+
			service("f", "{type: NodePort, ports: [{port: 1, nodePort: 30000}]}")+
			service("g", "{type: NodePort, ports: [{port: 1, nodePort: 30000, protocol: UDP}]}")+
			service("h", "{type: NodePort, ports: [{port: 1, nodePort: 80}]}"))
	_, _, err := Allocate(cluster(t, ""), objs, nil)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		"service default/b: clusterIP 10.96.0.20 is taken by service default/a",
		"service default/c: clusterIP 10.97.0.20 is not a host of the service CIDR 10.96.0.0/16",
		"service port default/f:1/TCP: nodePort 30000 is taken by default/e:1/TCP",
		"service port default/h:1/TCP: nodePort 80 is outside 30000-32767",
		// The DNS comes last and finds its place taken.
		"service kube-system/kube-dns: clusterIP 10.96.0.10 is taken by service default/d",
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestEndpointsOfOnesOwn(t *testing.T) {
	objs := manifests(t, service("db", "{ports: [{port: 5432}]}")+`
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {nodeName: node01, containers: [{name: c}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{port: 15432}]
endpoints:
  - {addresses: [192.0.2.7]}
  - {addresses: [192.0.2.5], conditions: {ready: false}, nodeName: node02}
  - {addresses: [10.244.1.2]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets: [{addresses: [{ip: 192.0.2.8}], ports: [{port: 8080, protocol: TCP}]}]
---
`+service("web", "{ports: [{port: 80}]}"))
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	db := serviceNamed(t, snap, "default/db").Ports[0]
	if d := cmp.Diff([]string{"10.244.1.2:15432 ", "192.0.2.5:15432 node02", "192.0.2.7:15432 "}, endpoints(db)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if db.Endpoints[0].Pod != "default/p" || db.Endpoints[1].Ready || !db.Endpoints[2].Ready {
		t.Errorf("endpoints %+v", db.Endpoints)
	}
	if d := cmp.Diff([]string{"192.0.2.8:8080 "}, endpoints(serviceNamed(t, snap, "default/web").Ports[0])); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestUsersOwnDNSReplacesTheLabs(t *testing.T) {
	objs := manifests(t, `
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {selector: {k8s-app: my-dns}, ports: [{port: 53, protocol: UDP}]}
`)
	snap, _ := allocate(t, cluster(t, "spec: {network: {serviceCIDR: 10.32.0.0/24}}"), objs, nil)
	if len(snap.Pods) != 0 || len(snap.Services) != 1 || snap.ClusterDNS.String() != "10.32.0.10" {
		t.Errorf("pods %v, services %v, DNS %s", snap.Pods, snap.Services, snap.ClusterDNS)
	}
}
