package installer

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/pki"
)

// What is wrong with machines, files or certificates is said by name before
// anything is changed, and once it is mended the next run installs.
func TestBadInput(t *testing.T) {
	r := rig.New(t, "  nodes: [{name: etcd01, roles: [etcd]}]\n", rig.Programs(t, "etcd"))
	n := r.Nodes["etcd01"]
	bare := state(r)
	sh := func(t *testing.T, script string) {
		t.Helper()
		if out, code := n.Sh(script); code != 0 {
			t.Fatalf("%s: %d: %s", script, code, out)
		}
	}
	phases := []string{"00", "01", "03", "04"}
	apply := func(t *testing.T, phases ...string) error {
		t.Helper()
		if _, err := r.Inputs.PKI.Ensure(cluster.Certificates(r.Inputs)); err != nil {
			return err
		}
		plan, err := cluster.Plan(r.Inputs, phases...)
		if err != nil {
			return err
		}
		return r.Engine.Apply(t.Context(), plan)
	}
	refused := func(t *testing.T, err error, want ...string) {
		t.Helper()
		if err == nil {
			t.Fatal("it was installed")
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q is not in: %v", w, err)
			}
		}
	}
	untouched := func(t *testing.T) {
		t.Helper()
		if got := state(r); got != bare {
			t.Errorf("half installed: %s\nbefore: %s", got, bare)
		}
	}
	// mended installs and takes it back, for the next.
	mended := func(t *testing.T) {
		t.Helper()
		if err := apply(t, phases...); err != nil {
			t.Fatal(err)
		}
		if out, code := n.Sh(ctl + "put key value"); code != 0 {
			t.Errorf("%s", out)
		}
		if _, err := installer.Undo(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		untouched(t)
	}
	t.Run("a port in use", func(t *testing.T) {
		const listen = `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 2381, Listen => 1) or die; sleep 300' </dev/null >/dev/null 2>&1 & echo $! >/tmp/pid; for i in $(seq 100); do ss -Hltn | grep -q :2381 && exit; sleep 0.05; done; exit 1`
		sh(t, listen)
		refused(t, apply(t, phases...), "etcd01: 00-preflight", "ports of etcd.service: 2381", "127.0.0.1:2381 is in use by perl, process", "end it")
		untouched(t)
		sh(t, "kill $(cat /tmp/pid)")
		mended(t)
		// Where it is nobody's concern of ours.
		sh(t, strings.ReplaceAll(listen, `"127.0.0.1"`, `"127.0.0.2"`))
		mended(t)
		sh(t, "kill $(cat /tmp/pid)")
	})
	t.Run("another cluster's data", func(t *testing.T) {
		own := r.Inputs.PKI
		r.Inputs.PKI = &pki.Store{Dir: t.TempDir(), Algorithm: pki.ECDSA, Now: time.Now}
		if err := apply(t, phases...); err != nil {
			t.Fatal(err)
		}
		sh(t, ctl+"put theirs yes && systemctl stop etcd && cp -a /var/lib/etcd /var/lib/away")
		r.Inputs.PKI = own
		refused(t, apply(t, phases...), "etcd01: 00-preflight", "authority ca.crt", "/etc/kubernetes/pki/ca.crt is of another cluster")
		if _, err := installer.Undo(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		untouched(t)
		// The certificates are gone, the data is left.
		sh(t, "rmdir /var/lib/etcd 2>/dev/null; mv /var/lib/away /var/lib/etcd")
		for _, phases := range [][]string{phases, {"04"}} {
			refused(t, apply(t, phases...), "etcd01: "+map[bool]string{true: "00-preflight", false: "04-etcd"}[len(phases) > 1], "etcd's data", "/var/lib/etcd holds the data of another cluster")
			if out, code := n.Sh("pgrep -x etcd; ls /usr/local/bin/etcd /etc/systemd/system/etcd.service /etc/kubernetes/pki 2>/dev/null"); code == 0 || out != "" {
				t.Errorf("half installed: %s", out)
			}
		}
		sh(t, "mv /var/lib/etcd /var/lib/etcd.old")
		mended(t)
		sh(t, "test -e /var/lib/etcd.old/member && rm -r /var/lib/etcd.old")
	})
	t.Run("an authority that is no good", func(t *testing.T) {
		s := &pki.Store{Dir: t.TempDir(), Algorithm: pki.ECDSA, Now: func() time.Time { return time.Now().AddDate(-20, 0, 0) }}
		if _, err := s.Ensure(nil); err != nil { // twenty years ago
			t.Fatal(err)
		}
		own := r.Inputs.PKI
		defer func() { r.Inputs.PKI = own }()
		r.Inputs.PKI = &pki.Store{Dir: s.Dir, Algorithm: pki.ECDSA, Now: time.Now}
		err := apply(t, phases...)
		var bad *pki.AuthorityError
		if refused(t, err, filepath.Join(s.Dir, "ca.crt"), "expired on"); !errors.As(err, &bad) {
			t.Errorf("%T", err)
		}
		untouched(t)
		if err := filepath.WalkDir(s.Dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				err = os.Remove(path)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		mended(t)
	})
	t.Run("a program that is not there", func(t *testing.T) {
		etcd := r.Inputs.Programs["etcd"]
		delete(r.Inputs.Programs, "etcd")
		refused(t, apply(t, phases...), "program etcd is not in the catalogue's cache")
		gone := etcd
		gone.Path = filepath.Join(t.TempDir(), "gone")
		gone.Sum = strings.Repeat("0", 64)
		r.Inputs.Programs["etcd"] = gone
		refused(t, apply(t, phases...), "etcd01: 04-etcd", "/usr/local/bin/etcd")
		if out, code := n.Sh("pgrep -x etcd; ls -d /usr/local/bin/etcd /etc/systemd/system/etcd.service 2>/dev/null"); code == 0 || out != "" {
			t.Errorf("half installed: %s", out)
		}
		r.Inputs.Programs["etcd"] = etcd
		mended(t)
	})
}
