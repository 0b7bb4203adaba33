package trace_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/trace"
)

func TestParseEditsComplains(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", `column 1: expected node, link, segment, mtu, sysctl, add, delete or rule, but there is no more`},
		{"nod node02 down", `column 1: "nod": expected node, link`},
		{"node node02", `column 12: expected down, but there is no more`},
		{"node node02 up", `column 13: "up": expected down`},
		{"node node02 down now", `column 18: "now": expected no more`},
		{"link node01 eth0 sideways", `column 18: "sideways": expected up or down`},
		{"mtu node01 eth0 12", `column 17: "12": expected an MTU in bytes, 68 to 65535`},
		{"sysctl node01 net.ipv4.ip_forward", `column 15: "net.ipv4.ip_forward": expected KEY=VALUE`},
		{"sysctl net.ipv4.conf.all.rp_filter=strict", `expected a number after =`},
		{"delete rout node01", `column 8: "rout": expected route, neighbor, fdb, endpoint, service or pod`},
		{"delete route node01 10.244.2.1/24", `column 21: "10.244.2.1/24": expected a prefix`},
		{"add route node01 10.244.2.0/24", `column 31: expected via ADDRESS or dev DEVICE`},
		{"add route node01 10.244.2.0/24 via fe80::1", `column 36: "fe80::1": expected an IPv4 address`},
		{"add route blackhole 10.0.0.0/8 dev eth0", `leads nowhere`},
		{"delete fdb node01 zz:zz", `column 19: "zz:zz": expected a MAC address`},
		{"rule node01 -t fitler -I FORWARD -j DROP", `column 16: "fitler": expected raw, mangle, nat, filter or security`},
		{"rule node01 -N CHAIN", `column 13: "-N": expected -A, -I, -D`},
		{"rule node01 -I FORWARD", `column 23: expected a rule`},
		{"rule node01 -I FORWARD DROP", `a word where an option must be`},
		{"rule node01 -I FORWARD --dport 80 -j DROP", `expected -p tcp or -p udp before a port`},
		{`rule -A FORWARD -m comment --comment "half -j DROP`, `column 38: the quote does not end`},
	} {
		_, err := trace.ParseEdits([]string{"node node01 down", c.text})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "edit 2 ") || !strings.Contains(err.Error(), "delete endpoint POD|ADDRESS") {
			t.Errorf("%q: error %v\nwant one with %q, of edit 2, with the forms", c.text, err, c.want)
		}
	}
	_, err := trace.ParseEdits([]string{"nonsense", "node a down", "delete"})
	if err == nil || !strings.Contains(err.Error(), "edit 1 ") || !strings.Contains(err.Error(), "edit 3 ") {
		t.Errorf("two bad edits: %v", err)
	}
}

// What the cluster does not have is refused before anything is predicted.
func TestEditsOfWhatIsNotThere(t *testing.T) {
	n, s := handCluster(t)
	for _, c := range []struct{ text, want string }{
		{"node node09 down", `there is no node "node09"`},
		{"segment rack7 down", `there is no segment "rack7"`},
		{"link node09 eth0 down", "the machines are external, fabric, master01, node01, node02, lb01"},
		{"delete service wbe", `there is no service "wbe"; there are default/web`},
		{"delete endpoint client", "client is no endpoint of any service"},
		{"delete endpoint 10.244.9.9", "10.244.9.9 is no endpoint"},
		{"delete pod web-7", `there is no pod "web-7"`},
	} {
		edits, err := trace.ParseEdits([]string{c.text})
		if err != nil {
			t.Fatal(err)
		}
		_, err = trace.Edited(n, s, edits)
		if e := new(trace.EditError); !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: error %v\nwant one with %q and the edit", c.text, err, c.want)
		}
	}
	// What a namespace does not hold is known only when it is read.
	for _, c := range []struct{ text, want string }{
		{"delete route node01 10.9.0.0/16", "node01 has no route to 10.9.0.0/16; it has 192.168.233.0/24, 10.244.0.0/24, 10.244.2.0/24"},
		{"add route node01 10.244.2.0/24 via 192.168.233.40", "has a route to 10.244.2.0/24 already"},
		{"add route node01 10.9.0.0/16 via 10.8.0.1", "reaches no next hop 10.8.0.1"},
		{"link node01 eth7 down", "node01 has no device eth7; it has eth0, cni0, flannel.1, veth-client"},
		{"delete neighbor node01 10.244.9.0", "node01 has no neighbour 10.244.9.0"},
		{"delete fdb node01 02:02:02:02:02:02", "node01 has no forwarding entry"},
		{"rule node01 -D FORWARD -j DROP", `chain FORWARD has no rule "-A FORWARD -j DROP"`},
		{"rule node01 -I FORWARD 99 -j DROP", "chain FORWARD has only"},
		{"rule node01 -A NOWHERE -j DROP", "there is no chain NOWHERE"},
		{"sysctl node01 net.ipv4.tcp_syncookies=0", "no prediction depends on net.ipv4.tcp_syncookies"},
	} {
		if _, err := edited(t, n, s, c.text).State("node01"); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%q: error %v\nwant one with %q and the edit", c.text, err, c.want)
		}
	}
	// An edit of every node does not have to find something on each.
	stateOf(t, edited(t, n, s, "delete route 10.244.2.0/24"), "node02")
}

