package tracing

import (
	"slices"
	"syscall"
	"testing"

	"slipway/datapath/trace"
	"slipway/topology"
)

// fault is something wrong in a lab, and what a trace has to say of it.
// Commands are "PLACE: COMMAND" and are typed there; {names} stand for the
// lab's addresses and devices.
type fault struct {
	name  string
	modes []topology.ModeName // nil: all
	// break_ makes the fault, heal undoes what `slipway up` does not repair.
	break_, heal []string
	// breaks and heals do what no command in a place can.
	breaks, heals func(*testing.T, *testLab)
	// trace are source, destination and flags; nil: the client to the server's
	// TCP port on another node.
	trace []string
	// ready are commands that succeed once the fault is there, or is healed.
	broken, healed []string
	want           want
}

// want is the cause that both prediction and observation have to give.
type want struct {
	place   string
	device  string // that the prediction has to name; empty: any
	table   string // of the prediction; empty: any
	reason  trace.Reason
	reply   bool // it is the answer that is lost
	verdict trace.Verdict
	// seen is what the observation may say instead of reason, where the
	// kernel's events do not tell more. [trace.ReasonNotSeen]: where the packet
	// was last, as no event says what became of it.
	seen trace.Reason
}

// in reports whether a fault can be made in a mode.
func (f fault) in(m topology.ModeName) bool { return f.modes == nil || slices.Contains(f.modes, m) }

var (
	flannels = []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN, topology.FlannelHostGW}
	calicos  = []topology.ModeName{topology.CalicoBGP, topology.CalicoIPIP}
	vxlan    = []topology.ModeName{topology.FlannelVXLAN}
	udp      = []topology.ModeName{topology.FlannelUDP}
	ipip     = []topology.ModeName{topology.CalicoIPIP}
	plain    = []topology.ModeName{topology.FlannelHostGW, topology.CalicoBGP}
	overUDP  = []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN}
)

// faults lists them all.
func faults() []fault {
	return slices.Concat(sysctlFaults, routeFaults, linkFaults, tunnelFaults, ruleFaults, serviceFaults, packetFaults)
}

