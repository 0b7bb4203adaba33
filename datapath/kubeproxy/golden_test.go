package kubeproxy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/topology"
)

// golden is one case of testdata (see its README).
type golden struct {
	Node     string
	Options  Options
	Snapshot topology.Snapshot
}

func goldens(t *testing.T) map[string]golden {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	out := map[string]golden{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var g golden
		if err := json.Unmarshal(data, &g); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		out[strings.TrimSuffix(filepath.Base(f), ".json")] = g
	}
	return out
}

// text reads a golden file; ok is false where the case has none of that kind.
func text(t testing.TB, name string) (s string, ok bool) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if errors.Is(err, os.ErrNotExist) {
		return "", false
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data), true
}

func TestRenderEqualsKubeProxy(t *testing.T) {
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			want, ok := text(t, name+".restore.golden")
			if !ok {
				t.Fatal("no golden file")
			}
			got, err := Render(g.Snapshot, g.Node, g.Options)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); d != "" {
				t.Errorf("differs from kube-proxy (-kube-proxy +slipway):\n%s", d)
			}
		})
	}
}

// What is planned is what the kernel shows once kube-proxy has run, down to the
// last line: chains, their rules, and the order of the jumps.
func TestPlanEqualsKernel(t *testing.T) {
	for name, g := range goldens(t) {
		t.Run(name, func(t *testing.T) {
			set, err := Plan(g.Snapshot, g.Node, g.Options)
			if err != nil {
				t.Fatal(err)
			}
			want, ok := text(t, name+".save.golden")
			if !ok {
				return // nfacct: only that every rule has a save form
			}
			if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(saved(set), "\n")); d != "" {
				t.Errorf("differs from iptables-legacy-save (-kernel +slipway):\n%s", d)
			}
		})
	}
}

var builtin = map[string][]string{
	"mangle": {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"},
	"filter": {"INPUT", "FORWARD", "OUTPUT"},
	"nat":    {"PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"},
}

// saved is the rule set as iptables-legacy-save prints it in a namespace that
// has nothing else: own chains sorted, rules by chain.
func saved(set datapath.RuleSet) string {
	var b strings.Builder
	for _, t := range set.Tables {
		own := slices.Sorted(slices.Values(t.Chains))
		fmt.Fprintf(&b, "*%s\n", t.Name)
		for _, c := range builtin[t.Name] {
			fmt.Fprintf(&b, ":%s ACCEPT [0:0]\n", c)
		}
		for _, c := range own {
			fmt.Fprintf(&b, ":%s - [0:0]\n", c)
		}
		var lines []string
		for _, j := range t.Jumps {
			lines = append(lines, j.Rule)
		}
		lines = append(lines, t.Rules...)
		for _, c := range append(slices.Clone(builtin[t.Name]), own...) {
			for _, l := range lines {
				if strings.HasPrefix(l, "-A "+c+" ") {
					b.WriteString(l + "\n")
				}
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// large is a cluster of n endpoints, ten to a service: the case that
// testdata/README.md speaks of.
func large(n int) topology.Snapshot {
	s := topology.Snapshot{Nodes: []topology.NodeState{{Node: topology.Node{Name: "node01", Address: netip.MustParseAddr("192.168.233.30")}}}}
	s.Network.PodCIDR = netip.MustParsePrefix("10.244.0.0/16")
	for i := range n {
		if i%10 == 0 {
			k := i / 10
			s.Services = append(s.Services, topology.Service{
				Namespace: "a", Name: fmt.Sprintf("s%03d", k), Type: topology.ClusterIP,
				ClusterIP:        netip.AddrFrom4([4]byte{10, 96, byte(8 + k/250), byte(k%250 + 1)}),
				AffinityClientIP: true, AffinitySeconds: 10800,
				Ports: []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: 80, TargetPort: "80"}},
			})
		}
		p := &s.Services[i/10].Ports[0]
		p.Endpoints = append(p.Endpoints, topology.Endpoint{
			Address: netip.AddrFrom4([4]byte{10, 244, byte(1 + i/250), byte(i%250 + 1)}), Port: 80,
			Node: "node01", Ready: true, Serving: true,
		})
	}
	return s
}

// Above 1,000 endpoints kube-proxy leaves comments out of the endpoints' rules.
func TestLargeCluster(t *testing.T) {
	for n, want := range map[int]string{
		1000: "5183a45e7d126025150c1e5de8b2fd5d429370b9d69bc1818591233a6a3c277e",
		1001: "a50ef293521130746843d2c70ee479d855dc90eb4a027f99bb95429a2ba45826",
	} {
		s := large(n)
		got, err := Render(s, "node01", DefaultOptions(s))
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != want {
			t.Errorf("%d endpoints: not what kube-proxy writes", n)
		}
		commented := strings.Contains(string(got), "a/s000 -> 10.244.1.1:80")
		if commented != (n <= 1000) {
			t.Errorf("%d endpoints: comments on endpoints: %v", n, commented)
		}
	}
}

func TestUnknownNode(t *testing.T) {
	if _, err := Plan(topology.Snapshot{}, "ghost", Options{}); err == nil || !strings.Contains(err.Error(), "node ghost: no such node") {
		t.Errorf("planning for a node that is not there: %v", err)
	}
}

func TestLocalhostNodePortsNeedRouteLocalnet(t *testing.T) {
	want := []datapath.Sysctl{{Key: "net/ipv4/conf/all/route_localnet", Value: "1"}}
	if d := cmp.Diff(want, Sysctls(DefaultOptions(topology.Snapshot{}))); d != "" {
		t.Error(d)
	}
	if got := Sysctls(Options{}); got != nil {
		t.Errorf("without localhost node ports: %v", got)
	}
}

// services makes n services with three endpoints each.
func services(n int) topology.Snapshot {
	s := large(0)
	for i := range n {
		var eps []topology.Endpoint
		for k := range 3 {
			at := 3*i + k
			eps = append(eps, topology.Endpoint{Address: netip.AddrFrom4([4]byte{10, 244, byte(at >> 8), byte(at)}), Port: 8080, Ready: true, Serving: true})
		}
		s.Services = append(s.Services, topology.Service{
			Namespace: "default", Name: fmt.Sprintf("service-%05d", i), Type: topology.NodePort,
			ClusterIP: netip.AddrFrom4([4]byte{10, 96, byte(i >> 8), byte(i)}),
			Ports:     []topology.ServicePort{{Name: "http", Protocol: topology.TCPProtocol, Port: 80, NodePort: 1024 + i, Endpoints: eps}},
		})
	}
	return s
}

func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		s := services(n)
		o := DefaultOptions(s)
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := Plan(s, "node01", o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
