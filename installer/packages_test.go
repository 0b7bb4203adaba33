package installer

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeDebian puts a package manager before the machine's own: what is installed is
// a line of a file, each package of which brings a program and one more package.
func fakeDebian(t *testing.T, mirror bool) (installed func() string) {
	t.Helper()
	dir := t.TempDir()
	list := filepath.Join(dir, "installed")
	get := "echo 'E: Unable to locate package' >&2; exit 100"
	if mirror {
		get = `[ "$policy" = 101 ] || { echo "services would start" >&2; exit 1; }
while [ $# -gt 0 ] && [ "$1" != install ]; do shift; done
[ $# -gt 0 ] || exit 0
shift
for p in "$@"; do
	printf '%s\nlib%s\n' "$p" "$p" >>` + list + `
	printf '#!/bin/sh\n' >` + dir + `/bin/$p; chmod 755 ` + dir + `/bin/$p
done`
	}
	for name, script := range map[string]string{
		"apt-get":    "policy=0; /usr/sbin/policy-rc.d || policy=$?\n" + get,
		"dpkg-query": `case $* in *Package*) sed 's/^/installed /' ` + list + ` ;; *) for n; do :; done; grep -qx "$n" ` + list + ` && printf installed ;; esac`,
		"dpkg":       `shift; for p; do sed -i "/^$p\$/d" ` + list + `; rm -f ` + dir + `/bin/$p; done`,
		"systemctl":  "exit 0",
	} {
		path := filepath.Join(dir, "bin", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(list, []byte("base\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	return func() string {
		data, err := os.ReadFile(list)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(strings.Fields(string(data)), " ")
	}
}

// debian gives a host what every machine of Debian's family has.
func debian(t *testing.T, h *sandbox) {
	t.Helper()
	h.sh(t, "mkdir /var/lib/dpkg; echo 'Package: base' >/var/lib/dpkg/status")
}

func wanted(names ...string) (p Packages) {
	for _, n := range names {
		p.List = append(p.List, Package{Name: n, Has: "command -v " + n})
	}
	return p
}

func TestPackagesComeAndGo(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "mount -t tmpfs tmpfs /usr/sbin") // packages' services are kept from starting there
	debian(t, h)
	installed := fakeDebian(t, true)
	p := planOf("node01", wanted("sh", "slipway-test-a", "slipway-test-b"))
	changed, err := apply(t, h, p)
	if err != nil || len(changed) != 1 {
		t.Fatal(changed, err)
	}
	if got := installed(); got != "base slipway-test-a libslipway-test-a slipway-test-b libslipway-test-b" {
		t.Error(got)
	}
	if changed, err := apply(t, h, p); err != nil || len(changed) != 0 {
		t.Error(changed, err)
	}
	if out := h.sh(t, "ls /usr/sbin"); out != "" {
		t.Errorf("left: %s", out)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := installed(); got != "base" {
		t.Error(got)
	}
}

func TestPackagesThatCannotBeHad(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "mount -t tmpfs tmpfs /usr/sbin")
	debian(t, h)
	fakeDebian(t, false)
	p := wanted("sh", "slipway-test-a")
	p.Versions = map[string]string{"slipway-test-a": "1:2.3-4", "sh": "5"}
	_, err := apply(t, h, planOf("node01", p))
	var failed *StepError
	if !errors.As(err, &failed) || failed.Host != "node01" {
		t.Fatal(err)
	}
	for _, want := range []string{"Unable to locate package", "cannot be installed: slipway-test-a\n", "slipway-test-a 1:2.3-4"} {
		if !strings.Contains(failed.Stderr, want) {
			t.Errorf("%q is not in %q", want, failed.Stderr)
		}
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if out := h.sh(t, "rm -r /var/lib/dpkg; ls /usr/sbin /var/lib"); strings.TrimSpace(strings.ReplaceAll(out, "\n", " ")) != "/usr/sbin:  /var/lib:" {
		t.Errorf("left: %q", out)
	}
}

func TestTheStoreGoesWithWhatIsUndone(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "umount "+StoreDir+" && rmdir "+StoreDir+" /opt/slipway")
	b := blob(t, "program")
	p := planOf("node01", Program{Path: "/opt/bin/x", Blob: b})
	if _, err := apply(t, madeStore{h}, p); err != nil {
		t.Fatal(err)
	}
	if got := h.sh(t, "cat /opt/bin/x"); got != "program" {
		t.Error(got)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := h.sh(t, "ls -A /opt"); got != "" {
		t.Errorf("left: %s", got)
	}
}

// madeStore is a host that keeps blobs on its own disk.
type madeStore struct{ *sandbox }

func (m madeStore) Store(ctx context.Context, b Blob) error {
	data, err := os.ReadFile(b.Path)
	if err != nil {
		return err
	}
	_, err = m.Run(ctx, Command{Argv: []string{"sh", "-c", "cat >" + StorePath(b.Sum)}, Stdin: data})
	return err
}
