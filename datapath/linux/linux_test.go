package linux_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/plantest"
	"slipway/internal/testnet"
	"slipway/topology"
)

// machine is a namespace with the underlay interface of node01 of the
// three-node snapshot.
func machine(t *testing.T) (*netns.NS, *linux.Host) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.TUN, testnet.VXLAN)
	ns, other := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", "192.168.233.30/24", other, "eth0", "192.168.233.40/24")
	return ns, open(t, ns)
}

func open(t *testing.T, ns *netns.NS) *linux.Host {
	t.Helper()
	h, err := linux.Open(ns, linux.Options{LockFile: filepath.Join(t.TempDir(), "xtables.lock")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// variants are node01's plans in every mode, without its pod, which the CNI
// plugin plugs in.
func variants(t *testing.T) map[string]datapath.NodeConfig {
	t.Helper()
	out := map[string]datapath.NodeConfig{}
	for _, m := range append(flannel.Modes(), calico.Modes()...) {
		s := plantest.ThreeNodes(m.Name())
		cfg, err := m.Plan(s, "node01")
		if err != nil {
			t.Fatal(err)
		}
		out[string(m.Name())] = podless(cfg)
		if m.Name() != topology.FlannelUDP {
			continue
		}
		s.Network.UDP.Implementation = topology.UDPSimple
		if cfg, err = m.Plan(s, "node01"); err != nil {
			t.Fatal(err)
		}
		out["flannel-udp-simple"] = podless(cfg)
	}
	out["nothing"] = datapath.NodeConfig{Node: "node01", PodRange: netip.MustParsePrefix("10.244.0.0/16")}
	return out
}

func podless(cfg datapath.NodeConfig) datapath.NodeConfig {
	cfg.PodPorts = nil
	return cfg
}

func apply(t *testing.T, h *linux.Host, cfg datapath.NodeConfig) datapath.Diff {
	t.Helper()
	diff, err := h.Apply(t.Context(), cfg)
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return diff
}

func read(t *testing.T, h *linux.Host) datapath.KernelState {
	t.Helper()
	st, err := h.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func commands(d datapath.Diff) string {
	var b strings.Builder
	for _, c := range d {
		b.WriteString(string(c.Action) + " " + c.Object + ": " + c.Command + " (was " + c.Was + ")\n")
	}
	return b.String()
}

func TestApplyHoldsAndRepeatsWithoutChange(t *testing.T) {
	for name, cfg := range variants(t) {
		t.Run(name, func(t *testing.T) {
			_, h := machine(t)
			first := apply(t, h, cfg)
			if len(first) == 0 && name != "nothing" {
				t.Error("a fresh node needed no change")
			}
			if d := linux.Compare(cfg, read(t, h)); len(d) != 0 {
				t.Errorf("after apply:\n%s", commands(d))
			}
			if d := apply(t, h, cfg); len(d) != 0 {
				t.Errorf("the second apply changed:\n%s", commands(d))
			}
		})
	}
}

// A switch must leave exactly what a fresh node of the new mode has.
func TestSwitchLeavesNothing(t *testing.T) {
	all := variants(t)
	fresh := map[string]datapath.KernelState{}
	for name, cfg := range all {
		_, h := machine(t)
		apply(t, h, cfg)
		fresh[name] = comparable(read(t, h))
	}
	for from := range all {
		_, h := machine(t)
		for to := range all {
			apply(t, h, all[from])
			apply(t, h, all[to])
			if d := linux.Compare(all[to], read(t, h)); len(d) != 0 {
				t.Errorf("%s to %s, left to do:\n%s", from, to, commands(d))
			}
			if diff := cmp.Diff(fresh[to], comparable(read(t, h)), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
				t.Errorf("%s to %s (-fresh +switched):\n%s", from, to, diff)
			}
		}
	}
}

// comparable leaves out what differs between two fresh machines: names,
// numbers and random MACs, the order of routes, tables that are empty because
// nobody has used them or because nobody does any more, and sysctls, whose
// former values nobody knows.
func comparable(st datapath.KernelState) datapath.KernelState {
	st.Namespace, st.Sysctls = "", nil
	for i := range st.Links {
		l := &st.Links[i]
		l.Index = 0
		l.Prefixes = nil // the kernel adds IPv6 ones at its own pace
		if l.VXLAN == nil && l.Type != "bridge" {
			l.MAC = ""
		}
	}
	sortBy(st.Links, func(l datapath.LinkState) string { return l.Name })
	sortBy(st.Routes, datapath.Route.String)
	sortBy(st.Neighbors, datapath.Neighbor.String)
	st.FDB = keep(st.FDB, func(f datapath.FDBEntry) bool { return f.Dst.IsValid() })
	sortBy(st.FDB, datapath.FDBEntry.String)
	for name, text := range st.RuleSave {
		if !strings.Contains(text, "-A ") && !strings.Contains(text, " -\n") {
			delete(st.RuleSave, name)
		}
	}
	return st
}

func TestForeignStateSurvives(t *testing.T) {
	ns, h := machine(t)
	nlh := testnet.Handle(t, ns)
	if err := nlh.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "mine0"}}); err != nil {
		t.Fatal(err)
	}
	ip(t, ns, "link", "set", "mine0", "up")
	ip(t, ns, "address", "add", "10.99.0.1/24", "dev", "mine0")
	ip(t, ns, "route", "add", "10.98.0.0/16", "via", "10.99.0.2")
	ip(t, ns, "neighbor", "add", "10.99.0.2", "lladdr", "02:00:00:00:00:99", "dev", "mine0")
	restore(t, ns, "*nat\n:MINE - [0:0]\n-A MINE -s 10.99.0.0/24 -j RETURN\n-A POSTROUTING -j MINE\nCOMMIT\n*filter\n:KUBE-KUBELET-CANARY - [0:0]\n-A FORWARD -i mine0 -j ACCEPT\nCOMMIT\n")
	foreign := func() string {
		out := ipOut(t, ns, "-o", "route", "show", "dev", "mine0") + ipOut(t, ns, "-o", "neighbor", "show", "dev", "mine0", "nud", "permanent") + ipOut(t, ns, "-o", "-4", "address", "show", "dev", "mine0")
		st := read(t, h)
		for _, table := range []string{"nat", "filter"} {
			for _, line := range strings.Split(st.RuleSave[table], "\n") {
				if strings.Contains(line, "MINE") || strings.Contains(line, "mine0") || strings.Contains(line, "CANARY") {
					out += line + "\n"
				}
			}
		}
		return out
	}
	before := foreign()
	if strings.Count(before, "\n") < 9 {
		t.Fatalf("the foreign state is not all there:\n%s", before)
	}
	for _, cfg := range variants(t) {
		apply(t, h, cfg)
		if diff := cmp.Diff(before, foreign()); diff != "" {
			t.Errorf("applying %s changed what is foreign:\n%s", cfg.Node, diff)
		}
	}
}

func TestSabotageIsReportedAndRepaired(t *testing.T) {
	all := variants(t)
	for _, c := range []struct {
		mode, sabotage, want string
	}{
		{"flannel-vxlan", "ip link set flannel.1 mtu 1400", "ip link set flannel.1 mtu 1450"},
		{"flannel-vxlan", "ip link set flannel.1 down", "ip link set flannel.1 up"},
		{"flannel-vxlan", "ip link set flannel.1 address 0e:00:00:00:00:77", "ip link set flannel.1 address 0e:00:00:00:00:02"},
		{"flannel-vxlan", "ip link delete flannel.1", "ip link add flannel.1 "},
		{"flannel-vxlan", "ip address delete 10.244.1.0/32 dev flannel.1", "ip address add 10.244.1.0/32 dev flannel.1"},
		{"flannel-vxlan", "ip address add 10.1.1.1/24 dev cni0", "ip address delete 10.1.1.1/24 dev cni0"},
		{"flannel-vxlan", "ip neighbor delete 10.244.2.0 dev flannel.1", "ip neighbor replace 10.244.2.0 lladdr 0e:00:00:00:00:03 dev flannel.1"},
		{"flannel-vxlan", "ip neighbor replace 10.244.2.0 lladdr 0e:00:00:00:00:55 dev flannel.1 nud permanent", "ip neighbor replace 10.244.2.0 lladdr 0e:00:00:00:00:03"},
		{"flannel-vxlan", "bridge fdb delete 0e:00:00:00:00:03 dev flannel.1 dst 192.168.233.40 self", "bridge fdb replace 0e:00:00:00:00:03 dev flannel.1 dst 192.168.233.40"},
		{"flannel-vxlan", "bridge fdb replace 0e:00:00:00:00:03 dev flannel.1 dst 192.168.233.99 self permanent", "update fdb: bridge fdb replace 0e:00:00:00:00:03 dev flannel.1 dst 192.168.233.40 self permanent (was dst 192.168.233.99)"},
		{"flannel-vxlan", "bridge fdb append 0e:00:00:00:00:99 dev flannel.1 dst 192.168.233.99 self permanent", "bridge fdb delete 0e:00:00:00:00:99 dev flannel.1 dst 192.168.233.99"},
		{"flannel-vxlan", "ip route replace 10.244.2.0/24 via 192.168.233.40 dev eth0", "ip route replace 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink"},
		{"flannel-host-gw", "ip route delete 10.244.2.0/24", "ip route replace 10.244.2.0/24 via 192.168.233.40 dev eth0"},
		{"flannel-host-gw", "ip route add 10.244.7.0/24 via 192.168.233.40 dev eth0", "ip route delete 10.244.7.0/24 via 192.168.233.40"},
		{"flannel-host-gw", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -w net.ipv4.ip_forward=1"},
		{"flannel-host-gw", "iptables-legacy -t nat -D FLANNEL-POSTRTG 2", "iptables -t nat -R FLANNEL-POSTRTG 2 -s 10.244.1.0/24"},
		{"flannel-host-gw", "iptables-legacy -t nat -A FLANNEL-POSTRTG -j ACCEPT", "iptables -t nat -D FLANNEL-POSTRTG 7"},
		{"flannel-host-gw", "iptables-legacy -t filter -A FORWARD -j FLANNEL-FWD", "iptables -t filter -D FORWARD -j FLANNEL-FWD"},
		{"flannel-host-gw", "iptables-legacy -t filter -F FORWARD", `iptables -t filter -A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`},
		{"calico-bgp", "iptables-legacy -t nat -I POSTROUTING -s 10.9.9.9 -j ACCEPT", "iptables -t nat -A POSTROUTING -j cali-POSTROUTING"},
		{"calico-bgp", "ip route delete blackhole 10.244.101.0/26", "ip route replace blackhole 10.244.101.0/26 proto bird"},
		{"calico-ipip", "ip link delete tunl0", "ip tuntap add dev tunl0 mode tun"},
		{"flannel-udp", "ip route delete 10.244.0.0/16", "ip route replace 10.244.0.0/16 dev flannel0 scope global"},
	} {
		t.Run(c.sabotage, func(t *testing.T) {
			ns, h := machine(t)
			cfg := all[c.mode]
			apply(t, h, cfg)
			sh(t, ns, c.sabotage)
			if d := commands(linux.Compare(cfg, read(t, h))); !strings.Contains(d, c.want) {
				t.Errorf("reported:\n%swant: %s", d, c.want)
			}
			if d := apply(t, h, cfg); !strings.Contains(commands(d), c.want) {
				t.Errorf("repaired:\n%swant: %s", commands(d), c.want)
			}
			if d := apply(t, h, cfg); len(d) != 0 {
				t.Errorf("still to do after the repair:\n%s", commands(d))
			}
		})
	}
}

// Learnt routes stay while a speaker looks after them, and go with the mode.
func TestLearntRoutes(t *testing.T) {
	ns, h := machine(t)
	all := variants(t)
	apply(t, h, all["calico-bgp"])
	sh(t, ns, "ip route add 10.244.102.0/26 via 192.168.233.40 dev eth0 proto bird")
	sh(t, ns, "ip route add 10.50.0.0/16 via 192.168.233.40 dev eth0 proto bird")
	if d := apply(t, h, all["calico-bgp"]); len(d) != 0 {
		t.Errorf("with a speaker:\n%s", commands(d))
	}
	apply(t, h, all["flannel-host-gw"])
	if out := ipOut(t, ns, "route", "show", "proto", "bird"); out != "" {
		t.Errorf("learnt routes outlived calico: %s", out)
	}
}

// Rules of several owners live in the same chains, and go one by one.
func TestRuleSetsOfSeveralOwners(t *testing.T) {
	_, h := machine(t)
	all := variants(t)
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Services = services()
	proxy, err := kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []string{"flannel-vxlan", "calico-ipip"} {
		cfg := all[mode]
		cfg.RuleSets = append(slices.Clone(cfg.RuleSets), proxy)
		if d := commands(apply(t, h, cfg)); mode == "calico-ipip" && strings.Contains(d, "KUBE-SVC") {
			t.Errorf("the switch of modes changed services:\n%s", d)
		}
		if d := apply(t, h, cfg); len(d) != 0 {
			t.Errorf("%s and services, second apply:\n%s", mode, commands(d))
		}
	}
	apply(t, h, all["calico-ipip"])
	if save := read(t, h).RuleSave; strings.Contains(save["nat"]+save["filter"]+save["mangle"], "KUBE-") {
		t.Errorf("kube-proxy's chains outlived their rule set:\n%v", save)
	}
	apply(t, h, all["nothing"])
	for table, text := range read(t, h).RuleSave {
		if strings.Contains(text, "-A ") {
			t.Errorf("left in table %s:\n%s", table, text)
		}
	}
}

// services have what makes kube-proxy use each kind of match: probabilities,
// affinity, a node port, and a service without endpoints.
func services() []topology.Service {
	addr := netip.MustParseAddr
	ends := []topology.Endpoint{
		{Address: addr("10.244.1.2"), Port: 80, Node: "node01", Ready: true, Serving: true},
		{Address: addr("10.244.2.2"), Port: 80, Node: "node02", Ready: true, Serving: true},
		{Address: addr("10.244.2.3"), Port: 80, Node: "node02", Ready: true, Serving: true},
	}
	port := topology.ServicePort{Name: "http", Protocol: topology.TCPProtocol, Port: 8080, NodePort: 30000, TargetPort: "80", Endpoints: ends}
	idle := topology.ServicePort{Protocol: topology.UDPProtocol, Port: 53, TargetPort: "53"}
	return []topology.Service{
		{Namespace: "default", Name: "web", Type: topology.NodePort, ClusterIP: addr("10.96.0.20"), AffinityClientIP: true, AffinitySeconds: 10800, Ports: []topology.ServicePort{port}},
		{Namespace: "default", Name: "idle", Type: topology.ClusterIP, ClusterIP: addr("10.96.0.21"), Ports: []topology.ServicePort{idle}},
	}
}

// A process must be able to attach to the TUN with the flags that its
// implementation needs, and a TUN with others is made anew.
func TestTUNFlags(t *testing.T) {
	ns, h := machine(t)
	all := variants(t)
	for _, c := range []struct {
		variant string
		header  bool
	}{{"flannel-udp", true}, {"flannel-udp-simple", false}, {"flannel-udp", true}} {
		apply(t, h, all[c.variant])
		for _, l := range read(t, h).Links {
			if l.Name == "flannel0" && (l.VNetHdr != c.header || l.Type != "tun" || l.MTU != 1472) {
				t.Errorf("%s: flannel0 is %+v", c.variant, l)
			}
		}
		want := "tun type tun pi off vnet_hdr " + map[bool]string{true: "on", false: "off"}[c.header] + " persist on"
		if out := ipOut(t, ns, "-d", "link", "show", "flannel0"); !strings.Contains(out, want) {
			t.Errorf("%s: not %q in: %s", c.variant, want, out)
		}
	}
}

// The values are the namespace's own.
func TestSysctlsStayInTheNamespace(t *testing.T) {
	ns, h := machine(t)
	other := testnet.NewNS(t)
	sh(t, ns, "sysctl -qw net.ipv4.ip_forward=0")
	sh(t, other, "sysctl -qw net.ipv4.ip_forward=0")
	apply(t, h, variants(t)["flannel-host-gw"])
	for name, c := range map[string]struct {
		ns   *netns.NS
		want string
	}{"node": {ns, "1"}, "other": {other, "0"}} {
		if out, err := shOut(c.ns, "sysctl -n net.ipv4.ip_forward"); err != nil || strings.TrimSpace(out) != c.want {
			t.Errorf("%s: ip_forward is %s (%v)", name, out, err)
		}
	}
}

func TestErrorsNameNodeOperationAndObject(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.VXLAN)
	h := open(t, testnet.NewNS(t)) // without eth0
	_, err := h.Apply(t.Context(), variants(t)["flannel-vxlan"])
	if err == nil || !strings.Contains(err.Error(), "node node01: ip link add flannel.1 ") || !strings.Contains(err.Error(), "underlay device eth0") {
		t.Errorf("got: %v", err)
	}
	undecided := variants(t)["calico-ipip"]
	undecided.IPIP.Implementation = topology.IPIPAuto
	if _, err = h.Apply(t.Context(), undecided); err == nil || !strings.Contains(err.Error(), "not decided") {
		t.Errorf("auto ipip: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = h.Apply(ctx, variants(t)["flannel-host-gw"]); err == nil {
		t.Error("a cancelled apply succeeded")
	}
}
