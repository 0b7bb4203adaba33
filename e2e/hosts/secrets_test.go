package hosts

import (
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyMaterial is what of the cluster's keys would show that one has got out: lines
// from their middle, as they are and as base64 has them in kubeconfigs.
func (r *Rig) keyMaterial(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	dir := filepath.Join(r.State, "sites", "site", "pki")
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(raw), "PRIVATE KEY") && !strings.HasSuffix(path, ".key") && !strings.Contains(path, "token") {
			return err
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		for _, l := range strings.Split(string(raw), "\n") {
			if len(l) >= 16 && !strings.HasPrefix(l, "-----") {
				out[strings.TrimSpace(l)] = path
				break
			}
		}
		coded := base64.StdEncoding.EncodeToString(raw)
		out[coded[len(coded)/2:][:min(24, len(coded)/2)]] = path
		return nil
	})
	if err != nil || len(out) < 6 {
		t.Fatalf("%d keys: %v", len(out), err)
	}
	return out
}

func (r *Rig) secretsIn(t *testing.T, where, text string) {
	t.Helper()
	if strings.Contains(text, "PRIVATE KEY") {
		t.Errorf("%s shows a private key", where)
	}
	for material, of := range r.keyMaterial(t) {
		if strings.Contains(text, material) {
			t.Errorf("%s shows %s", where, of)
		}
	}
}

// secrets looks for keys wherever they do not belong.
func (r *Rig) secrets(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(r.State, "sites"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 && info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
		if e.IsDir() || strings.Contains(path, "/pki/") {
			return nil
		}
		raw, err := os.ReadFile(path)
		r.secretsIn(t, path, string(raw))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.Machines {
		// What any user of the machine could read: logs, command lines, files.
		r.secretsIn(t, "the log of "+m.Name(), m.Must("journalctl --no-pager -o cat"))
		r.secretsIn(t, "a command line of "+m.Name(), m.Must("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
		readable := m.Must("find / /var/lib /run -xdev \\( -path /proc -o -path /sys \\) -prune -o -type f -perm /077 -size -64k -print0 | xargs -0 grep -lsE 'PRIVATE KEY|client-key-data' || true")
		for f := range strings.Lines(readable) {
			if !strings.HasPrefix(f, "/usr/") && !strings.HasPrefix(f, "/opt/slipway/store/") {
				t.Errorf("%s: others than root can read keys in %s", m.Name(), f)
			}
		}
	}
	// Nobody comes in without a certificate, and secrets are not plain in etcd.
	host := r.Machines[0]
	for _, url := range []string{"https://127.0.0.1:6443/api/v1/secrets", "https://10.79.0.11:10250/pods"} {
		if code := host.Must("curl -sk -o /dev/null -w '%{http_code}' " + url); code != "401" && code != "403" {
			t.Errorf("%s answers anybody: %s", url, code)
		}
	}
	if out, code := host.Sh("curl -sk --max-time 5 https://127.0.0.1:2379/version"); code == 0 {
		t.Errorf("etcd answers anybody: %s", out)
	}
	host.Must(kubectl + "create secret generic test --from-literal=word=swordfish-in-etcd && etcdctl version >/dev/null; sync")
	if out := host.Must("grep -rl swordfish-in-etcd /var/lib/etcd || true"); out != "" {
		t.Errorf("a secret is plain in %s", out)
	}
	host.Must(kubectl + "delete secret test")
}
