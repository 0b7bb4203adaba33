package hosts

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
	"slipway/installer/mesh"
	"slipway/installer/preflight"
	"slipway/internal/digest"
	"slipway/internal/testnet"
)

// preflighted is what `install preflight -o json` prints.
type preflighted struct {
	OK       bool                `json:"ok"`
	Findings []preflight.Finding `json:"findings"`
	Mesh     *mesh.Matrix        `json:"mesh"`
}

// preflight looks at the machines and returns its exit code, what it found, and
// all that is not ok, as "severity check host: text".
func (r *Rig) preflight(t *testing.T, args ...string) (p preflighted, bad []string, code int) {
	t.Helper()
	began := time.Now()
	o := r.Slipway(append([]string{"install", "preflight", "-o", "json"}, args...)...)
	t.Logf("preflight: %s", time.Since(began).Round(time.Second/10))
	if err := json.Unmarshal([]byte(o.Stdout), &p); err != nil {
		t.Fatalf("%v: %v", err, o)
	}
	for _, f := range p.Findings {
		if f.Severity != preflight.OK {
			bad = append(bad, fmt.Sprintf("%s %s %s: %s", f.Severity, f.Check, f.Host, f.Text))
		}
	}
	return p, bad, o.Code
}

// greeting is what a login makes.
var greeting = regexp.MustCompile(`^(file|sum) /run/motd`)

// Machines are looked at by SSH, by somebody who becomes root with sudo; ports are
// tried between them; and nothing of it stays.
func TestPreflight(t *testing.T) {
	r := Start(t, 3, 0)
	file := r.ClusterFile("flannel-vxlan")
	bare := r.states(t)
	t.Run("machines that will do", func(t *testing.T) {
		p, bad, code := r.preflight(t, "-f", file)
		for _, b := range bad {
			// What is the box's, on which the machines share a kernel.
			if !strings.HasPrefix(b, "warning modules ") && !strings.HasPrefix(b, "warning cgroup ") && !strings.HasPrefix(b, "warning swap ") && !strings.HasPrefix(b, "warning programs ") {
				t.Errorf("%s", b)
			}
		}
		if code != 0 || !p.OK || len(p.Mesh.Cells) < 30 {
			t.Errorf("exit code %d, %d cells", code, len(p.Mesh.Cells))
		}
		r.same(t, bare, greeting)
	})
	t.Run("machines that will not", func(t *testing.T) {
		host2, host3 := r.Machine("host2"), r.Machine("host3")
		host2.Must("iptables -A INPUT -p udp --dport 8472 -j DROP")
		host3.Must(`hostname host1
mkdir -p /etc/cni/net.d && echo '{}' >/etc/cni/net.d/10-old.conflist
systemd-run -q --unit squatter systemd-socket-activate --accept --inetd -l 0.0.0.0:10250 cat
for i in $(seq 600); do ss -Hltn | grep -q :10250 && exit; sleep 0.05; done; exit 1`)
		p, bad, code := r.preflight(t, "-f", file)
		bad = slices.DeleteFunc(bad, func(b string) bool { return !strings.HasPrefix(b, "error ") })
		for i, b := range bad { // its process
			bad[i], _, _ = strings.Cut(b, ", process ")
		}
		want := []string{
			"error hostname host1: its host name is host1, and so is that of host3", "error hostname host3: its host name is host1, and so is that of host1",
			"error ports host3: 0.0.0.0:10250/tcp of kubelet.service is in use by systemd-socket-",
			"error cni-leftovers host3: there are files of an older pod network: /etc/cni/net.d/10-old.conflist",
			"error mesh host1: to host2: timeout: 8472/udp (pods' packets by VXLAN): no packet is answered",
			"error mesh host3: to host2: timeout: 8472/udp (pods' packets by VXLAN): no packet is answered",
		}
		if d := cmp.Diff(want, bad); d != "" || code != 1 || p.OK {
			t.Errorf("exit code %d, want -, got +:\n%s", code, d)
		}
		for _, c := range p.Mesh.Held() {
			if c.To != "host3" || c.Port != 10250 || c.By != "systemd-socket-" {
				t.Errorf("%+v", c)
			}
		}
		if len(p.Mesh.Held()) != 1 {
			t.Errorf("%+v", p.Mesh.Held())
		}
		p, _, code = r.preflight(t, "-f", file, "--no-mesh", "--ignore", "hostname,ports", "--ignore", "cni-leftovers")
		if code != 0 || !p.OK || p.Mesh != nil {
			t.Errorf("exit code %d where all is ignored", code)
		}
		host2.Must("iptables -D INPUT -p udp --dport 8472 -j DROP")
		host3.Must("hostname host3; systemctl stop squatter; rm -r /etc/cni")
	})
	t.Run("a program that was there stays", func(t *testing.T) {
		m := r.Machine("host1")
		sum, _, err := digest.File(Binary())
		if err == nil {
			err = m.Store(t.Context(), installer.Blob{Sum: sum, Path: Binary()})
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, _, code := r.preflight(t, "-f", file); code != 0 {
			t.Errorf("exit code %d", code)
		}
		m.Must("test -x " + installer.StorePath(sum) + " && rm -r /opt/slipway && test ! -e /run/slipway-lent")
		r.Machine("host2").Must("test ! -e /opt/slipway && test ! -e /run/slipway-lent")
	})
	t.Run("an operator that is killed", func(t *testing.T) {
		m := r.Machine("host2")
		listens := func() bool {
			out, _ := m.Sh("ss -Hltn")
			return strings.Contains(out, ":30000 ")
		}
		cmd := r.Command(Binary(), "install", "preflight", "-f", file, "--timeout", "1m")
		// Somebody is waited for who does not answer.
		r.Machine("host3").Must("iptables -A INPUT -p tcp --dport 10256 -j DROP")
		r.Begin(cmd)
		testnet.Eventually(t, longest, "listeners stand", func() (bool, string) { return listens(), "" })
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		testnet.Eventually(t, longest, "listeners end", func() (bool, string) { return !listens(), "" })
		// What it had no time to take back, the next takes back.
		r.Machine("host3").Must("iptables -D INPUT -p tcp --dport 10256 -j DROP")
		if _, bad, code := r.preflight(t, "-f", file); code != 0 {
			t.Errorf("exit code %d: %q", code, bad)
		}
		r.same(t, bare, greeting)
	})
	t.Run("a machine that is off", func(t *testing.T) {
		r.Machine("host2").Off()
		o := r.Slipway("install", "preflight", "-f", file)
		if o.Code != 3 || !strings.Contains(o.Stderr, "host2") || strings.Contains(o.Stderr, "host1:") {
			t.Errorf("%v", o)
		}
	})
}
