package topology

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mixedNodes = `spec:
  nodes:
    - {name: m1, roles: [control-plane, etcd]}
    - {name: w1, roles: [worker], labels: {disk: ssd}}
    - {name: w2, roles: [worker, etcd]}
    - {name: e1, roles: [etcd]}
    - {name: lb, roles: [load-balancer]}
`

// perNode counts the user's pods on each node.
func perNode(s *Snapshot) map[string]int {
	out := map[string]int{}
	for _, p := range userPods(s) {
		out[p.Node]++
	}
	return out
}

func daemonSet(name, extra string) string {
	return `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ` + name + `}
spec:
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      containers: [{name: c}]
      ` + extra + `
---
`
}

func TestPlacement(t *testing.T) {
	for _, tc := range []struct {
		name, spec, objects string
		want                map[string]int
	}{
		{"round robin over workers", mixedNodes, deployment("web", 5, ""), map[string]int{"w1": 3, "w2": 2}},
		{"the next workload goes on where one ended", mixedNodes, deployment("a", 1, "") + deployment("b", 1, ""), map[string]int{"w1": 1, "w2": 1}},
		{"nodeSelector", mixedNodes, deployment("web", 2, "nodeSelector: {disk: ssd}"), map[string]int{"w1": 2}},
		{"hostname selector", mixedNodes, deployment("web", 2, "nodeSelector: {kubernetes.io/hostname: w2}"), map[string]int{"w2": 2}},
		{"nodeName passes over taints", mixedNodes, deployment("web", 2, "nodeName: m1"), map[string]int{"m1": 2}},
		{"a toleration opens the control plane", mixedNodes,
			deployment("web", 2, "nodeSelector: {node-role.kubernetes.io/control-plane: ''}\n      tolerations: [{operator: Exists}]"),
			map[string]int{"m1": 2}},
		{"daemon set on workers", mixedNodes, daemonSet("agent", ""), map[string]int{"w1": 1, "w2": 1}},
		{"daemon set tolerating everything", mixedNodes, daemonSet("agent", "tolerations: [{operator: Exists}]"),
			map[string]int{"m1": 1, "w1": 1, "w2": 1}},
		{"daemon set tolerating one role of two", mixedNodes, daemonSet("agent", "tolerations: [{key: node-role.kubernetes.io/etcd, operator: Exists, effect: NoSchedule}]"),
			map[string]int{"w1": 1, "w2": 1}},
		{"without workers all nodes will do", "spec: {nodes: [{name: m1, roles: [control-plane]}, {name: lb, roles: [load-balancer]}]}",
			deployment("web", 2, ""), map[string]int{"m1": 2}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap, _ := allocate(t, cluster(t, tc.spec), manifests(t, tc.objects), nil)
			if d := cmp.Diff(tc.want, perNode(snap)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestPlacementErrors(t *testing.T) {
	for _, tc := range []struct{ name, objects, want string }{
		{"unknown node", deployment("web", 1, "nodeName: w9"), `place Deployment/web in namespace default: nodeName "w9": no such node`},
		{"load balancer", deployment("web", 1, "nodeName: lb"), `nodeName "lb": it is no node of the cluster`},
		{"etcd alone", deployment("web", 1, "nodeName: e1"), `nodeName "e1": it is no node of the cluster`},
		{"no node for selector", deployment("web", 1, "nodeSelector: {disk: tape}"), "no node for nodeSelector map[disk:tape]"},
	} {
		_, _, err := Allocate(cluster(t, mixedNodes), manifests(t, tc.objects), nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.want)
		}
	}
}

func TestEtcdAndLoadBalancersAreOutsideTheDatapath(t *testing.T) {
	snap, _ := allocate(t, cluster(t, mixedNodes), nil, nil)
	for _, n := range snap.Nodes {
		if got, want := n.PodCIDR.IsValid(), n.Name != "lb" && n.Name != "e1"; got != want || n.InDatapath() != want {
			t.Errorf("%s: lease %s, in datapath %v", n.Name, n.PodCIDR, n.InDatapath())
		}
	}
}

func TestPodNames(t *testing.T) {
	objs := manifests(t, deployment("web", 2, "")+`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
`)
	snap, _ := allocate(t, cluster(t, ""), objs, nil)
	pods := userPods(snap)
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	if names[0] != "db-0" || names[1] != "db-1" {
		t.Errorf("stateful pods are %v", names[:2])
	}
	for _, n := range names[2:] {
		parts := strings.Split(n, "-")
		if len(parts) != 3 || parts[0] != "web" || len(parts[1]) != 10 || len(parts[2]) != 5 {
			t.Errorf("%q is not NAME-<template hash>-<5 letters>", n)
		}
	}
	svc := snap.Services[0]
	if !svc.Headless || svc.ClusterIP.IsValid() || len(svc.Ports[0].Endpoints) != 2 {
		t.Fatalf("headless service %+v", svc)
	}
	for i, e := range svc.Ports[0].Endpoints {
		if e.Hostname != pods[i].Hostname || e.Pod != pods[i].Key() {
			t.Errorf("endpoint %+v, want that of %s with its host name", e, pods[i].Key())
		}
	}
}

func TestNamesOfManyReplicasDiffer(t *testing.T) {
	names := replicaNames("default", "web-", 50_000)
	seen := map[string]bool{}
	for _, n := range names {
		seen[n] = true
	}
	if len(seen) != len(names) {
		t.Errorf("%d names for %d pods", len(seen), len(names))
	}
	if d := cmp.Diff(names[:1000], replicaNames("default", "web-", 1000)); d != "" {
		t.Errorf("the first names depend on how many follow\n%s", d)
	}
}

func TestPodNamesMustFitAFileName(t *testing.T) {
	c := cluster(t, "")
	// slipway-test-default.NAME: 21 characters and the name.
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "."
	pod := func(n int) *Objects {
		return manifests(t, "{apiVersion: v1, kind: Pod, metadata: {name: "+long+strings.Repeat("d", n)+"}, spec: {containers: [{name: c}]}}")
	}
	if _, _, err := Allocate(c, pod(255-21-192), nil); err != nil {
		t.Error(err)
	}
	_, _, err := Allocate(c, pod(255-21-192+1), nil)
	if err == nil || !strings.Contains(err.Error(), "has 256 characters") {
		t.Errorf("got %v", err)
	}
}
