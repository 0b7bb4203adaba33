package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"

	"slipway/datapath/observe"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// modesSpec is a small rack for switching.
const modesSpec = `  underlay:
    segments: [{name: rack1, subnet: 192.168.1.0/24}]
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker]}
    - {name: node02, roles: [worker]}
    - {name: node03, roles: [worker]}
`

func modesObjects() string { return modesObjectsOn("node03") }

// modesObjectsOn has its last pod on the given node.
func modesObjectsOn(last string) string {
	return podYAML("client", "node01", nil) +
		podYAML("web-a", "node01", []string{"app: web"}, "80/TCP") +
		podYAML("web-b", "node02", []string{"app: web"}, "80/TCP") +
		podYAML("web-c", last, []string{"app: web"}, "80/TCP") +
		serviceYAML("web", fmt.Sprintf("type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: %d}]", clusterNodePort))
}

// TestSwitchModes moves one running lab through all modes and back to the
// first, so that each is entered and left.
func TestSwitchModes(t *testing.T) {
	all := topology.ModeNames()
	l := up(t, "modes", networkSpec(all[0], "")+modesSpec, modesObjects())
	for _, mode := range append(all[1:], all[0], topology.CalicoBGP) {
		t.Run(string(mode), func(t *testing.T) {
			defer l.in(t)()
			before := l.st.Snapshot.Network.Mode
			switchTo := func() { checkSwitch(t, l, before, mode) }
			if mode == topology.CalicoBGP && !before.IsCalico() {
				checkSessions(t, l, switchTo)
			} else {
				switchTo()
			}
			worksAfter(t, l)
			for _, n := range l.nodes() {
				checkTraces(t, l, n, mode)
			}
			if s := slipway(t, "status", "-L", l.name); s.Code != 0 {
				t.Errorf("%s in %s: exit code %d, want 0\n%s%s", s.Argv, mode, s.Code, s.Out, s.Err)
			}
		})
	}
}

// checkSwitch runs the command and judges what it says.
func checkSwitch(t *testing.T, l *testLab, from, to topology.ModeName) {
	t.Helper()
	out := l.slipway("mode", string(to), "-o", "json")
	l.read()
	var res lab.ModeResult
	if err := json.Unmarshal([]byte(out), &res); err != nil {
		t.Fatalf("slipway mode %s -o json: %v\n%s", to, err, out)
	}
	if res.From != from || res.Result == nil || res.Mode != to {
		t.Errorf("slipway mode %s says %s → %+v, want %s → %s", to, res.From, res.Result, from, to)
	}
	if len(res.Leftovers) > 0 {
		t.Errorf("slipway mode %s: leftovers %+v", to, res.Leftovers)
	}
	w := res.Window
	if w == nil || w.Attempts == 0 || w.Lost == w.Attempts {
		t.Errorf("slipway mode %s: window %+v, want connections tried, and not all lost", to, w)
	} else {
		t.Logf("%s → %s: %d of %d connections lost, gap %s", from, to, w.Lost, w.Attempts, w.Gap)
	}
}

// worksAfter sends between all pods and to the service from everywhere.
func worksAfter(t *testing.T, l *testLab) {
	t.Helper()
	pings(t, l.pods(), l.pods())
	for _, from := range l.pods() {
		for _, to := range l.servers() {
			if from != to {
				a := answered(t, from, to.name, netip.AddrPortFrom(to.addr, webPort), []*place{to})
				sees(t, from, to.name, a, "the pod itself, untranslated", from.addr)
			}
		}
	}
	for _, from := range append(l.pods(), l.nodes()...) {
		answered(t, from, "service web", l.clusterIP("web"), l.servers())
	}
	for _, n := range l.nodes() {
		answered(t, l.at("external"), "node port of "+n.name, netip.AddrPortFrom(n.addr, clusterNodePort), l.servers())
	}
}

// trace is something by which a node shows in which mode it is or was.
type trace struct {
	what string
	in   *regexp.Regexp
	of   []topology.ModeName
}

var (
	flannelModes = []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN, topology.FlannelHostGW}
	calicoModes  = []topology.ModeName{topology.CalicoBGP, topology.CalicoIPIP}
)

// traces are what flannel and calico are known by to anybody who looks at a
// node with iproute2 and iptables.
var traces = []trace{
	{"the VXLAN device flannel.1", regexp.MustCompile(`\bflannel\.1\b`), []topology.ModeName{topology.FlannelVXLAN}},
	{"the TUN device flannel0", regexp.MustCompile(`\bflannel0\b`), []topology.ModeName{topology.FlannelUDP}},
	{"the bridge cni0", regexp.MustCompile(`\bcni0\b`), flannelModes},
	{"flannel's chains", regexp.MustCompile(`\bFLANNEL-\w+`), flannelModes},
	{"the tunnel tunl0", regexp.MustCompile(`\btunl0\b`), []topology.ModeName{topology.CalicoIPIP}},
	{"pods' cali devices", regexp.MustCompile(`\bcali[0-9a-f]{11}\b`), calicoModes},
	{"calico's chains", regexp.MustCompile(`\bcali-\w+`), calicoModes},
	{"routes learnt by BGP", regexp.MustCompile(`\bvia .* proto bird\b`), calicoModes},
	{"calico's blocks", regexp.MustCompile(`\bblackhole .* proto bird\b`), calicoModes},
	{"the DNAT of a pod's address", regexp.MustCompile(`KUBE-SEP-\w+ .*--to-destination`), topology.ModeNames()},
}

