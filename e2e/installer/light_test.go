package installer

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer/cluster"
	"slipway/internal/testnet"
)

const ctlKube = "/usr/local/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf "

// A control plane and the proxies of its nodes, from bare machines.
func TestLight(t *testing.T) {
	r := rig.New(t, "  components: light\n  nodes: [{name: master01, roles: [control-plane, etcd]}, {name: node01}]\n", rig.Kubernetes(t))
	plan, err := cluster.Plan(r.Inputs)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := r.Engine.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	t.Logf("applied in %v", time.Since(began))
	r.Unchanged(t, plan)
	m, n := r.Nodes["master01"], r.Nodes["node01"]
	kubectl := func(args string) string {
		t.Helper()
		out, code := m.Sh(ctlKube + args)
		if code != 0 {
			t.Fatalf("kubectl %s: %s", args, out)
		}
		return out
	}
	t.Run("nodes have the leases that were planned", func(t *testing.T) {
		const want = "master01 10.244.0.0/24 192.168.233.10\nnode01 10.244.1.0/24 192.168.233.11\n"
		const what = `get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}'`
		if got := kubectl(what); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		// Another plan, as one made without what was allocated then, changes none.
		other := r.Inputs
		snap := *other.Snapshot
		snap.Nodes = append(snap.Nodes[:0:0], snap.Nodes...)
		snap.Nodes[0].PodCIDR, snap.Nodes[1].PodCIDR = snap.Nodes[1].PodCIDR, snap.Nodes[0].PodCIDR
		other.Snapshot = &snap
		plan, err := cluster.Plan(other, "08")
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Engine.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if got := kubectl(what); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
	t.Run("services get rules", func(t *testing.T) {
		kubectl("create service nodeport web --tcp=80:8080 --node-port=30080")
		for _, h := range []*rig.Node{m, n} {
			testnet.Eventually(t, 20*time.Second, "the rules of the service", func() (bool, string) {
				out, _ := h.Sh("iptables-save")
				return strings.Contains(out, "default/web"), out
			})
		}
	})
	t.Run("what failed for long comes back when it can", func(t *testing.T) {
		const conf = "/etc/kubernetes/kube-proxy.yaml"
		if out, code := n.Sh("mv " + conf + " /tmp && systemctl restart kube-proxy"); code != 0 {
			t.Fatal(out)
		}
		testnet.Eventually(t, time.Minute, "more starts than systemd's own limit, 5 in 10 s", func() (bool, string) {
			out, _ := n.Sh("systemctl show kube-proxy -p NRestarts --value")
			starts, err := strconv.Atoi(strings.TrimSpace(out))
			return err == nil && starts > 6, out
		})
		if out, code := n.Sh("mv /tmp/kube-proxy.yaml " + conf); code != 0 {
			t.Fatal(out)
		}
		testnet.Eventually(t, time.Minute, "kube-proxy is healthy", func() (bool, string) {
			out, code := n.Sh("curl -sSf http://127.0.0.1:10256/healthz")
			return code == 0, out
		})
	})
}
