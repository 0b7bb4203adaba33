package installer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/internal/testnet"
)

// ctl asks a member as the installer's own health check does.
const ctl = "/usr/local/bin/etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt" +
	" --key /etc/kubernetes/pki/etcd/healthcheck-client.key --endpoints https://127.0.0.1:2379 --command-timeout 3s "

// A real etcd of three members over TLS, from bare nodes, and what becomes of it
// when members fail.
func TestEtcd(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.Flanneld)
	r := rig.New(t, "  nodes: [{name: etcd01, roles: [etcd]}, {name: etcd02, roles: [etcd]}, {name: etcd03, roles: [etcd]}]\n", rig.Programs(t, "etcd"))
	bare := state(r)
	plan, err := cluster.Plan(r.Inputs, "00", "01", "03", "04")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Engine.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	put := func(n *rig.Node, value string) (string, int) { return n.Sh(ctl + "put key " + value) }
	a, b, c := r.Nodes["etcd01"], r.Nodes["etcd02"], r.Nodes["etcd03"]
	if out, code := put(a, "one"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	for name, n := range r.Nodes {
		if out, code := n.Sh(ctl + "get key --print-value-only"); code != 0 || out != "one\n" {
			t.Errorf("%s has %q (%d)", name, out, code)
		}
	}
	if out, code := a.Sh("/usr/local/bin/etcdctl --insecure-skip-tls-verify --insecure-transport=false --endpoints https://127.0.0.1:2379 --command-timeout 1s get key"); code == 0 {
		t.Errorf("somebody without a certificate reads: %s", out)
	}

	r.Unchanged(t, plan)

	t.Run("a member killed comes back", func(t *testing.T) {
		pid := func() string { out, _ := b.Sh("systemctl show etcd -p MainPID --value"); return strings.TrimSpace(out) }
		old := pid()
		if out, code := b.Sh("kill -9 " + old); code != 0 {
			t.Fatal(out)
		}
		// If it was the leader, the others elect one first.
		testnet.Eventually(t, time.Minute, "writes are taken", func() (bool, string) {
			out, code := put(a, "two")
			return code == 0, out
		})
		testnet.Eventually(t, time.Minute, "the member is healthy again", func() (bool, string) {
			out, code := b.Sh(ctl + "endpoint health")
			return code == 0 && pid() != old, out
		})
	})
	t.Run("without a majority nothing is written", func(t *testing.T) {
		b.Off()
		c.Off()
		if out, code := put(a, "lost"); code == 0 {
			t.Errorf("one of three took a write: %s", out)
		}
		b.Boot()
		c.Boot()
		testnet.Eventually(t, time.Minute, "writes are taken again", func() (bool, string) {
			out, code := put(a, "three")
			return code == 0, out
		})
		testnet.Eventually(t, time.Minute, "the member that was off has it", func() (bool, string) {
			out, code := c.Sh(ctl + "get key --print-value-only")
			return code == 0 && out == "three\n", out
		})
	})
	t.Run("what is changed by hand is mended", func(t *testing.T) {
		if out, code := a.Sh("echo '# mine' >>/etc/systemd/system/etcd.service; rm /etc/kubernetes/pki/etcd/peer.key; systemctl disable etcd"); code != 0 {
			t.Fatal(out)
		}
		d, err := r.Engine.Differences(t.Context(), plan)
		var ids []string
		for _, x := range d {
			ids = append(ids, x.Host+" "+x.Item.ID())
		}
		if got := strings.Join(ids, ", "); err != nil || got != "etcd01 file /etc/kubernetes/pki/etcd/peer.key, etcd01 unit etcd.service" {
			t.Errorf("%s, %v", got, err)
		}
		if err := r.Engine.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		r.Unchanged(t, plan)
	})
	t.Run("a step that fails says where", func(t *testing.T) {
		if out, code := a.Sh("systemctl stop etcd; mv /var/lib/etcd/member /var/lib/etcd/away; echo x >/var/lib/etcd/member"); code != 0 {
			t.Fatal(out)
		}
		err := r.Engine.Apply(t.Context(), plan)
		var failed *installer.StepError
		if !errors.As(err, &failed) || failed.Host != "etcd01" || failed.Phase != "04-etcd" || failed.Item != "unit etcd.service" || !strings.Contains(failed.Stderr, "etcd.service") {
			t.Errorf("%v", err)
		}
		if out, code := a.Sh("rm /var/lib/etcd/member; mv /var/lib/etcd/away /var/lib/etcd/member; systemctl reset-failed etcd"); code != 0 {
			t.Fatal(out)
		}
		if err := r.Engine.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	})
	for name, n := range r.Nodes {
		if _, err := installer.Undo(t.Context(), n); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := state(r); got != bare {
		t.Errorf("undone is not what was before:\n%s\n%s", bare, got)
	}
}

// state is what the nodes have that an installation touches.
func state(r *rig.Rig) string {
	var b strings.Builder
	for _, n := range r.Inputs.Snapshot.Nodes {
		out, _ := r.Nodes[n.Name].Sh(`ls -A /etc/kubernetes /etc/systemd/system /etc/sysctl.d /etc/modules-load.d /usr/local/bin /var/lib/etcd /var/lib/slipway 2>&1
			cat /etc/hosts /proc/sys/net/ipv4/ip_forward; pgrep -x etcd`)
		fmt.Fprintf(&b, "%s\n%s\n", n.Name, out)
	}
	return b.String()
}
