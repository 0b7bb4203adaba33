package installer

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/testnet"
)

// spec is of three packages; the first needs the last.
const spec = `Name: slipway-test-a
Version: 1
Release: 1
Summary: of a test
License: none
BuildArch: noarch
Requires: slipway-test-lib
%description
Of a test.
%package -n slipway-test-b-tools
Summary: of a test
%description -n slipway-test-b-tools
Of a test.
%package -n slipway-test-lib
Summary: of a test
%description -n slipway-test-lib
Of a test.
%install
mkdir -p %{buildroot}/opt/slipway-test
for f in a b lib; do echo $f >%{buildroot}/opt/slipway-test/$f; done
%files
%dir /opt/slipway-test
/opt/slipway-test/a
%files -n slipway-test-b-tools
%dir /opt/slipway-test
/opt/slipway-test/b
%files -n slipway-test-lib
%dir /opt/slipway-test
/opt/slipway-test/lib
`

// newRPMMachine is a sandbox as a machine of the RHEL family, or of SUSE's, with a
// mirror of packages on its own disk, or one that has none.
func newRPMMachine(t *testing.T, manager string, mirror bool) *sandbox {
	t.Helper()
	testnet.Need(t, testnet.RPM)
	h := newSandbox(t, "node01")
	h.sh(t, `for d in /var/cache /var/log /run; do mount -t tmpfs tmpfs $d; done
mkdir -p /etc/rpm /etc/yum.repos.d /etc/zypp/repos.d /var/lib/rpm /opt/mirror
printf '%%_dbpath /var/lib/rpm\n' >/etc/rpm/macros
printf '[test]\nname=test\nenabled=1\nbaseurl=file:///opt/mirror\ntype=rpm-md\ngpgcheck=0\n' | tee /etc/yum.repos.d/test.repo >/etc/zypp/repos.d/test.repo
rpm --initdb`)
	if manager == "zypper" {
		h.sh(t, "mount --bind /dev/null $(readlink -f $(command -v dnf))")
	}
	built := h.store // on both sides
	if mirror {
		build := exec.Command("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+t.TempDir(), "--define", "_rpmdir "+built, filepath.Join(t.TempDir(), "test.spec"))
		if err := os.WriteFile(build.Args[len(build.Args)-1], []byte(spec), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		h.sh(t, "mv "+StoreDir+"/noarch /opt/mirror/")
	}
	h.sh(t, "createrepo_c -q /opt/mirror")
	return h
}

func rpmsOf(names ...string) (p Packages) {
	for _, n := range names {
		x := Package{Name: "slipway-test-" + n, Has: "test -e /opt/slipway-test/" + n}
		if n == "b" {
			x.RPM = "slipway-test-b-tools"
		}
		p.List = append(p.List, x)
	}
	return p
}

// The package managers themselves, on packages that are built here.
func TestRPMsComeAndGo(t *testing.T) {
	for _, manager := range []string{"dnf", "zypper"} {
		t.Run(manager, func(t *testing.T) {
			h := newRPMMachine(t, manager, true)
			if out := h.sh(t, rpmsOf("a").missing()+"echo $manager"); strings.TrimSpace(out) != manager {
				t.Fatalf("the package manager is %s", out)
			}
			p := planOf("node01", rpmsOf("a", "b"))
			changed, err := apply(t, h, p)
			if err != nil || len(changed) != 1 {
				t.Fatal(changed, err)
			}
			installed := func() string { return strings.Join(strings.Fields(h.sh(t, "rpm -qa --qf '%{NAME}\n' | sort")), " ") }
			if got := installed(); got != "slipway-test-a slipway-test-b-tools slipway-test-lib" {
				t.Error(got)
			}
			if changed, err := apply(t, h, p); err != nil || len(changed) != 0 {
				t.Error(changed, err)
			}
			if _, err := Undo(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			if got := installed() + h.sh(t, "ls /opt"); strings.TrimSpace(got) != "mirror\nslipway" {
				t.Errorf("left: %s", got)
			}
		})
	}
}

// What was there before stays, with what it needs.
func TestRPMsThatWereThereStay(t *testing.T) {
	for _, manager := range []string{"dnf", "zypper"} {
		t.Run(manager, func(t *testing.T) {
			h := newRPMMachine(t, manager, true)
			h.sh(t, "rpm -i /opt/mirror/noarch/slipway-test-lib-*.rpm")
			if _, err := apply(t, h, planOf("node01", rpmsOf("a"))); err != nil {
				t.Fatal(err)
			}
			if _, err := Undo(t.Context(), h); err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(h.sh(t, "rpm -qa --qf '%{NAME}\n'")); got != "slipway-test-lib" {
				t.Errorf("there is %q", got)
			}
		})
	}
}

func TestRPMsThatCannotBeHad(t *testing.T) {
	for manager, says := range map[string]string{"dnf": "Unable to find a match: slipway-test-b-tools", "zypper": "slipway-test-b-tools' not found"} {
		t.Run(manager, func(t *testing.T) {
			h := newRPMMachine(t, manager, false)
			_, err := apply(t, h, planOf("node01", rpmsOf("b")))
			var failed *StepError
			if !errors.As(err, &failed) || failed.Host != "node01" {
				t.Fatal(err)
			}
			for _, want := range []string{says, "cannot be installed: slipway-test-b-tools\n", "install them by hand"} {
				if !strings.Contains(failed.Stderr, want) {
					t.Errorf("%q is not in %q", want, failed.Stderr)
				}
			}
			if _, err := Undo(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		})
	}
}