// The network below is as it was, whatever was edited, and nothing is read
// that nobody asks for.
func TestEditsLeaveTheOriginal(t *testing.T) {
	n, s := handCluster(t)
	was, err := json.Marshal([]any{n.states, s})
	if err != nil {
		t.Fatal(err)
	}
	e := edited(t, n, s, "node node02 down", "link node01 flannel.1 down", "sysctl net.ipv4.ip_forward=0", "delete pod web-0",
		"delete neighbor 10.244.0.0", "rule -P FORWARD DROP", "mtu node01 eth0 1400", "segment rack1 down", "add route blackhole 10.9.0.0/16")
	if len(n.reads) != 0 {
		t.Errorf("%v were read before anybody asked", n.reads)
	}
	stateOf(t, e, "node01")
	stateOf(t, e, "node01")
	if d := cmp.Diff(map[string]int{"node01": 1}, n.reads); d != "" {
		t.Errorf("reads (-want +got)\n%s", d)
	}
	for _, ns := range []string{"node02", "fabric", "default/client", "master01"} {
		stateOf(t, e, ns)
	}
	is, err := json.Marshal([]any{n.states, s})
	if err != nil {
		t.Fatal(err)
	}
	if string(was) != string(is) {
		t.Errorf("the network below or the cluster has changed (-was +is)\n%s", cmp.Diff(string(was), string(is)))
	}
}

func TestNodeDown(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "node node02 down")
	for _, d := range stateOf(t, e, "node02").Devices {
		if d.Up || d.Carrier {
			t.Errorf("node02 %s: up %v, carrier %v", d.Name, d.Up, d.Carrier)
		}
	}
	if st := stateOf(t, e, "default/web-0"); st.Devices[0].Up {
		t.Error("a pod on the node is still up")
	}
	fabric := stateOf(t, e, "fabric")
	if p := fabric.Device("p-node02"); p.Carrier || p.Port.State != "disabled" || !p.Up {
		t.Errorf("the node's port of the switch: %+v, port %+v", p, p.Port)
	}
	if p := fabric.Device("p-node01"); !p.Carrier || p.Port.State != "forwarding" {
		t.Errorf("another node's port: %+v", p)
	}
	var macs []string
	for _, f := range fabric.FDB {
		macs = append(macs, f.Dev)
	}
	if d := cmp.Diff([]string{"p-master01", "p-node01", "p-lb01"}, macs); d != "" {
		t.Errorf("the switch's table (-want +got)\n%s", d)
	}
	// Nobody has told the others yet.
	if st := stateOf(t, e, "node01"); !hasRoute(st, "10.244.2.0/24") || !st.Devices[0].Carrier {
		t.Errorf("node01 lost %+v", st.Routes)
	}
	edits, err := trace.ParseEdits([]string{"node node02 down"})
	if err != nil {
		t.Fatal(err)
	}
	if note := edits[0].Note(); !strings.Contains(note, "BGP") || !strings.Contains(note, "endpoints") {
		t.Errorf("note %q does not say what is assumed", note)
	}
}

