package installer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
	r := newRig(t)
	bare := r.state()
	plan, err := cluster.Plan(r.inputs, "00", "01", "03", "04")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.engine.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	put := func(n *node, value string) (string, int) { return n.sh(ctl + "put key " + value) }
	a, b, c := r.nodes["etcd01"], r.nodes["etcd02"], r.nodes["etcd03"]
	if out, code := put(a, "one"); code != 0 {
		t.Fatalf("%d %s", code, out)
	}
	for name, n := range r.nodes {
		if out, code := n.sh(ctl + "get key --print-value-only"); code != 0 || out != "one\n" {
			t.Errorf("%s has %q (%d)", name, out, code)
		}
	}
	if out, code := a.sh("/usr/local/bin/etcdctl --insecure-skip-tls-verify --insecure-transport=false --endpoints https://127.0.0.1:2379 --command-timeout 1s get key"); code == 0 {
		t.Errorf("somebody without a certificate reads: %s", out)
	}

	r.unchanged(plan)

	t.Run("a member killed comes back", func(t *testing.T) {
		pid := func() string { out, _ := b.sh("systemctl show etcd -p MainPID --value"); return strings.TrimSpace(out) }
		old := pid()
		if out, code := b.sh("kill -9 " + old); code != 0 {
			t.Fatal(out)
		}
		if out, code := put(a, "two"); code != 0 {
			t.Errorf("no writes with two of three: %s", out)
		}
		testnet.Eventually(t, time.Minute, "the member is healthy again", func() (bool, string) {
			out, code := b.sh(ctl + "endpoint health")
			return code == 0 && pid() != old, out
		})
	})
	t.Run("without a majority nothing is written", func(t *testing.T) {
		b.off()
		c.off()
		if out, code := put(a, "lost"); code == 0 {
			t.Errorf("one of three took a write: %s", out)
		}
		b.boot()
		c.boot()
		testnet.Eventually(t, time.Minute, "writes are taken again", func() (bool, string) {
			out, code := put(a, "three")
			return code == 0, out
		})
		testnet.Eventually(t, time.Minute, "the member that was off has it", func() (bool, string) {
			out, code := c.sh(ctl + "get key --print-value-only")
			return code == 0 && out == "three\n", out
		})
	})
	t.Run("what is changed by hand is mended", func(t *testing.T) {
		if out, code := a.sh("echo '# mine' >>/etc/systemd/system/etcd.service; rm /etc/kubernetes/pki/etcd/peer.key; systemctl disable etcd"); code != 0 {
			t.Fatal(out)
		}
		d, err := r.engine.Differences(t.Context(), plan)
		var ids []string
		for _, x := range d {
			ids = append(ids, x.Host+" "+x.Item.ID())
		}
		if got := strings.Join(ids, ", "); err != nil || got != "etcd01 file /etc/kubernetes/pki/etcd/peer.key, etcd01 unit etcd.service" {
			t.Errorf("%s, %v", got, err)
		}
		if err := r.engine.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		r.unchanged(plan)
	})
	t.Run("a step that fails says where", func(t *testing.T) {
		if out, code := a.sh("systemctl stop etcd; mv /var/lib/etcd/member /var/lib/etcd/away; echo x >/var/lib/etcd/member"); code != 0 {
			t.Fatal(out)
		}
		err := r.engine.Apply(t.Context(), plan)
		var failed *installer.StepError
		if !errors.As(err, &failed) || failed.Host != "etcd01" || failed.Phase != "04-etcd" || failed.Item != "unit etcd.service" || !strings.Contains(failed.Stderr, "etcd.service") {
			t.Errorf("%v", err)
		}
		if out, code := a.sh("rm /var/lib/etcd/member; mv /var/lib/etcd/away /var/lib/etcd/member; systemctl reset-failed etcd"); code != 0 {
			t.Fatal(out)
		}
		if err := r.engine.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
	})
	for name, n := range r.nodes {
		if _, err := installer.Undo(t.Context(), n); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := r.state(); got != bare {
		t.Errorf("undone is not what was before:\n%s\n%s", bare, got)
	}
}

// unchanged checks that applying again would change nothing.
func (r *rig) unchanged(plan installer.Plan) {
	r.t.Helper()
	d, err := r.engine.Differences(r.t.Context(), plan)
	if err != nil {
		r.t.Error(err)
	}
	for _, x := range d {
		r.t.Errorf("%s: %s is %q, not %q", x.Host, x.Item.ID(), x.Before, x.Item.Want())
	}
}

// state is what the nodes have that an installation touches.
func (r *rig) state() string {
	var b strings.Builder
	for _, n := range r.inputs.Snapshot.Nodes {
		out, _ := r.nodes[n.Name].sh(`ls -A /etc/kubernetes /etc/systemd/system /etc/sysctl.d /etc/modules-load.d /usr/local/bin /var/lib/etcd /var/lib/slipway 2>&1
			cat /etc/hosts /proc/sys/net/ipv4/ip_forward; pgrep -x etcd`)
		fmt.Fprintf(&b, "%s\n%s\n", n.Name, out)
	}
	return b.String()
}
