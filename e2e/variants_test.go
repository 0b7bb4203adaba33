package e2e

import (
	"fmt"
	"strings"
	"testing"

	"slipway/topology"
)

// variant is one way of building the same cluster: a mode with its settings on
// one rack, or on two with a router between them.
type variant struct {
	name     string
	mode     topology.ModeName
	settings string // further lines of spec.network, in YAML flow style
	racks    int
	spread   bool // measure the spread of connections here
}

func variants() []variant {
	return []variant{
		{name: "udp-simple", mode: topology.FlannelUDP, settings: "udp: {implementation: simple}", racks: 1},
		{name: "udp-batched", mode: topology.FlannelUDP, settings: "udp: {implementation: batched}", racks: 1},
		{name: "udp-ebpf", mode: topology.FlannelUDP, settings: "udp: {implementation: ebpf}", racks: 1},
		{name: "vxlan", mode: topology.FlannelVXLAN, racks: 1, spread: true},
		{name: "vxlan-direct", mode: topology.FlannelVXLAN, settings: "vxlan: {directRouting: true}", racks: 1},
		{name: "host-gw", mode: topology.FlannelHostGW, racks: 1},
		{name: "bgp", mode: topology.CalicoBGP, racks: 1, spread: true},
		{name: "ipip", mode: topology.CalicoIPIP, settings: "ipip: {policy: always}", racks: 1},
		{name: "udp-2", mode: topology.FlannelUDP, racks: 2},
		{name: "udp-ebpf-2", mode: topology.FlannelUDP, settings: "udp: {implementation: ebpf}", racks: 2},
		{name: "vxlan-2", mode: topology.FlannelVXLAN, racks: 2},
		{name: "vxd-2", mode: topology.FlannelVXLAN, settings: "vxlan: {directRouting: true}", racks: 2},
		{name: "bgp-2", mode: topology.CalicoBGP, racks: 2},
		{name: "rr-2", mode: topology.CalicoBGP, settings: "bgp: {topology: route-reflectors, routeReflectors: [r1]}", racks: 2},
		{name: "ipip-2", mode: topology.CalicoIPIP, settings: "ipip: {policy: always}", racks: 2},
		{name: "cross-2", mode: topology.CalicoIPIP, settings: "ipip: {policy: cross-subnet}", racks: 2},
	}
}

// networkSpec is a cluster file's network section.
func networkSpec(mode topology.ModeName, settings string) string {
	s := fmt.Sprintf("  network:\n    mode: %s\n", mode)
	if settings != "" {
		s += "    " + settings + "\n"
	}
	return s
}

// spec is the cluster of the variant: a master that runs no pods, and three
// workers, the last one in the other rack if there are two.
func (v variant) spec() string {
	last := "rack1"
	s := networkSpec(v.mode, v.settings) + "  underlay:\n    segments:\n      - {name: rack1, subnet: 192.168.1.0/24}\n"
	if v.racks == 2 {
		last = "rack2"
		s += "      - {name: rack2, subnet: 192.168.2.0/24}\n    routers:\n      - {name: r1, segments: [rack1, rack2]}\n"
	}
	return s + fmt.Sprintf(`  nodes:
    - {name: master, roles: [control-plane, etcd], segment: rack1}
    - {name: node01, roles: [worker], segment: rack1}
    - {name: node02, roles: [worker], segment: rack1}
    - {name: node03, roles: [worker], segment: %s}
`, last)
}

// podYAML declares a pod on a node; each label is "key: value", each port a
// number with its protocol.
func podYAML(name, node string, labels []string, ports ...string) string {
	s := fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {%s}}\nspec:\n  nodeName: %s\n  containers:\n    - name: c\n      image: echo:1\n", name, strings.Join(labels, ", "), node)
	if len(ports) > 0 {
		s += "      ports:\n"
	}
	for _, p := range ports {
		number, protocol, _ := strings.Cut(p, "/")
		s += fmt.Sprintf("        - {containerPort: %s, protocol: %s}\n", number, protocol)
	}
	return s + "---\n"
}

// serviceYAML declares a service; spec is in YAML flow style.
func serviceYAML(name, spec string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {%s}\n---\n", name, spec)
}

// The node ports and the external address of the matrix's services.
const (
	clusterNodePort = 30080
	localNodePort   = 30081
	emptyNodePort   = 30082
	externalIP      = "203.0.113.10" // TEST-NET-3 (RFC 5737)
)

// matrixObjects are the pods and services of the matrix: two web pods on one
// node, one on another, one on a third (in the other rack if there are two),
// and a client that serves nothing.
func matrixObjects() string {
	ports := []string{"80/TCP", "7/UDP", "9/SCTP"}
	return podYAML("client", "node01", []string{"app: client"}) +
		podYAML("web-a", "node01", []string{"app: web", "solo: member"}, ports...) +
		podYAML("web-b", "node01", []string{"app: web", "three: member"}, ports...) +
		podYAML("web-c", "node02", []string{"app: web", "tier: far", "three: member"}, ports...) +
		podYAML("web-d", "node03", []string{"app: web", "three: member"}, ports...) +
		serviceYAML("web", "selector: {app: web}, ports: [{name: http, port: 8080, targetPort: 80}]") +
		serviceYAML("dgram", "selector: {app: web}, ports: [{port: 7007, targetPort: 7, protocol: UDP}]") +
		serviceYAML("assoc", "selector: {app: web}, ports: [{port: 9009, targetPort: 9, protocol: SCTP}]") +
		serviceYAML("solo", "selector: {solo: member}, ports: [{port: 80}]") +
		serviceYAML("bare", "clusterIP: None, selector: {tier: far}, ports: [{port: 80}]") +
		serviceYAML("outside", fmt.Sprintf("type: NodePort, externalIPs: [%s], selector: {app: web}, ports: [{port: 80, nodePort: %d}]", externalIP, clusterNodePort)) +
		serviceYAML("local", fmt.Sprintf("type: NodePort, externalTrafficPolicy: Local, selector: {tier: far}, ports: [{port: 80, nodePort: %d}]", localNodePort)) +
		serviceYAML("empty", fmt.Sprintf("type: NodePort, selector: {app: nobody}, ports: [{port: 80, nodePort: %d}]", emptyNodePort)) +
		serviceYAML("three", "selector: {three: member}, ports: [{port: 80}]") +
		serviceYAML("sticky", "sessionAffinity: ClientIP, selector: {app: web}, ports: [{port: 80}]")
}

// TestModes builds the cluster in every variant and sends everything that can
// be sent in it.
func TestModes(t *testing.T) {
	for _, v := range variants() {
		t.Run(v.name, func(t *testing.T) {
			l := up(t, v.name, v.spec(), matrixObjects())
			for _, c := range []struct {
				name  string
				cells func(t *testing.T, l *testLab)
			}{
				{"pods", podCells}, {"nodes", nodeCells}, {"services", serviceCells}, {"names", nameCells},
				{"no endpoints", emptyCells}, {"outside", outsideCells}, {"wire", wireCells}, {"mtu", mtuCells},
			} {
				t.Run(c.name, func(t *testing.T) {
					defer l.in(t)()
					c.cells(t, l)
				})
			}
			if v.spread {
				t.Run("spread", func(t *testing.T) { spreadCell(t, l) })
			}
		})
	}
}