func hasRoute(st *datapath.NetState, dst string) bool {
	return slices.ContainsFunc(st.Routes, func(r datapath.FIBRoute) bool { return r.Dst == netip.MustParsePrefix(dst) })
}

// A device that is set down loses its routes and neighbours; the address stays
// the host's own.
func TestLinkDown(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "link node01 eth0 down")
	st := stateOf(t, e, "node01")
	if d := st.Device("eth0"); d.Up || d.Carrier {
		t.Errorf("eth0: %+v", d)
	}
	if hasRoute(st, "192.168.233.0/24") || !hasRoute(st, "192.168.233.30/32") || !hasRoute(st, "10.244.2.0/24") {
		t.Errorf("routes: %+v", st.Routes)
	}
	if p := stateOf(t, e, "fabric").Device("p-node01"); p.Carrier || !p.Up {
		t.Errorf("the other end: %+v", p)
	}
	up := edited(t, e, s, "link node01 eth0 up")
	if d := stateOf(t, up, "node01").Device("eth0"); !d.Up || !d.Carrier {
		t.Errorf("eth0 up again: %+v", d)
	}
}

func TestSegmentDown(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "segment rack1 down")
	for _, node := range []string{"node01", "lb01"} {
		if d := stateOf(t, e, node).Device("eth0"); d.Carrier || !d.Up {
			t.Errorf("%s eth0: %+v", node, d)
		}
	}
	if d := stateOf(t, e, "default/client").Device("eth0"); !d.Carrier {
		t.Error("a pod lost its carrier with the underlay")
	}
}

func TestSysctl(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "sysctl node01 net.ipv4.ip_forward=0", "sysctl node02 net.ipv4.conf.flannel/1.rp_filter=1",
		"sysctl node02 net/ipv4/conf/eth0/proxy_arp=1", "sysctl net.ipv4.ip_default_ttl=32", "sysctl default/client net.ipv4.conf.all.accept_local=1")
	st := stateOf(t, e, "node01")
	for _, d := range st.Devices[:3] {
		if d.Conf.Forwarding != 0 {
			t.Errorf("%s still forwards", d.Name)
		}
	}
	if st.All.Forwarding != 0 || st.Sysctls["net/ipv4/ip_forward"] != "0" || st.Sysctls["net/ipv4/ip_default_ttl"] != "32" {
		t.Errorf("all %+v, sysctls %v", st.All, st.Sysctls)
	}
	st = stateOf(t, e, "node02")
	if st.Device("flannel.1").Conf.RPFilter != 1 || st.Device("eth0").Conf.ProxyARP != 1 || st.All.Forwarding != 1 || st.Sysctls["net/ipv4/ip_default_ttl"] != "32" {
		t.Errorf("node02: %+v", st)
	}
	if st := stateOf(t, e, "default/client"); st.All.AcceptLocal != 1 {
		t.Errorf("client: %+v", st.All)
	}
}

func TestRoutes(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "delete route node01 10.244.2.0/24", "add route node01 10.244.2.0/24 via 192.168.233.10",
		"add route blackhole 10.9.0.0/16", "add route node01 default dev eth0 src 192.168.233.30 metric 7")
	var text []string
	for _, r := range stateOf(t, e, "node01").Routes[3:] {
		text = append(text, r.Text)
	}
	want := []string{"10.244.2.0/24 via 192.168.233.10 dev eth0", "blackhole 10.9.0.0/16", "default dev eth0 scope link src 192.168.233.30 metric 7"}
	if d := cmp.Diff(want, text); d != "" {
		t.Errorf("routes (-want +got)\n%s", d)
	}
	if !hasRoute(stateOf(t, e, "node02"), "10.9.0.0/16") || hasRoute(stateOf(t, e, "default/client"), "10.9.0.0/16") {
		t.Error("an edit without a node is for every node and for no pod")
	}
}

