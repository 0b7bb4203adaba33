package tracing

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/datapath/trace"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// clusterFile is one rack of three nodes. The client is on the first; the one
// endpoint of service `one` on the second; `many` has an endpoint on each node,
// and `none` has none at all.
const clusterFile = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: %s}
spec:
  network: {mode: %s}
  proxy: {mode: %s}
  underlay:
    segments: [{name: rack1, subnet: 192.168.1.0/24}]
  nodes:
    - {name: node01, roles: [control-plane, etcd, worker]}
    - {name: node02, roles: [worker]}
    - {name: node03, roles: [worker]}
  manifests: [objects.yaml]
`

// Ports of the servers and of the services' node ports.
const (
	tcpPort, udpPort         = 80, 7007
	tcpNodePort, udpNodePort = 30080, 30007
	manyTCPNodePort          = 30081
	manyUDPNodePort          = 30008
	nobodysPort              = 81
)

func objects() string {
	var b strings.Builder
	pod := func(name, node, labels string, ports bool) {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {%s}}\nspec:\n  nodeName: %s\n  containers:\n    - name: c\n      image: echo:1\n", name, labels, node)
		if ports {
			fmt.Fprintf(&b, "      ports: [{containerPort: %d}, {containerPort: %d, protocol: UDP}]\n", tcpPort, udpPort)
		}
		b.WriteString("---\n")
	}
	pod("client", "node01", "", false)
	pod("near", "node01", "set: many", true)
	pod("web", "node02", "app: web, set: many", true)
	pod("other", "node02", "", false) // without it the bridge would go down with the server's port
	pod("spare", "node03", "set: many", true)
	service := func(name, selector string, tcp, udp int) {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  type: NodePort\n  selector: {%s}\n  ports:\n"+
			"    - {name: http, port: 8080, targetPort: %d, nodePort: %d}\n    - {name: echo, port: 7, targetPort: %d, protocol: UDP, nodePort: %d}\n---\n",
			name, selector, tcpPort, tcp, udpPort, udp)
	}
	service("one", "app: web", tcpNodePort, udpNodePort)
	service("many", "set: many", manyTCPNodePort, manyUDPNodePort)
	service("none", "app: none", 30090, 30091)
	return b.String()
}

// testLab is a lab that is up until its test ends.
type testLab struct {
	name string
	mode topology.ModeName
	snap *topology.Snapshot
	// observer is how traces observe; the best way if empty.
	observer string
	// names are what the commands of faults are written with, "{web}".
	names *strings.Replacer
}

// up brings a lab up and takes it down when the test ends, however it ends.
func up(t *testing.T, mode topology.ModeName) *testLab {
	return upWith(t, mode, topology.ProxyIPTables)
}

// upWith is up with a backend of kube-proxy.
func upWith(t *testing.T, mode topology.ModeName, proxy topology.ProxyMode) *testLab {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	l := &testLab{name: fmt.Sprintf("tr%d-%s", os.Getpid(), strings.TrimPrefix(strings.TrimPrefix(string(mode), "flannel-"), "calico-")), mode: mode}
	if proxy == topology.ProxyNFTables {
		testnet.Need(t, testnet.NFT)
		l.name += "-nft"
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"cluster.yaml": fmt.Sprintf(clusterFile, l.name, mode, proxy), "objects.yaml": objects()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if s := slipway(t, "down", l.name); s.Code != 0 {
			t.Error(s)
		}
	})
	l.must(t, "up", "-q", "-f", filepath.Join(dir, "cluster.yaml"))
	st, err := lab.ReadState(l.name)
	if err != nil {
		t.Fatal(err)
	}
	l.snap = st.Snapshot
	l.names = strings.NewReplacer(l.facts(t)...)
	for _, n := range l.snap.Nodes {
		// Else one fault's errors use up what the next one's would need
		// (icmp(7), icmp_ratelimit: one a second to each host).
		l.runAll(t, []string{n.Name + ": sysctl -qw net.ipv4.icmp_ratelimit=0"})
	}
	return l
}

// must runs a command on the lab that has to succeed.
func (l *testLab) must(t testing.TB, command string, args ...string) said {
	t.Helper()
	s := slipway(t, append([]string{command, "-L", l.name}, args...)...)
	if s.Code != 0 {
		t.Fatalf("%s\nwant exit code 0", s)
	}
	return s
}

// facts are the names and addresses that faults are written with.
func (l *testLab) facts(t testing.TB) []string {
	t.Helper()
	host := flannel.HostIf
	if l.mode.IsCalico() {
		host = calico.HostIf
	}
	out := []string{"{underlay}", l.snap.Segments[0].Subnet.String(), "{tunnel}", tunnelDevices[l.mode]}
	for _, p := range l.snap.Pods {
		if p.Namespace == "default" {
			out = append(out, "{"+p.Name+"}", p.Address.String(), "{veth-"+p.Name+"}", host(p.Key()))
		}
	}
	for _, n := range l.snap.Nodes {
		pods := n.PodCIDR
		if l.mode.IsCalico() {
			pods = n.Blocks[0]
		}
		out = append(out, "{"+n.Name+"}", n.Address.String(), "{pods-"+n.Name+"}", pods.String(), "{vtep-"+n.Name+"}", n.VTEPMAC,
			"{first-"+n.Name+"}", pods.Addr().String(), "{port-"+n.Name+"}", n.Name+"-eth0")
	}
	return append(out, "{iptables}", iptables(t))
}

// tunnelDevices are what leads to other nodes' pods.
var tunnelDevices = map[topology.ModeName]string{
	topology.FlannelUDP: "flannel0", topology.FlannelVXLAN: "flannel.1", topology.FlannelHostGW: "eth0",
	topology.CalicoBGP: "eth0", topology.CalicoIPIP: "tunl0",
}

// iptables is the variant in which the lab's own rules are.
func iptables(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"iptables-legacy", "iptables"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no iptables")
	return ""
}

// run types a command in a place of the lab, "node01: ip route del {pods-node02}".
func (l *testLab) run(t testing.TB, line string) said {
	t.Helper()
	place, command, ok := strings.Cut(l.names.Replace(line), ": ")
	if !ok {
		t.Fatalf("%q names no place", line)
	}
	// Not the machine's own lock of iptables, but the lab's of that node.
	lock := "XTABLES_LOCKFILE=" + filepath.Join(lab.StateDir(), l.name, "xtables-"+place)
	return slipway(t, "exec", "-L", l.name, place, "--", "env", lock, "sh", "-c", command)
}

// runAll types commands that have to succeed.
func (l *testLab) runAll(t testing.TB, lines []string) {
	t.Helper()
	for _, line := range lines {
		if s := l.run(t, line); s.Code != 0 {
			t.Fatalf("%s\nwant exit code 0", s)
		}
	}
}

// trace traces one packet; the arguments may hold names of the lab.
func (l *testLab) trace(t testing.TB, args ...string) (trace.Trace, said) {
	t.Helper()
	argv := []string{"trace", "-L", l.name, "-o", "json"}
	for _, a := range args {
		argv = append(argv, l.names.Replace(a))
	}
	s := slipway(t, argv...)
	if !slices.Contains([]int{0, 1, 4}, s.Code) {
		t.Fatalf("%s\nwant exit code 0, 1 or 4", s)
	}
	return decode[trace.Trace](t, s), s
}
