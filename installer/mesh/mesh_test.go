package mesh_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/facts"
	"slipway/installer/mesh"
	"slipway/internal/digest"
	"slipway/internal/testnet"
	"slipway/topology"
)

// TestMain is the tests', or what takes part on a host.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == mesh.Command {
		if err := mesh.Main(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	rig.Main(m)
}

const nodes = `  nodes:
    - {name: master01, roles: [control-plane, etcd], address: 192.168.233.10}
    - {name: node01, roles: [worker], address: 192.168.233.31}
    - {name: node02, roles: [worker], address: 192.168.233.32}
    - {name: lb01, roles: [load-balancer], address: 192.168.233.51}
    - {name: lb02, roles: [load-balancer], address: 192.168.233.52}
  controlPlane: {loadBalancer: {mode: external, vip: 192.168.233.100}}
`

func wanted(t *testing.T, spec string) []mesh.Pair {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec:\n"+spec))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	s, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mesh.Wanted(c, s)
}

// ourselves is this test's program.
func ourselves(t *testing.T) installer.Blob {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sum, size, err := digest.File(path)
	if err != nil {
		t.Fatal(err)
	}
	return installer.Blob{Sum: sum, Size: size, Path: path}
}

// On five machines with faults of every kind exactly the cells are closed whose
// way is not there, each with its reason.
func TestFaults(t *testing.T) {
	r := rig.New(t, nodes, nil)
	hosts := map[string]installer.Host{}
	for name, n := range r.Nodes {
		hosts[name] = n
	}
	for name, script := range map[string]string{
		// A firewall that drops one port, and IPIP of one machine; one that says no.
		"node02": "iptables -A INPUT -p tcp --dport 10250 -j DROP && iptables -A INPUT -p tcp --dport 10256 -j REJECT",
		"node01": "iptables -A INPUT -p 4 -s 192.168.233.32 -j DROP && iptables -A INPUT -p tcp --dport 179 -s 192.168.233.10 -j REJECT --reject-with icmp-host-prohibited",
		// A route that is missing.
		"lb02": "ip route add unreachable 192.168.233.31 && ip route add prohibit 192.168.233.32",
		// VRRP that does not get in, and NodePorts that are led elsewhere.
		"lb01": "iptables -A INPUT -p vrrp -j DROP",
		// A program that has a port.
		"master01": `perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(LocalPort => 6443, Listen => 16) or die; sleep 600' </dev/null >/dev/null 2>&1 & for i in $(seq 600); do ss -Hltn | grep -q :6443 && exit; sleep 0.05; done; exit 1`,
	} {
		if out, code := r.Nodes[name].Sh(script); code != 0 {
			t.Fatalf("%s: %s", name, out)
		}
	}
	known, err := facts.Gather(t.Context(), hosts)
	if err != nil {
		t.Fatal(err)
	}
	pairs := wanted(t, "  components: full\n  network: {mode: calico-ipip}\n"+nodes)
	m, err := mesh.Try(t.Context(), hosts, pairs, mesh.Options{Program: ourselves(t), Facts: known, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Cells) != len(pairs) || len(pairs) < 40 {
		t.Errorf("%d cells of %d pairs", len(m.Cells), len(pairs))
	}
	var got []string
	for _, c := range m.Cells {
		if c.State != mesh.Open || c.Reason != "" {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s %s", c.From, c.To, c.Name(), c.State, c.Reason, c.By)))
		}
	}
	want := []string{
		"lb01 master01 6443/tcp held  perl", "lb02 master01 6443/tcp held  perl",
		// Its question was dropped at lb01, and so was the answer to lb01's, which came to lb02.
		"lb02 lb01 vrrp timeout no packet is answered", "lb01 lb02 vrrp open it arrives; its answer does not",
		"master01 node02 10250/tcp timeout", "master01 node02 10256/tcp refused",
		"lb02 node01 30000/tcp no route no route to host", "lb02 node01 31383/tcp no route no route to host", "lb02 node01 32767/tcp no route no route to host",
		"lb02 node02 30000/tcp blocked permission denied", "lb02 node02 31383/tcp blocked permission denied", "lb02 node02 32767/tcp blocked permission denied",
		"master01 node01 179/tcp no route no route to host",
		// What lb02 would answer has no way back.
		"node01 lb02 6443/tcp timeout", "node02 lb02 6443/tcp timeout",
		"node02 node01 ipip timeout no packet is answered", "node01 node02 ipip open it arrives; its answer does not",
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want -, got +:\n%s", d)
	}
	for name, n := range r.Nodes {
		if out, _ := n.Sh("ls -d /run/slipway-lent 2>/dev/null; ss -Hltn | grep -v :6443; grep -c slipway-mesh- /proc/net/unix | grep -v '^0$'"); out != "" {
			t.Errorf("%s has left: %s", name, out)
		}
	}
}

// UDP: a device of the kernel's has VXLAN's port on one machine, a firewall drops
// it on another, and both is so on a third.
func TestVXLAN(t *testing.T) {
	r := rig.New(t, "  nodes: [{name: master01, address: 192.168.233.10}, {name: node01, roles: [worker]}, {name: node02, roles: [worker]}, {name: node03, roles: [worker]}]\n", nil)
	hosts := map[string]installer.Host{}
	for name, n := range r.Nodes {
		hosts[name] = n
	}
	for name, script := range map[string]string{
		"node01": "iptables -A INPUT -p udp --dport 8472 -j DROP",
		"node02": "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 && ip link set flannel.1 up",
		"node03": "ip link add flannel.1 type vxlan id 1 dev eth0 dstport 8472 && ip link set flannel.1 up && iptables -A INPUT -p udp --dport 8472 -s 192.168.233.10 -j DROP",
	} {
		if out, code := r.Nodes[name].Sh(script); code != 0 {
			t.Fatalf("%s: %s", name, out)
		}
	}
	var pairs []mesh.Pair
	for _, p := range mesh.Wanted(r.Inputs.Cluster, r.Inputs.Snapshot) {
		if p.Protocol == mesh.UDP {
			pairs = append(pairs, p)
		}
	}
	m, err := mesh.Try(t.Context(), hosts, pairs, mesh.Options{Program: ourselves(t), Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Cells {
		want := map[string]mesh.State{"master01": mesh.Open, "node01": mesh.Timeout, "node02": mesh.Held, "node03": mesh.Held}[c.To]
		if c.From+c.To == "master01node03" {
			want = mesh.Timeout
		}
		if c.State != want || c.Name() != "8472/udp" {
			t.Errorf("%+v", c)
		}
	}
	if len(m.Cells) != 12 {
		t.Errorf("%d cells", len(m.Cells))
	}
}

// A host that cannot take part is an error, and what it was to try is unknown;
// the others are tried all the same.
func TestHostWithoutPart(t *testing.T) {
	r := rig.New(t, "  nodes: [{name: master01}, {name: node01, roles: [worker]}, {name: node02, roles: [worker]}]\n", nil)
	hosts := map[string]installer.Host{"master01": r.Nodes["master01"], "node01": r.Nodes["node01"], "node02": noProgram{r.Nodes["node02"]}}
	m, err := mesh.Try(t.Context(), hosts, mesh.Wanted(r.Inputs.Cluster, r.Inputs.Snapshot), mesh.Options{Program: ourselves(t), Timeout: time.Second})
	if err == nil || !strings.HasPrefix(err.Error(), "try ports on node02: ") || !strings.Contains(err.Error(), "no room") {
		t.Errorf("%v", err)
	}
	for _, c := range m.Cells {
		if with := c.From == "node02" || c.To == "node02"; with != (c.State == mesh.Unknown && c.Reason == "node02 took no part") || !with && c.State != mesh.Open {
			t.Errorf("%+v", c)
		}
	}
}

type noProgram struct{ installer.Host }

func (noProgram) Store(context.Context, installer.Blob) error { return fmt.Errorf("no room") }

// Whoever is cut off from the operator ends by itself.
func TestCutOff(t *testing.T) {
	testnet.Need(t, testnet.Root)
	r := rig.New(t, "  nodes: [{name: node01}]\n", nil)
	n := r.Nodes["node01"]
	b := ourselves(t)
	if err := n.Store(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	// Its output goes to a program that ends.
	script := fmt.Sprintf(`echo '{"do":"serve","nonce":"0123456789abcdef","timeout":300000000000,"listen":[{"protocol":"tcp","address":"127.0.0.1","port":10257}]}' | %s %s 2>/dev/null | head -c 1`, installer.StorePath(b.Sum), mesh.Command)
	done := make(chan string, 1)
	go func() {
		out, code := n.Sh(script)
		done <- fmt.Sprintf("%d %q", code, out)
	}()
	testnet.Eventually(t, time.Minute, "the listener is gone", func() (bool, string) {
		select {
		case got := <-done:
			return got == `0 "\n"`, got
		default:
			return false, "it serves still"
		}
	})
	if out, _ := n.Sh("ss -Hltn"); out != "" {
		t.Errorf("left: %s", out)
	}
}