func TestNeighborsAndFDB(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "delete neighbor node01 10.244.2.0", "delete fdb node01 0E:00:00:00:00:01", "mtu node01 flannel.1 1200")
	st := stateOf(t, e, "node01")
	if len(st.Neighbors) != 2 || len(st.FDB) != 2 || st.Device("flannel.1").MTU != 1200 {
		t.Errorf("neighbours %+v\nfdb %+v\nMTU %d", st.Neighbors, st.FDB, st.Device("flannel.1").MTU)
	}
}

// rulesIn lists the rules of a chain as they are saved.
func rulesIn(t *testing.T, st *datapath.NetState, table, chain string) []string {
	t.Helper()
	rs, err := kubeproxy.ParseSave(st.RuleSave[table])
	if err != nil {
		t.Fatal(err)
	}
	c := rs.Table(table).Chain(chain)
	if c == nil {
		return nil
	}
	var out []string
	for _, r := range c.Rules {
		out = append(out, r.Raw)
	}
	return out
}

// chainsOf lists the chains whose names begin so.
func chainsOf(t *testing.T, st *datapath.NetState, table, prefix string) []string {
	t.Helper()
	rs, err := kubeproxy.ParseSave(st.RuleSave[table])
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range rs.Table(table).Chains {
		if strings.HasPrefix(c.Name, prefix) {
			out = append(out, c.Name)
		}
	}
	return out
}

func TestRules(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s,
		"rule node01 -t filter -I FORWARD 1 -s 10.244.0.0/16 -j DROP",
		"rule node01 -A FORWARD -p tcp ! --dport 80 --jump REJECT",
		`rule node01 -I FORWARD 2 -m comment --comment "what for" -j ACCEPT`,
		"rule node01 -I FORWARD 3 -m string --algo bm --string x -j DROP",
		"rule node01 -P INPUT DROP",
		"rule * -t raw -A PREROUTING -i eth0 -j DROP",
		`rule node02 -D FORWARD --match conntrack --ctstate NEW -m comment --comment "kubernetes load balancer firewall" -j KUBE-PROXY-FIREWALL`,
		"rule node02 -D FORWARD 2")
	st := stateOf(t, e, "node01")
	got := rulesIn(t, st, "filter", "FORWARD")
	want := []string{
		"-A FORWARD -s 10.244.0.0/16 -j DROP",
		`-A FORWARD -m comment --comment "what for" -j ACCEPT`,
		"-A FORWARD -m string --algo bm --string x -j DROP", // not known: as it was written
	}
	if d := cmp.Diff(want, got[:3]); d != "" {
		t.Errorf("FORWARD begins (-want +got)\n%s", d)
	}
	if last := got[len(got)-1]; last != "-A FORWARD -p tcp -m tcp ! --dport 80 -j REJECT --reject-with icmp-port-unreachable" {
		t.Errorf("FORWARD ends with %s", last)
	}
	if !strings.Contains(st.RuleSave["filter"], ":INPUT DROP ") {
		t.Error("the policy has not changed")
	}
	for _, node := range []string{"node01", "node02", "master01"} {
		if got := rulesIn(t, stateOf(t, e, node), "raw", "PREROUTING"); len(got) != 1 {
			t.Errorf("%s raw PREROUTING: %v", node, got)
		}
	}
	before, after := rulesIn(t, n.states["node02"], "filter", "FORWARD"), rulesIn(t, stateOf(t, e, "node02"), "filter", "FORWARD")
	// The load balancer's jump is the first, as kube-proxy makes it last.
	if d := cmp.Diff(append(before[1:2:2], before[3:]...), after); d != "" {
		t.Errorf("node02 FORWARD (-want +got)\n%s", d)
	}
}

