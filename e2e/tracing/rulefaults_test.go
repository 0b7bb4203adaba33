package tracing

import (
	"strings"

	"slipway/datapath/trace"
	"slipway/topology"
)

// oneRule is the fault of one iptables rule more: "-I" makes it and "-D" takes
// it away.
func oneRule(name, place, rule string, w want) fault {
	w.place = place
	typed := place + ": {iptables} -w " + rule
	return fault{name: name, break_: []string{typed}, heal: []string{strings.Replace(typed, " -I ", " -D ", 1)}, want: w}
}

// to is the fault with a trace of its own.
func (f fault) to(args ...string) fault {
	f.trace = args
	return f
}

// at is the fault that is named in another place than where the rule is typed.
func (f fault) at(place string) fault {
	f.want.place = place
	return f
}

// only is the fault in some modes.
func (f fault) only(modes ...topology.ModeName) fault {
	f.modes = modes
	return f
}

// policy is a chain's policy, with the command that gives it back.
func policy(name, place, chain string, w want) fault {
	w.place = place
	set := place + ": {iptables} -w -P " + chain
	return fault{name: name, break_: []string{set + " DROP"}, heal: []string{set + " ACCEPT"}, want: w}
}

var ruleFaults = []fault{
	oneRule("DROP in FORWARD on the sender's node", "node01", "-I FORWARD -s {client} -d {web} -j DROP",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}),
	oneRule("REJECT in FORWARD on the receiver's node", "node02", "-I FORWARD -s {client} -j REJECT --reject-with icmp-admin-prohibited",
		want{table: "filter", reason: trace.ReasonRuleReject, verdict: trace.Rejected}),
	oneRule("the answer dropped in FORWARD", "node02", "-I FORWARD -s {web} -d {client} -j DROP",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped, reply: true}),
	oneRule("DROP in raw on the receiver's node", "node02", "-t raw -I PREROUTING -s {client} -j DROP",
		want{table: "raw", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}),
	oneRule("DROP in mangle on the sender's node", "node01", "-t mangle -I FORWARD -p tcp --dport 80 -j DROP",
		want{table: "mangle", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}),
	oneRule("DROP in the server's own INPUT", "web", "-I INPUT -p tcp --dport 80 -j DROP",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}).at("default/web"),
	oneRule("DROP in the client's own OUTPUT", "client", "-I OUTPUT -d {web} -j DROP",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}).at("default/client"),
	policy("policy DROP of INPUT", "node02", "INPUT",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}).to("client", "node02", "--proto", "icmp"),
	policy("policy DROP of INPUT takes the tunnel's packets", "node02", "INPUT",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}).only(overUDP...),
	oneRule("the tunnel's port filtered", "node02", "-I INPUT -p udp -m multiport --dports 8472,8285 -j DROP",
		want{table: "filter", reason: trace.ReasonRuleDrop, verdict: trace.Dropped}).only(overUDP...),
	oneRule("wrong masquerade: the sender's address becomes nobody's", "node01", "-t nat -I POSTROUTING -s {client} -d {web} -j SNAT --to-source 192.168.1.222",
		want{reason: trace.ReasonNoNeighbor, seen: trace.ReasonNotSeen, verdict: trace.Dropped, reply: true}).at("node02"),
}

var serviceFaults = []fault{{
	name:  "service without endpoints",
	trace: []string{"client", "none:8080"},
	want:  want{place: "node01", table: "filter", reason: trace.ReasonRuleReject, verdict: trace.Rejected},
}, {
	name:   "endpoint whose pod is gone",
	modes:  flannels,
	break_: []string{"node02: ip link del {veth-web}; ip neigh flush dev cni0 to {web}"},
	trace:  []string{"client", "one:8080"},
	want:   want{place: "node02", device: "cni0", table: "neighbor", reason: trace.ReasonNoNeighbor, verdict: trace.Rejected},
}, {
	name:   "endpoint whose pod is gone",
	modes:  calicos,
	break_: []string{"node02: ip link del {veth-web}"},
	trace:  []string{"client", "one:8080"},
	want:   want{place: "node02", table: "main", reason: trace.ReasonBlackhole, verdict: trace.Dropped},
}, {
	name:   "missing masquerade of a node port",
	break_: []string{"node01: {iptables} -w -t nat -I POSTROUTING -s 192.168.1.254 -j ACCEPT"},
	heal:   []string{"node01: {iptables} -w -t nat -D POSTROUTING -s 192.168.1.254 -j ACCEPT"},
	trace:  []string{"external", "node01:30080"},
	want:   want{place: "external", reason: trace.ReasonWrongSource, seen: trace.ReasonNoListener, verdict: trace.Dropped, reply: true},
}, {
	name:   "missing masquerade of a pod that reaches itself",
	break_: []string{"node02: {iptables} -w -t nat -I POSTROUTING -s {web} -d {web} -j ACCEPT"},
	heal:   []string{"node02: {iptables} -w -t nat -D POSTROUTING -s {web} -d {web} -j ACCEPT"},
	trace:  []string{"web", "one:8080"},
	want:   want{place: "default/web", device: "eth0", reason: trace.ReasonMartian, verdict: trace.Dropped},
}, {
	name:   "connection tracking table full",
	breaks: fillConntrack("node02"),
	heals:  flushConntrack("node02"),
	want:   want{place: "node02", table: "conntrack", reason: trace.ReasonConntrackFull, verdict: trace.Dropped},
}}

var packetFaults = []fault{{
	name:  "TTL 1",
	trace: []string{"client", "web:80", "--ttl", "1"},
	want:  want{place: "node01", reason: trace.ReasonTTL, verdict: trace.Rejected},
}, {
	name:  "TTL 2",
	modes: []topology.ModeName{topology.FlannelVXLAN, topology.FlannelHostGW, topology.CalicoBGP, topology.CalicoIPIP},
	trace: []string{"client", "web:80", "--ttl", "2"},
	want:  want{place: "node02", reason: trace.ReasonTTL, verdict: trace.Rejected},
}, {
	name:  "TTL 2, used up in the UDP tunnel",
	modes: udp,
	trace: []string{"client", "web:80", "--ttl", "2"},
	want:  want{place: "node01", device: "flannel0", reason: trace.ReasonTTL, seen: trace.ReasonNotSeen, verdict: trace.Dropped},
}, {
	name:  "nothing listens on the TCP port",
	trace: []string{"client", "web:81", "--proto", "tcp"},
	want:  want{place: "default/web", table: "socket", reason: trace.ReasonNoListener, verdict: trace.Rejected},
}, {
	name:  "nothing listens on the UDP port",
	trace: []string{"client", "web:81", "--proto", "udp"},
	want:  want{place: "default/web", table: "socket", reason: trace.ReasonNoListener, verdict: trace.Rejected},
}}