// checkTraces looks at a node as its user would, without the lab's own means,
// and wants what belongs to the mode and nothing that belongs to others.
func checkTraces(t *testing.T, l *testLab, node *place, mode topology.ModeName) {
	t.Helper()
	text := portrait(t, node)
	for _, x := range traces {
		found := x.in.FindString(text)
		switch belongs := slices.Contains(x.of, mode); {
		case belongs && found == "":
			t.Errorf("%s in %s: %s are not there", node.name, mode, x.what)
		case !belongs && found != "":
			t.Errorf("%s in %s: %s of another mode: %q", node.name, mode, x.what, found)
		}
	}
	if mode != topology.CalicoIPIP && strings.Contains(text, " bpf ") {
		t.Errorf("%s in %s: tc programs are left on eth0", node.name, mode)
	}
	// Only the kernel's own three rules (ip-rule(8)).
	if rules := strings.Count(ip(t, node, "rule"), "\n"); rules != 3 {
		t.Errorf("%s in %s: %d policy rules, want 3", node.name, mode, rules)
	}
	for _, a := range podAddresses(text, l.st.Snapshot.Network.PodCIDR) {
		if !slices.ContainsFunc(l.st.Snapshot.Pods, func(p topology.Pod) bool { return p.Address == a }) {
			t.Errorf("%s in %s: a rule or route for pod address %s, which nobody has", node.name, mode, a)
		}
	}
}

// podAddresses are the single addresses of the pod range that routes of devices
// and DNAT rules name.
func podAddresses(text string, pods netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for _, m := range regexp.MustCompile(`(?m)(?:^|--to-destination )(10\.\d+\.\d+\.\d+)(?: dev cali|:\d+)`).FindAllStringSubmatch(text, -1) {
		if a, err := netip.ParseAddr(m[1]); err == nil && pods.Contains(a) {
			out = append(out, a)
		}
	}
	return out
}

// portrait is what iproute2 and iptables show of a node.
func portrait(t *testing.T, node *place) string {
	t.Helper()
	text := ip(t, node, "-o", "link") + ip(t, node, "route", "show", "table", "all") + ip(t, node, "neigh")
	commands := [][]string{{"bridge", "fdb"}, {"tc", "filter", "show", "dev", "eth0", "ingress"}, {"tc", "filter", "show", "dev", "eth0", "egress"}}
	for _, save := range []string{"iptables-legacy-save", "iptables-nft-save", "iptables-save"} {
		if _, err := exec.LookPath(save); err == nil {
			commands = append(commands, []string{save})
		}
	}
	for _, c := range commands {
		out, err := run.Cmd{NS: node.ns, Name: c[0], Args: c[1:]}.Output(context.Background())
		if err != nil {
			t.Fatalf("%s: %v", node.name, err)
		}
		text += string(out)
	}
	return text
}

// checkSessions captures the fabric while fn runs and lets tshark read how BGP
// sessions begin: each node introduces itself and tells the way to its block.
func checkSessions(t *testing.T, l *testLab, fn func()) {
	t.Helper()
	testnet.Need(t, testnet.TShark)
	filter, err := bpf.Assemble(bgpOnly)
	if err != nil {
		t.Fatal(err)
	}
	file := capture(t, l, observe.Options{Filter: filter}, fn)
	opens := tshark(t, file, "bgp.type == 1", nil, "ip.src", "bgp.open.version", "bgp.open.myas", "bgp.open.identifier")
	updates := tshark(t, file, "bgp.type == 2 && bgp.nlri_prefix", nil, "ip.src", "bgp.update.path_attribute.next_hop", "bgp.prefix_length", "bgp.nlri_prefix")
	for _, n := range l.st.Snapshot.Nodes {
		want := fmt.Sprintf("%s|4|64512|%s", n.Address, n.Address)
		if !slices.Contains(opens, want) {
			t.Errorf("BGP OPEN of %s: want %s, tshark reads\n%s", n.Name, want, strings.Join(opens, "\n"))
		}
		for _, b := range n.Blocks {
			want := fmt.Sprintf("%s|%s|26|%s", n.Address, n.Address, b.Addr())
			if !slices.Contains(updates, want) {
				t.Errorf("BGP UPDATE of %s: want %s, tshark reads\n%s", n.Name, want, strings.Join(updates, "\n"))
			}
		}
	}
	if bad := tshark(t, file, "_ws.malformed", nil, "frame.number"); len(bad) != 1 || bad[0] != "" {
		t.Errorf("malformed packets: %v", bad)
	}
}

// bgpOnly passes TCP from or to port 179 in Ethernet frames (bpf(4)).
var bgpOnly = []bpf.Instruction{
	bpf.LoadAbsolute{Off: 12, Size: 2}, // EtherType
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x0800, SkipTrue: 8},
	bpf.LoadAbsolute{Off: 23, Size: 1}, // IP protocol
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 6, SkipTrue: 6},
	bpf.LoadMemShift{Off: 14},          // X = length of the IP header
	bpf.LoadIndirect{Off: 14, Size: 2}, // source port
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 179, SkipTrue: 2},
	bpf.LoadIndirect{Off: 16, Size: 2}, // destination port
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 179, SkipTrue: 1},
	bpf.RetConstant{Val: 0xffff},
	bpf.RetConstant{Val: 0},
}
