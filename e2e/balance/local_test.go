package balance

import (
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer/cluster"
	"slipway/internal/testnet"
	"slipway/topology"
)

// newLocal makes three masters and a node, up to where the API is there.
func newLocal(t testing.TB, software string) *rig.Rig {
	t.Helper()
	r := rig.New(t, `  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: master02, roles: [control-plane, etcd]}
    - {name: master03, roles: [control-plane, etcd]}
    - {name: node01}
  controlPlane: {loadBalancer: {software: `+software+`}}
`, rig.Kubernetes(t))
	apply(t, r, "00", "01", "03", "04", "05", "06")
	return r
}

// apply brings phases about, and looks that nothing is left to be done.
func apply(t testing.TB, r *rig.Rig, phases ...string) {
	t.Helper()
	plan, err := cluster.Plan(r.Inputs, phases...)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Engine.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	r.Unchanged(t, plan)
}

// Three real API servers over three members of etcd, and a node that reaches
// them by the balancer of its own.
func TestNodeLocal(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.NGINX, testnet.HAProxy, testnet.Curl)
	r := newLocal(t, "nginx")
	node, client := r.Nodes["node01"], newClient(t, r, "node01")
	for _, software := range []topology.Balancer{topology.NGINX, topology.HAProxy} {
		t.Run(string(software), func(t *testing.T) {
			if software != topology.NGINX { // the same cluster, with another balancer from here on
				c := *r.Inputs.Cluster
				c.Spec.ControlPlane.LoadBalancer.Software = software
				r.Inputs.Cluster = &c
				apply(t, r, "00", "05")
			}
			if out := must(t, node, "pgrep -x 'nginx|haproxy' -l"); !strings.Contains(out, string(software)) || strings.Count(out, "nginx") > 0 == (software != topology.NGINX) {
				t.Errorf("%s runs", out)
			}
			tr := keepAsking(t, client, object)
			t.Run("an API server killed", func(t *testing.T) { killServer(t, r, tr, "master01", software) })
			t.Run("a master without power", func(t *testing.T) { cutServer(t, r, tr, "master02") })
			t.Run("an API server that hangs", func(t *testing.T) { hangServer(t, r, tr, "master03") })
			t.Run("the balancer killed", func(t *testing.T) {
				tr.begin(t)
				must(t, node, "kill -9 "+mainPID(t, node, "api-balancer"))
				tr.answered(t, 20)
				tr.report(t, "kill -9 of the node's balancer")
			})
		})
	}
}

// object is one that a request needs etcd for.
const object = "/api/v1/namespaces/default"

func mainPID(t testing.TB, n *rig.Node, unit string) string {
	t.Helper()
	return strings.TrimSpace(must(t, n, "systemctl show "+unit+" -p MainPID --value"))
}

func waitReady(t testing.TB, n *rig.Node) {
	t.Helper()
	testnet.Eventually(t, 2*time.Minute, "the API server of "+n.Name()+" is ready", func() (bool, string) {
		out, code := n.Sh("curl -sSf -m 2 --cacert /etc/kubernetes/pki/ca.crt https://127.0.0.1:6443/readyz")
		return code == 0, out
	})
}

func killServer(t *testing.T, r *rig.Rig, tr *traffic, name string, by topology.Balancer) {
	tr.begin(t)
	must(t, r.Nodes[name], "kill -9 "+mainPID(t, r.Nodes[name], "kube-apiserver"))
	tr.answered(t, 50)
	waitReady(t, r.Nodes[name])
	good, failed := tr.report(t, "kill -9 of the API server of "+name)
	// Lost is what was under way there, and what the dying process still had in
	// its queue. HAProxy waits until the new one is ready; nginx leads clients to
	// it as soon as it takes connections, and some of them come too early.
	limit := 3
	if by == topology.NGINX {
		limit = max(limit, good/10)
	}
	if len(failed) > limit {
		t.Errorf("%d requests failed", len(failed))
	}
}

func cutServer(t *testing.T, r *rig.Rig, tr *traffic, name string) {
	tr.begin(t)
	r.PowerOff(r.Nodes[name])
	tr.answered(t, 100)
	tr.report(t, "power off of "+name)
	tr.answered(t, 50)
	if good, failed := tr.report(t, "while it is off"); len(failed) > good/10 { // nginx tries it now and then
		t.Errorf("%d requests failed", len(failed))
	}
	r.PowerOn(r.Nodes[name])
	waitReady(t, r.Nodes[name])
	tr.report(t, "and on again")
}

// hangServer lets an API server take connections and say nothing.
func hangServer(t *testing.T, r *rig.Rig, tr *traffic, name string) {
	tr.begin(t)
	pid := mainPID(t, r.Nodes[name], "kube-apiserver")
	must(t, r.Nodes[name], "kill -STOP "+pid)
	tr.answered(t, 50)
	tr.report(t, "kill -STOP of the API server of "+name)
	must(t, r.Nodes[name], "kill -CONT "+pid)
	waitReady(t, r.Nodes[name])
}
