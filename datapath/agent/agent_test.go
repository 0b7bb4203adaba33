package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/datapath/lease"
	"slipway/datapath/modes"
	"slipway/internal/testnet"
	"slipway/topology"
)

func cluster(t *testing.T, network, underlay string) *topology.Cluster {
	t.Helper()
	c, diags := topology.Parse("c.yaml", fmt.Appendf(nil, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: c}\nspec:\n  network: {%s}\n  underlay: {%s}\n", network, underlay))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	return c
}

func vxlanLease(node, address, subnet, mac string) lease.Lease {
	return lease.Lease{Node: node, Address: netip.MustParseAddr(address), Subnet: netip.MustParsePrefix(subnet), Backend: "vxlan", VNI: 1, VTEPMAC: mac}
}

var underlay = device{name: "ens5", prefix: netip.MustParsePrefix("192.0.2.1/25"), mac: "02:00:00:00:00:01", mtu: 9000}

// A node on a real machine: its device has another name than a lab's, the network
// on it is not the cluster file's, and one node is beyond a router that nobody
// knows. Direct routing is for those on the wire.
func TestSnapshotPlans(t *testing.T) {
	c := cluster(t, "mode: flannel-vxlan, vxlan: {directRouting: true}", "segments: [{name: wire, subnet: 192.0.2.0/24, mtu: 9000}]")
	own := vxlanLease("a", "192.0.2.1", "10.244.1.0/24", "02:00:00:00:01:01")
	leases, reasons := usable(c.Spec.Network, own, []lease.Lease{
		own, vxlanLease("b", "192.0.2.2", "10.244.2.0/24", "02:00:00:00:01:02"), vxlanLease("far", "198.51.100.3", "10.244.3.0/24", "02:00:00:00:01:03"),
	})
	if len(leases) != 3 || len(reasons) > 0 {
		t.Fatalf("leases %v, %v", leases, reasons)
	}
	s, err := snapshot(c, "a", underlay, leases)
	if err != nil {
		t.Fatal(err)
	}
	mode, err := modes.ByName(s.Network.Mode)
	if err != nil {
		t.Fatal(err)
	}
	if err := mode.Check(s); err != nil {
		t.Fatal(err)
	}
	cfg, err := mode.Plan(s, "a")
	if err != nil {
		t.Fatal(err)
	}
	plan := cfg.String()
	for _, want := range []string{
		"10.244.2.0/24 via 192.0.2.2 dev ens5", "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink", "dst 198.51.100.3",
		"02:00:00:00:01:03", "mtu 8950", "dev ens5", "local 192.0.2.1", "address 02:00:00:00:01:01",
	} {
		if !strings.Contains(plan, want) {
			t.Errorf("%q is not in the plan:\n%s", want, plan)
		}
	}
	if strings.Contains(plan, "eth0") {
		t.Errorf("the plan speaks of a device that the node does not have:\n%s", plan)
	}
}

func TestUnusableLeases(t *testing.T) {
	network := cluster(t, "mode: flannel-vxlan", "").Spec.Network
	own := vxlanLease("a", "192.0.2.1", "10.244.1.0/24", "02:00:00:00:01:01")
	good := vxlanLease("good", "192.0.2.2", "10.244.2.0/24", "02:00:00:00:01:02")
	for name, bad := range map[string]lease.Lease{
		"backend":  {Node: "z", Address: netip.MustParseAddr("192.0.2.3"), Subnet: netip.MustParsePrefix("10.244.3.0/24"), Backend: "host-gw"},
		"MAC":      {Node: "z", Address: netip.MustParseAddr("192.0.2.3"), Subnet: netip.MustParsePrefix("10.244.3.0/24"), Backend: "vxlan"},
		"network":  vxlanLease("z", "192.0.2.3", "10.9.3.0/24", "02:00:00:00:01:03"),
		"overlaps": vxlanLease("z", "192.0.2.3", "10.244.1.128/25", "02:00:00:00:01:03"),
		"address":  vxlanLease("z", "192.0.2.2", "10.244.3.0/24", "02:00:00:00:01:03"),
	} {
		leases, reasons := usable(network, own, []lease.Lease{own, good, bad})
		if len(leases) != 2 || len(reasons) != 1 || !strings.Contains(reasons[0], name) {
			t.Errorf("%s: leases %v, reasons %q", name, leases, reasons)
		}
	}
}

func load(t *testing.T, text string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadConfig(path)
}

func TestConfig(t *testing.T) {
	c, err := load(t, "node: n\nregistry: {kube: {kubeconfig: /k}}\n")
	if err != nil || c.Node != "n" || c.CNI.Dir != "/etc/cni/net.d" || c.SubnetFile != "/run/flannel/subnet.env" || c.Interface != "auto" || len(c.ForeignChains) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	c, err = load(t, "registry: {etcd: {endpoints: [\"http://x:2379\"]}}\n")
	if err != nil || c.Node == "" || c.Registry.Etcd.Prefix != "/coreos.com/network" {
		t.Errorf("%+v, %v", c, err)
	}
	for text, want := range map[string]string{
		"registry: {}\n":                                  "needs one of",
		"registry: {kube: {}, etcd: {}}\n":                "needs one of",
		"registry: {etcd: {}}\n":                          "endpoints",
		"registry: {kube: {}}\nnodes: x\n":                "nodes",
		"registry: {etcd: {endpoints: [x], cert: /c}}\n":  "cert and key",
		"registry: {kube: {}}\ncni: {dir: here}\n":        "absolute",
		"registry: {kube: {}}\nlog: {level: chatty}\n":    "chatty",
		"registry: {kube: {}}\ninterface: no such/name\n": "no device",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

// The first address of a block is nobody's, the last is a pod's: routed pods have
// no broadcast.
func TestConfListOfBlocks(t *testing.T) {
	s := topology.Snapshot{Network: topology.Network{Mode: topology.CalicoBGP, MTU: 1500}}
	self := topology.NodeState{Blocks: []netip.Prefix{netip.MustParsePrefix("10.244.0.192/26"), netip.MustParsePrefix("10.244.1.0/26")}}
	raw, err := confList(t.Context(), CNI{BinDir: t.TempDir(), DataDir: "/d"}, "/r", s, self)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		CNIVersion  string
		CNIVersions []string
		Plugins     []struct {
			Type, Mode, Gateway, Ready string
			IPAM                       struct{ Ranges [][]map[string]string }
		}
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got.CNIVersion != "1.0.0" || len(got.CNIVersions) > 0 || len(got.Plugins) != 1 {
		t.Errorf("without upstream's plugins: %s", raw)
	}
	p := got.Plugins[0]
	if want := "[[map[gateway:169.254.1.1 rangeEnd:10.244.0.255 subnet:10.244.0.192/26] map[gateway:169.254.1.1 rangeEnd:10.244.1.63 subnet:10.244.1.0/26]]]"; fmt.Sprint(p.IPAM.Ranges) != want {
		t.Errorf("ranges %v, want %s", p.IPAM.Ranges, want)
	}
	if p.Type != "slipway" || p.Mode != "routed" || p.Gateway != "169.254.1.1" || p.Ready != "/r" {
		t.Errorf("plugin %+v", p)
	}
}

func TestFindDevice(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	testnet.Wire(t, a, "eth1", "198.51.100.1/25", b, "eth1", "198.51.100.2/25")
	h := testnet.Handle(t, a)
	for _, c := range []struct{ name, address, want, err string }{
		{"auto", "198.51.100.1", "eth1 198.51.100.1/25", ""},
		{"eth1", "", "eth1 198.51.100.1/25", ""},
		{"eth1", "192.0.2.1", "eth1 198.51.100.1/25", ""}, // the name counts
		{"auto", "192.0.2.9", "", "192.0.2.9"},
		{"auto", "", "", "no default route"},
		{"eth7", "", "", "eth7"},
	} {
		var address netip.Addr
		if c.address != "" {
			address = netip.MustParseAddr(c.address)
		}
		got, err := findDevice(h, c.name, address)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s %s: error %v, want %q in it", c.name, c.address, err, c.err)
			}
			continue
		}
		if s := fmt.Sprint(got.name, " ", got.prefix); err != nil || s != c.want || got.mtu == 0 || got.mac == "" {
			t.Errorf("%s %s: %+v, %v, want %s", c.name, c.address, got, err, c.want)
		}
	}
}

func TestFormerSubnet(t *testing.T) {
	s := topology.Snapshot{Network: topology.Network{PodCIDR: netip.MustParsePrefix("10.244.0.0/16"), MTU: 1450}}
	path := filepath.Join(t.TempDir(), "run", "subnet.env")
	text := subnetEnv(s, topology.NodeState{PodCIDR: netip.MustParsePrefix("10.244.3.0/24")})
	for i, want := range []bool{true, false} {
		if wrote, err := write(path, text, 0o644); err != nil || wrote != want {
			t.Errorf("write %d: %t, %v", i, wrote, err)
		}
	}
	if want := "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"; string(text) != want {
		t.Errorf("subnet.env:\n%s", text)
	}
	if got := formerSubnet(path); got != netip.MustParsePrefix("10.244.3.0/24") {
		t.Errorf("former subnet: %s", got)
	}
	if got := formerSubnet(path + ".not"); got.IsValid() {
		t.Errorf("without a file: %s", got)
	}
}