// An endpoint less: kube-proxy gives each of the n-1 others its share, on every
// node; with the last one gone the service is rejected.
func TestDeleteEndpoint(t *testing.T) {
	n, s := handCluster(t)
	jumps := func(e trace.Network, node string) []string {
		st := stateOf(t, e, node)
		return rulesIn(t, st, "nat", chainsOf(t, st, "nat", "KUBE-SVC-")[0])
	}
	if got := jumps(n, "node01"); len(got) != 3 || !strings.Contains(got[1], "--probability 0.50000000000") {
		t.Fatalf("with two endpoints: %q", got)
	}
	for _, text := range []string{"delete endpoint web-1", "delete endpoint default/web-1", "delete endpoint 10.244.2.3", "delete endpoint 10.244.2.3:80"} {
		e := edited(t, n, s, text)
		for _, node := range []string{"master01", "node01", "node02"} {
			got := jumps(e, node)
			if len(got) != 2 || strings.Contains(got[1], "statistic") || !strings.Contains(got[1], "-> 10.244.2.2:80") {
				t.Errorf("%s, %s: %q", text, node, got)
			}
			if seps := chainsOf(t, stateOf(t, e, node), "nat", "KUBE-SEP-"); len(seps) != 1 {
				t.Errorf("%s, %s: chains %q", text, node, seps)
			}
		}
	}
	e := edited(t, n, s, "delete endpoint web-1", "delete endpoint web-0")
	st := stateOf(t, e, "node01")
	if got := chainsOf(t, st, "nat", "KUBE-SVC-"); got != nil {
		t.Errorf("without endpoints there is still %q", got)
	}
	want := []string{`-A KUBE-SERVICES -d 10.96.0.20/32 -p tcp -m comment --comment "default/web has no endpoints" -m tcp --dport 8080 -j REJECT --reject-with icmp-port-unreachable`}
	if d := cmp.Diff(want, rulesIn(t, st, "filter", "KUBE-SERVICES")); d != "" {
		t.Errorf("filter KUBE-SERVICES (-want +got)\n%s", d)
	}
	// What is not kube-proxy's own stays, and so do its jumps.
	if got := rulesIn(t, st, "nat", "PREROUTING"); len(got) != 1 {
		t.Errorf("nat PREROUTING: %q", got)
	}
}

func TestDeleteService(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "delete service web")
	st := stateOf(t, e, "node02")
	for _, r := range slices.Concat(rulesIn(t, st, "nat", "KUBE-SERVICES"), rulesIn(t, st, "filter", "KUBE-SERVICES")) {
		if strings.Contains(r, "10.96.0.20") {
			t.Errorf("a rule is left: %s", r)
		}
	}
	if len(s.Services) != 1 {
		t.Error("the snapshot has lost its service")
	}
}

func TestDeletePod(t *testing.T) {
	n, s := handCluster(t)
	e := edited(t, n, s, "delete pod web-0")
	st := stateOf(t, e, "node02")
	if st.Device("veth-web-0") != nil || st.Device("veth-web-1") == nil {
		t.Errorf("devices of the node: %+v", st.Devices)
	}
	for _, x := range st.Neighbors {
		if x.Address == netip.MustParseAddr("10.244.2.2") {
			t.Errorf("neighbour %+v is left", x)
		}
	}
	if _, err := e.State("default/web-0"); err == nil {
		t.Error("the pod's namespace can still be read")
	}
	if _, _, err := e.Peer("node02", "veth-web-0"); !errors.Is(err, trace.ErrNoPeer) {
		t.Errorf("the veth still leads somewhere: %v", err)
	}
	if ns, _, err := e.Peer("node02", "veth-web-1"); err != nil || ns != "default/web-1" {
		t.Errorf("another pod: %s, %v", ns, err)
	}
	if seps := chainsOf(t, stateOf(t, e, "node01"), "nat", "KUBE-SEP-"); len(seps) != 1 {
		t.Errorf("endpoints: %q", seps)
	}
}

// The rules after an edit of services are what kube-proxy plans for the node.
func TestReplanIsKubeProxys(t *testing.T) {
	n, s := handCluster(t)
	after := *s
	after.Services = nil
	set, err := kubeproxy.Plan(after, "node01", kubeproxy.DefaultOptions(after))
	if err != nil {
		t.Fatal(err)
	}
	e := edited(t, n, s, "delete service default/web")
	st := stateOf(t, e, "node01")
	for _, table := range set.Tables {
		want, got := slices.Clone(table.Rules), []string(nil)
		for _, c := range table.Chains {
			got = append(got, rulesIn(t, st, table.Name, c)...)
		}
		slices.Sort(want)
		slices.Sort(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("table %s (-planned +edited)\n%s", table.Name, d)
		}
	}
}
