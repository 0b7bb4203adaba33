package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/installer"
)

func addr(t testing.TB, s string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func sh(script string) installer.Command {
	return installer.Command{Argv: []string{"sh", "-s"}, Stdin: []byte(script)}
}

// newBlob makes one of random bytes.
func newBlob(t testing.TB, size int) (installer.Blob, []byte) {
	t.Helper()
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	path := filepath.Join(t.TempDir(), "blob")
	write(t, path, string(data))
	sum := sha256.Sum256(data)
	return installer.Blob{Sum: hex.EncodeToString(sum[:]), Size: int64(size), Path: path}, data
}

const allowed = `printf 'ops ALL=(ALL) NOPASSWD: ALL\n' >/etc/sudoers.d/ops`

// A program gets its words and its input as they are, and its output, errors and
// exit code come back as they are: as root, and through sudo.
func TestRun(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", allowed, "")
	for _, user := range []string{"root", "ops"} {
		h := o.open(t, m, user)
		odd := []string{"", "a b", `it's "so"`, `back\slash \n`, "two\nlines", "$HOME `id` !!", "ünï", "-n", "*", "%s%%"}
		input := []byte("first\n\x00\xff last")
		script := `for a in "$@"; do printf '<%s>' "$a"; done; cat; id -u >&2; exit 7`
		got, err := h.Run(t.Context(), installer.Command{Argv: append([]string{"sh", "-c", script, "sh"}, odd...), Stdin: input})
		if err != nil {
			t.Fatal(err)
		}
		want := installer.Result{Code: 7, Stdout: []byte("<" + strings.Join(odd, "><") + ">" + string(input)), Stderr: []byte("0\n")}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", user, diff)
		}
		if r, err := h.Run(t.Context(), sh("kill -KILL $$")); err != nil || r.Code != 128+9 {
			t.Errorf("%s: killed program: %+v, %v", user, r, err)
		}
		if _, err := h.Run(t.Context(), installer.Command{Argv: []string{"/no/such/program"}}); err == nil || !strings.Contains(err.Error(), "node01: there is no program /no/such/program") {
			t.Errorf("%s: %v", user, err)
		}
	}
}

// A blob arrives in root's store, whoever logs in, and is not sent twice; files
// come back.
func TestStoreAndFetch(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", allowed, "")
	for i, user := range []string{"root", "ops"} {
		blob, data := newBlob(t, 3<<20+17+i)
		sent := 0
		h := o.open(t, m, user, func(o *Options) {
			o.Tell = func(e Event) {
				if e.Kind == Sending {
					sent++
				}
			}
		})
		for range 2 {
			if err := h.Store(t.Context(), blob); err != nil {
				t.Fatal(err)
			}
		}
		if sent != 4 { // 1, 2, 3 MiB, the rest; and nothing the second time
			t.Errorf("%s: %d messages of sending", user, sent)
		}
		path := installer.StorePath(blob.Sum)
		if got := m.sh(t, "stat -c '%a %U:%G' "+path+"; ls "+installer.StoreDir+" | grep -c part || true"); got != "755 root:root\n0" {
			t.Errorf("%s: %q", user, got)
		}
		var back bytes.Buffer
		if err := h.Fetch(t.Context(), path, &back); err != nil || !bytes.Equal(back.Bytes(), data) {
			t.Errorf("%s: fetched %d bytes, %v", user, back.Len(), err)
		}
		if err := h.Fetch(t.Context(), "/no/such/file", &back); err == nil || !strings.Contains(err.Error(), "No such file") {
			t.Errorf("%s: %v", user, err)
		}
	}
	if st, err := os.Stat(o.path("known_hosts")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("known_hosts: %v, %v", st, err)
	}
}
