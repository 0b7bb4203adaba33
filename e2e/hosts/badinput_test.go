package hosts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/installer/preflight"
)

// What is wrong with a machine is said by its name, before anything is changed on
// any of them.
func TestBadInput(t *testing.T) {
	built(t)
	r := Start(t, 3, 0)
	file := r.ClusterFile("flannel-vxlan")
	bare := r.states(t)
	t.Run("the way there", func(t *testing.T) { r.Use(t); r.badWays(t, file) })
	t.Run("the machine", func(t *testing.T) { r.Use(t); r.badMachines(t, file) })
	t.Run("in the middle", func(t *testing.T) { r.Use(t); r.badMiddle(t, file) })
	r.same(t, bare, nil)
}

// replaced puts another text into a file until the test ends.
func replaced(t *testing.T, path, old, new string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), old) {
		t.Fatalf("%s has no %q", path, old)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(path, []byte(strings.Replace(string(raw), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// badWays are the ways on which nobody gets to a machine.
func (r *Rig) badWays(t *testing.T, file string) {
	known := filepath.Join(r.Home, ".ssh", "known_hosts")
	host2 := r.Machine("host2")
	for name, c := range map[string]struct {
		spoil func(t *testing.T)
		want  []string
	}{
		"nobody is there": {func(t *testing.T) { replaced(t, file, "10.79.0.12, ssh: {", "10.79.0.12, ssh: {host: 10.79.0.99, ") }, []string{"host2", "10.79.0.99", "is the machine on"}},
		"nobody listens":  {func(t *testing.T) { replaced(t, file, "10.79.0.12, ssh: {", "10.79.0.12, ssh: {port: 2222, ") }, []string{"host2", "10.79.0.12:2222", "refused"}},
		"a wrong key": {func(t *testing.T) {
			host2.Must("mv /etc/ssh/authorized_keys /etc/ssh/away")
			t.Cleanup(func() { host2.Must("mv /etc/ssh/away /etc/ssh/authorized_keys") })
		}, []string{"host2", "it takes none of the keys", "id_ed25519"}},
		"another machine than it was": {func(t *testing.T) {
			raw, err := os.ReadFile(known)
			if err != nil {
				t.Fatal(err)
			}
			var second, third string
			for l := range strings.Lines(string(raw)) {
				if strings.HasPrefix(l, "10.79.0.12 ") {
					second = l
				}
				if strings.HasPrefix(l, "10.79.0.13 ") {
					third = l
				}
			}
			replaced(t, known, second, strings.Replace(third, "10.79.0.13", "10.79.0.12", 1))
		}, []string{"host2", "not the known one", "somebody may be in between"}},
		"a machine that is not known": {func(t *testing.T) { replaced(t, known, "10.79.0.12 ", "10.79.0.250 ") }, []string{"host2", "is not known", "--accept-new"}},
		"nobody becomes root": {func(t *testing.T) {
			replaced(t, file, "10.79.0.12, ssh: {user: "+User, "10.79.0.12, ssh: {user: "+UserNobody)
		}, []string{"host2", "sudo"}},
		"sudo asks": {func(t *testing.T) {
			replaced(t, file, "10.79.0.12, ssh: {user: "+User, "10.79.0.12, ssh: {user: "+UserAsked)
		}, []string{"host2", "sudo asks for a password", "have the password asked for"}},
		"a login that talks": {func(t *testing.T) {
			host2.Must("cp -a ~ops/.bashrc /tmp/bashrc; sed -i '1i echo Welcome to host2; exit 0' ~ops/.bashrc")
			t.Cleanup(func() { host2.Must("cp -a /tmp/bashrc ~ops/.bashrc; rm /tmp/bashrc") })
		}, []string{"host2", "Welcome to host2", "must print nothing"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.spoil(t)
			o := r.Slipway("install", "apply", "-f", file, "--unrehearsed")
			if o.Code == 0 || o.Code == 5 { // nothing was begun
				t.Errorf("exit code %d", o.Code)
			}
			for _, want := range c.want {
				if !strings.Contains(o.Stderr, want) {
					t.Errorf("it does not say %q: %v", want, o)
				}
			}
			if strings.Contains(o.Stderr, "host1: ") || strings.Contains(o.Stderr, "host3: ") {
				t.Errorf("it blames others: %v", o)
			}
		})
	}
}

// badMachines are machines that will not do, all of it at once: each has its
// finding, with its name.
func (r *Rig) badMachines(t *testing.T, file string) {
	host1, host2, host3 := r.Machine("host1"), r.Machine("host2"), r.Machine("host3")
	// sudo finds programs there first.
	host3.Must(`printf '#!/bin/sh\nexec /usr/bin/date -d "@$(($(/usr/bin/date +%%s) + 5400))" "$@"\n' >/usr/local/bin/date; chmod 755 /usr/local/bin/date`)
	host2.Must("cp -a /etc/machine-id /etc/machine-id.own; echo " + strings.TrimSpace(host1.Must("cat /etc/machine-id")) + " >/etc/machine-id")
	host2.Must("mkdir -p /var/lib/etcd && mount -t tmpfs -o size=64k small /opt")
	host1.Must("systemd-run --quiet --unit=other --property=Type=simple perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(LocalPort => 6443, Listen => 1, ReuseAddr => 1) or die; sleep'")
	t.Cleanup(func() {
		host1.Must("systemctl stop other")
		host2.Must("umount /opt; rmdir /var/lib/etcd; mv /etc/machine-id.own /etc/machine-id")
		host3.Must("rm /usr/local/bin/date")
	})
	host1.Must("for i in 1 2 3 4 5 6 7 8 9 10; do ss -Hltn 'sport = :6443' | grep -q . && exit 0; sleep 0.2; done; exit 1")
	o := r.Slipway("install", "preflight", "-f", file, "--no-mesh", "-o", "json")
	if o.Code != 1 {
		t.Errorf("%v", o)
	}
	var report struct{ Findings []preflight.Finding }
	if err := json.Unmarshal([]byte(o.Stdout), &report); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	for _, want := range []struct{ check, host, says string }{
		{"ports", "host1", "6443"},
		{"machine-id", "host1", "host2"},
		{"machine-id", "host2", "host1"},
		{"time", "host3", "1h"}, // and a half, less or more the time that asking takes
		{"disk", "host2", "/opt"},
	} {
		found := false
		for _, f := range report.Findings {
			found = found || f.Check == want.check && f.Host == want.host && f.Severity == preflight.Error && strings.Contains(f.Text, want.says) && f.Hint != ""
		}
		if !found {
			t.Errorf("%s of %s: nothing says %q in\n%s", want.check, want.host, want.says, o.Stdout)
		}
	}
	// Apply looks itself.
	if o := r.Slipway("install", "apply", "-f", file, "--unrehearsed"); o.Code == 0 || !strings.Contains(o.String(), "6443") {
		t.Errorf("%v", o)
	}
}

// badMiddle is what goes wrong when the installation is at work already: it says
// where, and what was said there; the other machines go on to the step's end.
func (r *Rig) badMiddle(t *testing.T, file string) {
	host2 := r.Machine("host2")
	t.Cleanup(func() { r.SlipwayMust("install", "reset", "-f", file, "--purge") })
	host2.Must("mkdir -p /etc/sysctl.d && mount --bind /etc/sysctl.d /etc/sysctl.d && mount -o remount,ro,bind /etc/sysctl.d")
	o := r.Slipway("install", "apply", "-f", file, "--unrehearsed", "--phase", "01")
	host2.Must("umount /etc/sysctl.d")
	for _, want := range []string{"host2", "01-base", "/etc/sysctl.d/90-slipway.conf", "Read-only file system"} {
		if !strings.Contains(o.Stderr, want) {
			t.Errorf("it does not say %q: %v", want, o)
		}
	}
	if o.Code != 5 {
		t.Errorf("%v", o)
	}
	for _, name := range []string{"host1", "host3"} {
		r.Machine(name).Must("test -e /etc/sysctl.d/90-slipway.conf")
	}
	r.SlipwayMust("install", "apply", "-f", file, "--unrehearsed", "--phase", "01")
	host2.Must("test -e /etc/sysctl.d/90-slipway.conf")

	host2.Must("mkdir -p /opt/slipway && mount -t tmpfs -o size=1m small /opt/slipway")
	o = r.Slipway("install", "apply", "-f", file, "--unrehearsed", "--phase", "02", "--ignore", "disk", "--no-mesh")
	host2.Must("umount /opt/slipway && rmdir /opt/slipway")
	if o.Code != 5 || !strings.Contains(o.Stderr, "host2") || !strings.Contains(o.Stderr, "are free on /opt/slipway") {
		t.Errorf("%v", o)
	}
}
