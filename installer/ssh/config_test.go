package ssh

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
)

const manyHosts = `# comment
Host web
    HostName 192.0.2.10
    Port 2222
    User deploy
    IdentityFile "~/.ssh/web key"
Host db db?.example
    HostName=%h.internal
    IdentityFile /keys/%r-%h
    IdentitiesOnly yes
    UserKnownHostsFile /etc/known ~/known
Host inner* !inner9
    ProxyJump jump@bastion:2200,second
Host bastion
    HostName 192.0.2.1
Host alias
    HostName 192.0.2.4
    HostKeyAlias the-cluster
Match host 192.0.2.99
    User matched
Host *
    User everybody
    IdentityFile ~/.ssh/all
`

// Targets are reached the way ssh itself would: ssh -G is asked.
func TestConfigurationAsSSHReadsIt(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		testnet.Lacks(t, testnet.SSHD, err) // the client comes with the server
	}
	o := newOperator(t)
	file := o.path("config")
	write(t, file, manyHosts)
	s, err := readSettings(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"web", "db", "db1.example", "inner1", "inner9", "bastion", "alias", "192.0.2.99", "fd00::1"} {
		r, err := s.route(Target{Name: "n", Host: host}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{"hostname": r.host, "port": fmt.Sprint(r.port), "user": r.user, "identityfile": strings.Join(r.keys, "\n"), "identitiesonly": map[bool]string{true: "yes", false: "no"}[r.onlyKeys]}
		var jumps []string
		for _, j := range r.jumps {
			at := j.Host
			if j.User != "" {
				at = j.User + "@" + at
			}
			if j.Port != 0 {
				at += fmt.Sprint(":", j.Port)
			}
			jumps = append(jumps, at)
		}
		got["proxyjump"] = strings.Join(jumps, ",")
		if diff := cmp.Diff(asked(t, s, r, file, host), got); diff != "" {
			t.Errorf("%s (-ssh +ours): %s", host, diff)
		}
	}
}

// asked is what ssh says of the same host. It leaves tildes and tokens of key
// files as they are.
func asked(t *testing.T, s *settings, r route, file, host string) map[string]string {
	t.Helper()
	said := map[string][]string{}
	for l := range strings.Lines(command(t, "ssh", "-G", "-F", file, host)) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), " ")
		said[k] = append(said[k], v)
	}
	out := map[string]string{"proxyjump": strings.Join(said["proxyjump"], "")}
	for _, k := range []string{"hostname", "port", "user", "identitiesonly"} {
		out[k] = strings.Join(said[k], "")
	}
	for i, k := range said["identityfile"] {
		said["identityfile"][i] = s.expand(k, r)
	}
	out["identityfile"] = strings.Join(said["identityfile"], "\n")
	return out
}

// What the cluster file says goes before what the configuration says; the usual
// port, which a cluster file has by default, does not.
func TestWhatTheClusterFileSays(t *testing.T) {
	o := newOperator(t)
	write(t, o.path("config"), manyHosts)
	s, err := readSettings(o.path("config"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		target        Target
		user, address string
	}{
		{Target{Name: "web"}, "deploy", "192.0.2.10:2222"},
		{Target{Name: "web", Port: 22}, "deploy", "192.0.2.10:2222"},
		{Target{Name: "node01", Host: "web", User: "root", Port: 2022}, "root", "192.0.2.10:2022"},
		{Target{Name: "node01", Host: "198.51.100.1"}, "everybody", "198.51.100.1:22"},
	} {
		r, err := s.route(c.target, Options{Keys: []string{"/first"}})
		if err != nil || r.user != c.user || r.address() != c.address || r.keys[0] != "/first" {
			t.Errorf("%+v: %+v, %v", c.target, r, err)
		}
	}
	r, err := s.route(Target{Name: "db"}, Options{})
	if want := []string{"/etc/known", s.home + "/known"}; err != nil || !slices.Equal(r.knownHosts[:2], want) {
		t.Errorf("known hosts: %v, %v", r.knownHosts, err)
	}
}

// A configuration that cannot be followed is an error that names it.
func TestBadConfigurations(t *testing.T) {
	o := newOperator(t)
	for text, want := range map[string]string{
		"Host *\n  ProxyCommand nc %h %p\n":              "ProxyCommand, which is not followed: say it with ProxyJump",
		"Host *\n  Port many\n":                          "many",
		"Host *\n  ProxyJump a:b\n":                      "no port",
		"Match exec true\n  User x\n":                    "Match Exec is not supported",
		"Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n": "in a circle",
	} {
		write(t, o.path("config"), text)
		opts := o.options()
		opts.ConfigFile = o.path("config")
		_, err := Open(t.Context(), Target{Name: "a"}, opts)
		var e *ConfigError
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), o.path("config")) {
			t.Errorf("%q: %v", text, err)
		}
	}
	opts := o.options()
	opts.ConfigFile = o.path("missing")
	if _, err := Open(t.Context(), Target{Name: "a"}, opts); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