var sysctlFaults = []fault{{
	name:   "ip_forward=0 on the sender's node",
	break_: []string{"node01: sysctl -qw net.ipv4.ip_forward=0"},
	want:   want{place: "node01", table: "sysctl", reason: trace.ReasonForwardingOff, verdict: trace.Dropped},
}, {
	name:   "ip_forward=0 on the receiver's node",
	break_: []string{"node02: sysctl -qw net.ipv4.ip_forward=0"},
	want:   want{place: "node02", table: "sysctl", reason: trace.ReasonForwardingOff, verdict: trace.Dropped},
}, {
	name: "rp_filter strict with another way back",
	break_: []string{
		"node02: ip link add second type bridge && ip link set second up",
		"node02: ip route add {client}/32 dev second",
		"node02: sysctl -qw net.ipv4.conf.all.rp_filter=1",
	},
	heal: []string{"node02: sysctl -qw net.ipv4.conf.all.rp_filter=0; ip link del second"},
	want: want{place: "node02", device: "{tunnel}", table: "sysctl", reason: trace.ReasonRPFilter, verdict: trace.Dropped},
}, {
	name:   "proxy_arp off",
	modes:  calicos,
	break_: []string{"node01: sysctl -qw net.ipv4.conf.{veth-client}.proxy_arp=0", "client: ip neigh flush dev eth0"},
	want:   want{place: "default/client", device: "eth0", table: "neighbor", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}}

var routeFaults = []fault{{
	name:   "route to the other node's pods missing, default route left",
	modes:  []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW},
	break_: []string{"node01: ip route del {pods-node02}"},
	want:   want{place: "node01", device: "eth0", table: "neighbor", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}, {
	name:   "route to the other node's pods missing, no default route",
	modes:  []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW},
	break_: []string{"node01: ip route del {pods-node02} && ip route del default"},
	want:   want{place: "node01", table: "main", reason: trace.ReasonNoRoute, verdict: trace.Rejected},
}, {
	name:   "the tunnel's route missing, no default route",
	modes:  udp,
	break_: []string{"node01: ip route del 10.244.0.0/16 dev flannel0 && ip route del default"},
	want:   want{place: "node01", table: "main", reason: trace.ReasonNoRoute, verdict: trace.Rejected},
}, {
	name:   "pod without a default route",
	break_: []string{"client: ip route del default"},
	want:   want{place: "default/client", table: "main", reason: trace.ReasonNoRoute, verdict: trace.Rejected},
}, {
	name:   "blackhole route",
	break_: []string{"node01: ip route add blackhole {web}/32"},
	heal:   []string{"node01: ip route del blackhole {web}/32"},
	want:   want{place: "node01", table: "main", reason: trace.ReasonBlackhole, verdict: trace.Dropped},
}, {
	name:   "unreachable route",
	break_: []string{"node01: ip route add unreachable {web}/32"},
	heal:   []string{"node01: ip route del unreachable {web}/32"},
	want:   want{place: "node01", table: "main", reason: trace.ReasonUnreachable, seen: trace.ReasonBlackhole, verdict: trace.Rejected},
}, {
	name:   "prohibit route",
	break_: []string{"node01: ip route add prohibit {web}/32"},
	heal:   []string{"node01: ip route del prohibit {web}/32"},
	want:   want{place: "node01", table: "main", reason: trace.ReasonProhibit, seen: trace.ReasonBlackhole, verdict: trace.Rejected},
}, {
	name:   "policy rule blackholes the sender",
	break_: []string{"node01: ip rule add from {client} blackhole"},
	heal:   []string{"node01: ip rule del from {client} blackhole"},
	want:   want{place: "node01", reason: trace.ReasonBlackhole, verdict: trace.Dropped},
}, {
	name:   "blackhole of the block takes a pod whose route is missing",
	modes:  calicos,
	break_: []string{"node02: ip route del {web}/32"},
	want:   want{place: "node02", table: "main", reason: trace.ReasonBlackhole, verdict: trace.Dropped},
}, {
	name:   "next hop that does not exist",
	modes:  plain,
	break_: []string{"node01: ip route replace {pods-node02} via 192.168.1.200 dev eth0"},
	heal:   []string{"node01: ip route del {pods-node02}"},
	want:   want{place: "node01", device: "eth0", table: "neighbor", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}}

var linkFaults = []fault{{
	name:   "underlay link of the receiver's node down",
	break_: []string{"node02: ip link set eth0 down"},
	want:   want{place: "fabric", device: "{port-node02}", reason: trace.ReasonPortDown, seen: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:   "the switch's port disabled",
	break_: []string{"fabric: bridge link set dev {port-node02} state 0"},
	heal:   []string{"fabric: bridge link set dev {port-node02} state 3"},
	want:   want{place: "fabric", device: "{port-node02}", reason: trace.ReasonPortDown, seen: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:   "wrong MAC of the other node",
	modes:  []topology.ModeName{topology.FlannelUDP, topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP},
	break_: []string{"node01: ip neigh replace {node02} lladdr 02:de:ad:be:ef:01 dev eth0 nud permanent"},
	heal:   []string{"node01: ip neigh del {node02} dev eth0"},
	want:   want{place: "fabric", table: "neighbor", reason: trace.ReasonOtherHost, seen: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:   "pod's bridge port down",
	modes:  flannels,
	break_: []string{"node02: ip link set {veth-web} down"},
	want:   want{place: "node02", device: "{veth-web}", reason: trace.ReasonPortDown, seen: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:   "pod's bridge port disabled",
	modes:  flannels,
	break_: []string{"node02: bridge link set dev {veth-web} state 0"},
	heal:   []string{"node02: bridge link set dev {veth-web} state 3"},
	want:   want{place: "node02", device: "{veth-web}", reason: trace.ReasonPortDown, seen: trace.ReasonNotSeen, verdict: trace.Dropped},
}, {
	name:   "hairpin off",
	modes:  flannels,
	break_: []string{"node02: bridge link set dev {veth-web} hairpin off"},
	trace:  []string{"web", "one:8080"},
	want:   want{place: "node02", device: "{veth-web}", reason: trace.ReasonHairpinOff, seen: trace.ReasonPortDown, verdict: trace.Dropped},
}, {
	name:   "the pod's address on the sender's node too",
	break_: []string{"node01: ip addr add {web}/32 dev lo"},
	heal:   []string{"node01: ip addr del {web}/32 dev lo"},
	want:   want{place: "node01", reason: trace.ReasonDuplicate, seen: trace.ReasonNoListener, verdict: trace.Rejected},
}, {
	name:   "MTU black hole: frag-needed filtered",
	break_: []string{"node01: ip link set {tunnel} mtu 1300", "node01: {iptables} -w -I OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP"},
	heal:   []string{"node01: {iptables} -w -D OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP"},
	trace:  []string{"client", "web:7007", "--proto", "udp", "--size", "1350", "--df"},
	want:   want{place: "node01", device: "{tunnel}", reason: trace.ReasonMTU, verdict: trace.Dropped},
}, {
	name:   "MTU exceeded",
	break_: []string{"node01: ip link set {tunnel} mtu 1300"},
	heal:   []string{"client: ip route flush cache"},
	trace:  []string{"client", "web:7007", "--proto", "udp", "--size", "1350", "--df"},
	want:   want{place: "node01", device: "{tunnel}", reason: trace.ReasonMTU, verdict: trace.Rejected},
}}

var tunnelFaults = []fault{{
	name:   "FDB leads to another node",
	modes:  vxlan,
	break_: []string{"node01: bridge fdb replace {vtep-node02} dev flannel.1 dst {node03}"},
	heal:   []string{"node01: bridge fdb del {vtep-node02} dev flannel.1 dst {node03}"},
	want:   want{place: "node03", device: "flannel.1", reason: trace.ReasonOtherHost, verdict: trace.Dropped},
}, {
	name:   "FDB entry missing",
	modes:  vxlan,
	break_: []string{"node01: bridge fdb del {vtep-node02} dev flannel.1"},
	want:   want{place: "node01", device: "flannel.1", table: "fdb", reason: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:  "wrong VTEP MAC in neighbour and FDB",
	modes: vxlan,
	break_: []string{
		"node01: ip neigh replace {first-node02} lladdr 02:de:ad:be:ef:02 dev flannel.1 nud permanent",
		"node01: bridge fdb add 02:de:ad:be:ef:02 dev flannel.1 dst {node02}",
	},
	heal: []string{"node01: bridge fdb del 02:de:ad:be:ef:02 dev flannel.1"},
	want: want{place: "node02", device: "flannel.1", reason: trace.ReasonOtherHost, verdict: trace.Dropped},
}, {
	name:   "wrong VTEP MAC in the neighbour entry",
	modes:  vxlan,
	break_: []string{"node01: ip neigh replace {first-node02} lladdr 02:de:ad:be:ef:02 dev flannel.1 nud permanent"},
	want:   want{place: "node01", device: "flannel.1", table: "fdb", reason: trace.ReasonNoFDB, verdict: trace.Dropped},
}, {
	name:   "VTEP's neighbour entry missing",
	modes:  vxlan,
	break_: []string{"node01: ip neigh del {first-node02} dev flannel.1"},
	want:   want{place: "node01", device: "flannel.1", table: "neighbor", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}, {
	name:   "VXLAN port mismatch",
	modes:  vxlan,
	break_: []string{"node01: bridge fdb replace {vtep-node02} dev flannel.1 dst {node02} port 8473"},
	heal:   []string{"node01: bridge fdb del {vtep-node02} dev flannel.1 dst {node02} port 8473"},
	want:   want{place: "node02", reason: trace.ReasonNoVTEP, verdict: trace.Dropped},
}, {
	name:   "VXLAN network identifier mismatch",
	modes:  vxlan,
	break_: []string{"node01: bridge fdb replace {vtep-node02} dev flannel.1 dst {node02} vni 7"},
	heal:   []string{"node01: bridge fdb del {vtep-node02} dev flannel.1 dst {node02} vni 7"},
	want:   want{place: "node02", reason: trace.ReasonNoVTEP, verdict: trace.Dropped},
}, {
	name:   "the receiver's tunnel device down",
	modes:  []topology.ModeName{topology.FlannelUDP, topology.CalicoIPIP},
	break_: []string{"node02: ip link set {tunnel} down"},
	want:   want{place: "node02", device: "{tunnel}", reason: trace.ReasonDeviceDown, seen: trace.ReasonNotSeen, verdict: trace.Dropped},
}, {
	name:   "the receiver's VTEP down",
	modes:  vxlan,
	break_: []string{"node02: ip link set flannel.1 down"},
	want:   want{place: "node02", reason: trace.ReasonNoVTEP, verdict: trace.Dropped},
}, {
	name:   "UDP tunnel's process killed",
	modes:  udp,
	breaks: killDaemon,
	want:   want{place: "node01", device: "flannel0", table: "tunnel", reason: trace.ReasonTunnelDown, seen: trace.ReasonDeviceDown, verdict: trace.Dropped},
}, {
	name:  "no lease for the address",
	modes: udp,
	trace: []string{"client", "10.244.200.5", "--proto", "icmp"},
	want:  want{place: "node01", device: "flannel0", table: "tunnel", reason: trace.ReasonNoLease, seen: trace.ReasonNotSeen, verdict: trace.Dropped},
}, {
	name:   "IPIP programs gone from the receiver's underlay device",
	modes:  ipip,
	break_: []string{"node02: tc qdisc del dev eth0 clsact"},
	want:   want{place: "node02", table: "tunnel", reason: trace.ReasonTunnelDown, verdict: trace.Dropped},
}, {
	// A kernel keeps what its speaker has learnt when that hangs, and a peer does
	// so for the hold time and the restart time (RFC 4724), minutes; the end of
	// that is made here.
	name:   "BGP session down",
	modes:  calicos,
	breaks: signalSpeakers(syscall.SIGSTOP, "node01", "node02"),
	heals:  signalSpeakers(syscall.SIGCONT, "node01", "node02"),
	broken: []string{"node01: ip route del {pods-node02}"},
	healed: []string{"node01: ip route show exact {pods-node02} | grep -q bird", "node02: ip route show exact {pods-node01} | grep -q bird"},
	want:   want{place: "node01", device: "eth0", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}}
