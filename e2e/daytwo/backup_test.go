package daytwo

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"slipway/e2e/rig"
	"slipway/installer/backup"
	"slipway/installer/daytwo"
)

// A control plane on one machine, with members of etcd on two more.
const threeMembers = `  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: etcd02, roles: [etcd]}
    - {name: etcd03, roles: [etcd]}
`

// What was kept comes back on the machines that it was taken from, and on others
// that have nothing; what came later is gone.
func TestBackupAndRestore(t *testing.T) {
	programs := rig.Kubernetes(t)
	b := installed(t, threeMembers, programs)
	b.run("certificates", b.certificates)
	b.run("upgrade", b.upgrades)
	b.kubectl("master01", "create configmap kept --from-literal=value=before")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(t.TempDir(), "identity")
	if err := os.WriteFile(identity, []byte(id.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := backup.LockWith("", []string{id.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "demo.backup")
	m, err := b.Backup(t.Context(), path, lock)
	if err != nil {
		t.Fatal(err)
	}
	if m.Etcd.Revision == 0 || m.Etcd.Keys == 0 {
		t.Errorf("%+v", m.Etcd)
	}
	for name, n := range b.Nodes {
		if out, _ := n.Sh("ls -d /var/lib/slipway/daytwo-* 2>/dev/null"); out != "" {
			t.Errorf("%s keeps %s", name, out)
		}
	}
	key, err := backup.KeyFrom("", identity)
	if err != nil {
		t.Fatal(err)
	}
	a, err := backup.Open(path, key)
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := a.Files(backup.HostsDir)
	if err != nil || len(hosts) != 3 || !strings.Contains(string(hosts["master01.tar"]), "etc/systemd/system/kube-apiserver.service") {
		t.Errorf("%d hosts' configuration, %v", len(hosts), err)
	}

	t.Run("the same machines", func(t *testing.T) {
		b.kubectl("master01", "patch configmap kept --type merge -p '{\"data\":{\"value\":\"after\"}}'")
		b.kubectl("master01", "create configmap later")
		began := time.Now()
		if err := b.Restore(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		t.Logf("restored in %v", time.Since(began))
		b.holds(t)
		b.Unchanged(t, b.plan())
	})
	for _, n := range b.Nodes {
		n.Off()
	}
	t.Run("new machines", func(t *testing.T) {
		b := machines(t, threeMembers, programs)
		kept, err := daytwo.RestorePKI(a, b.Cluster.Inputs.PKI, time.Now())
		if err != nil || kept == "" {
			t.Fatal(kept, err)
		}
		began := time.Now()
		if err := b.Restore(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		t.Logf("restored in %v", time.Since(began))
		b.holds(t)
		b.Unchanged(t, b.plan())
	})
}

// holds checks that the cluster has what was kept, and takes more.
func (b *bed) holds(t *testing.T) {
	t.Helper()
	if got := b.kubectl("master01", "get configmap kept -o jsonpath={.data.value}"); got != "before" {
		t.Errorf("the kept object has %q", got)
	}
	if got := b.kubectl("master01", "get configmap -o name"); strings.Contains(got, "later") {
		t.Errorf("what came after the backup is there: %s", got)
	}
	b.kubectl("master01", "create configmap written")
	for name := range b.Nodes {
		if got := b.etcdctl(name, "get --keys-only /registry/configmaps/default/written"); got != "/registry/configmaps/default/written" {
			t.Errorf("%s has %q", name, got)
		}
	}
	if got := strings.Count(b.etcdctl("etcd02", "member list"), "started"); got != 3 {
		t.Errorf("%d members", got)
	}
}
