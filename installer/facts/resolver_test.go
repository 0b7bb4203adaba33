package facts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Pods are told of name servers that they reach, as kubeadm does
// (cmd/kubeadm/app/componentconfigs/kubelet.go, systemd-resolved).
func TestResolvConf(t *testing.T) {
	const own, beyond, manager = "/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"
	for name, c := range map[string]struct {
		servers map[string]string
		want    string
	}{
		"a server of the network":         {map[string]string{own: "192.168.233.1"}, own},
		"Ubuntu's stub":                   {map[string]string{own: "127.0.0.53", beyond: "192.168.233.1 fe80::1%ens3"}, beyond},
		"NetworkManager's dnsmasq":        {map[string]string{own: "127.0.0.1", manager: "192.168.233.1"}, manager},
		"the second server is elsewhere":  {map[string]string{own: "127.0.0.1 192.168.233.1"}, own},
		"a resolver of the machine's own": {map[string]string{own: "127.0.0.1 ::1"}, ""},
		"no server":                       {map[string]string{own: ""}, ""},
		"what is no address":              {map[string]string{own: "dns.example"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var f Facts
			for _, path := range resolvers {
				if servers, there := c.servers[path]; there {
					r := reading{f: f}
					if err := readResolver(&r, []string{path, servers}); err != nil {
						t.Fatal(err)
					}
					f = r.f
				}
			}
			if got := f.ResolvConf(); got != c.want {
				t.Errorf("%q, not %q", got, c.want)
			}
		})
	}
}

// The script reads files as the C library does: whatever is around, and without a
// last end of line.
func TestResolversOfFiles(t *testing.T) {
	dir := t.TempDir()
	text := "# nameserver 10.0.0.9\nsearch example.org\n  nameserver\t10.0.0.1 \noptions edns0\nnameserver 10.0.0.2"
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	script := body[:strings.LastIndex(body, "all </dev/null")] + "RESOLVERS='" + dir + "/a " + dir + "/none'\nresolvers\n"
	out, err := exec.Command("sh", "-c", script).CombinedOutput()
	if want := "resolver\t" + dir + "/a\t10.0.0.1 10.0.0.2\nresolver\t" + dir + "/none\t\n"; err != nil || string(out) != want {
		t.Errorf("%v: %q, not %q", err, out, want)
	}
}
