package kubeproxy

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/installer/components"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/realproxy"
	"slipway/topology"
)

// one is a node's view of a cluster: what both sides are given.
type one struct {
	Node     string
	Options  kubeproxy.Options
	Snapshot topology.Snapshot
}

// corpus is every case of this directory's testdata, which is manifests on a
// cluster of two nodes, seen from both, and the goldens of datapath/kubeproxy,
// without the two that are of another machine.
func corpus(t *testing.T) map[string]one {
	t.Helper()
	out := map[string]one{}
	for _, f := range files(t, "../../datapath/kubeproxy/testdata/*.json") {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if name == "nfacct" || name == "old-node" {
			continue // kernel and iptables have, or have not, what these say
		}
		var c one
		if err := json.Unmarshal(read(t, f), &c); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		c.Options.ServiceCIDR = c.Snapshot.Network.ServiceCIDR // which the API server has
		out["golden/"+name] = c
	}
	for _, f := range files(t, "testdata/*.yaml") {
		s := manifests(t, f)
		for _, node := range []string{"node01", "node02"} {
			out[strings.TrimSuffix(filepath.Base(f), ".yaml")+"/"+node] = one{Node: node, Options: kubeproxy.DefaultOptions(s), Snapshot: s}
		}
	}
	return out
}

const clusterFile = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: beside}
spec:
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker]}
    - {name: node02, roles: [worker]}
`

// manifests decides everything about a cluster of two nodes with the objects.
func manifests(t *testing.T, path string) topology.Snapshot {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(clusterFile))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	objects, _, err := topology.LoadManifests(path, read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	s, err := lab.Preview(c, objects)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}

func files(t *testing.T, pattern string) []string {
	t.Helper()
	out, err := filepath.Glob(pattern)
	if err != nil || len(out) == 0 {
		t.Fatalf("%s: no cases: %v", pattern, err)
	}
	return out
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// program is the real kube-proxy, that of all of Kubernetes in one program, or
// the one by itself.
func program(t *testing.T) string {
	t.Helper()
	built, err := components.Lookup(t.Context(), "kubernetes")
	if err != nil {
		built, err = components.Lookup(t.Context(), "kube-proxy")
	}
	if err != nil {
		testnet.Lacks(t, testnet.KubeProxy, err)
	}
	return built.Path("kube-proxy")
}

// patience is for one process of others to do one thing on a busy machine.
const patience = time.Minute

// theirs runs the real kube-proxy in a new namespace until it has written its
// rules. It runs on until the test ends.
func theirs(t *testing.T, c one, mode string) (*netns.NS, *realproxy.API, *realproxy.Proxy) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	program := program(t)
	ns := testnet.NewNS(t)
	have(t, ns, c)
	api, err := realproxy.Serve(ns, realproxy.Objects(c.Snapshot))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	return ns, api, started(t, realproxy.Config{Program: program, NS: ns, Node: c.Node, Mode: mode, Options: c.Options}, api)
}

// started runs kube-proxy, which has taken in what there is. One that hears of the
// services' range after its first sync, as happens on a busy machine, has no rule for
// it in nftables mode until it starts over (OnServiceCIDRsChanged of
// pkg/proxy/nftables/proxier.go has nothing synced): that one is started again.
func started(t *testing.T, cfg realproxy.Config, api *realproxy.API) *realproxy.Proxy {
	t.Helper()
	for range 10 {
		cfg.Dir = t.TempDir()
		p, err := realproxy.Start(cfg, api)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
		next(t, p)
		if cfg.Mode != "nftables" || strings.Contains(output(t, cfg.NS, "nft", "list", "chain", "ip", "kube-proxy", "cluster-ips-check"), "unallocated") {
			return p
		}
		t.Log("kube-proxy heard of the services' range too late, and is started again")
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("kube-proxy never has a rule for the services' range")
	return nil
}

// have gives the namespace the node's address: in nftables mode kube-proxy looks
// for it on the interfaces.
func have(t *testing.T, ns *netns.NS, c one) {
	t.Helper()
	n, ok := c.Snapshot.NodeByName(c.Node)
	if !ok || !n.Address.IsValid() {
		return
	}
	h := testnet.Handle(t, ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: n.Address.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		t.Fatalf("address %s: %v", n.Address, err)
	}
}

func next(t *testing.T, p *realproxy.Proxy) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := p.Next(ctx); err != nil {
		t.Fatal(err)
	}
}

// ours is a new namespace with a host that rules can be applied to.
func ours(t *testing.T) (*netns.NS, *linux.Host) {
	t.Helper()
	ns := testnet.NewNS(t)
	h, err := linux.Open(ns, linux.Options{LockFile: filepath.Join(t.TempDir(), "lock")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return ns, h
}

func apply(t *testing.T, h *linux.Host, cfg datapath.NodeConfig) {
	t.Helper()
	if _, err := h.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// output runs a program in ns.
func output(t *testing.T, ns *netns.NS, name string, args ...string) string {
	t.Helper()
	out, err := run.Cmd{NS: ns, Name: name, Args: args}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
