package trace

import "slipway/datapath"

// Stage is where in a namespace's network stack a hop happens.
type Stage string

// The stages.
const (
	Socket      Stage = "socket"      // a process hands the packet to the kernel
	Egress      Stage = "egress"      // a device sends
	Ingress     Stage = "ingress"     // a device receives
	Prerouting  Stage = "prerouting"  // netfilter hooks, after all tables
	Input       Stage = "input"       //
	Forward     Stage = "forward"     //
	Output      Stage = "output"      //
	Postrouting Stage = "postrouting" //
	Route       Stage = "route"       // the FIB decides
	BridgeStage Stage = "bridge"      // a bridge chooses a port
	Encap       Stage = "encap"       // a tunnel device wraps the packet
	Decap       Stage = "decap"       // and unwraps it
	Wire        Stage = "wire"        // a device of the underlay's switch, in or out
	Userspace   Stage = "userspace"   // a process carries the packet on
	Deliver     Stage = "deliver"     // a socket, or the kernel itself, takes it
)

// Action is what became of the packet at a hop.
type Action string

// The actions.
const (
	Pass          Action = "pass"
	DNAT          Action = "dnat"
	SNAT          Action = "snat"
	Masquerade    Action = "masquerade"
	Mark          Action = "mark"
	EncapAction   Action = "encap"
	DecapAction   Action = "decap"
	ForwardAction Action = "forward"
	Drop          Action = "drop"
	Reject        Action = "reject"
	DeliverAction Action = "deliver"
	UnknownAction Action = "unknown"
)

// Hop is one step of a packet. The JSON form is part of the command line's
// contract.
type Hop struct {
	Seq       int    `json:"seq"`
	Node      string `json:"node"`
	Namespace string `json:"namespace"`
	// Place is the namespace as people call it: "node01", "default/client", "fabric".
	Place  string `json:"place,omitempty"`
	Device string `json:"device"`
	Stage  Stage  `json:"stage"`
	Action Action `json:"action"`
	// Rule is the deciding rule, verbatim as iptables-save shows it; Table the
	// table it is in. Rules are all that the packet matched on its way through
	// the hook, in order.
	Rule  string `json:"rule,omitempty"`
	Table string `json:"table,omitempty"`
	Rules []Hit  `json:"rules,omitempty"`
	// Probability of coming this far, in a prediction; 0 in an observation.
	Probability float64         `json:"probability,omitempty"`
	Packet      datapath.Packet `json:"packet"` // as it leaves the hop
	Route       string          `json:"route,omitempty"`
	Neighbor    string          `json:"neighbor,omitempty"`
	Conntrack   string          `json:"conntrack,omitempty"` // "new", "established, reply", …
	MTU         int             `json:"mtu,omitempty"`
	// TimeNs counts from the request's first event, SinceNs from the hop before.
	TimeNs  int64 `json:"timeNs,omitempty"`
	SinceNs int64 `json:"sinceNs,omitempty"`
	// TookNs is the time spent inside the hop, where both ends were seen.
	TookNs int64 `json:"tookNs,omitempty"`
	// Clock is the host whose clock the hop was timed by, where a packet's way has
	// more than one: then TimeNs is converted, and right to WithinNs only, and
	// SinceNs is there between hops of one clock alone.
	Clock    string `json:"clock,omitempty"`
	WithinNs int64  `json:"withinNs,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Evidence names the kernel events that an observed hop rests on; a hop
	// that is observed has at least one.
	Evidence []string `json:"evidence,omitempty"`
	// Hidden marks a predicted hop that no observer can see, such as a lookup,
	// so that its absence from an observation says nothing.
	Hidden bool `json:"hidden,omitempty"`
}

// Hit is a rule that a packet matched.
type Hit struct {
	Table  string `json:"table"`
	Chain  string `json:"chain"`
	Number int    `json:"number,omitempty"` // in its chain, from 1; 0 for a policy
	Rule   string `json:"rule"`             // verbatim; "policy ACCEPT"
	Effect string `json:"effect,omitempty"` // "jump KUBE-SVC-…", "return", "accept", "mark 0x4000", …
	// Probability that the rule alone had, for statistic matches; 0 otherwise.
	Probability float64 `json:"probability,omitempty"`
}

// Verdict is how a packet ended. The zero value is unknown.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota
	Delivered
	Dropped
	Rejected // dropped, and the sender was told (ICMP error, RST)
)

var verdictNames = []string{"unknown", "delivered", "dropped", "rejected"}

// String is the name in JSON and text.
func (v Verdict) String() string {
	if v < 0 || int(v) >= len(verdictNames) {
		return verdictNames[Unknown]
	}
	return verdictNames[v]
}

// MarshalText writes the name.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a name; one that is not known is unknown.
func (v *Verdict) UnmarshalText(b []byte) error {
	*v = Unknown
	for i, n := range verdictNames {
		if n == string(b) {
			*v = Verdict(i)
		}
	}
	return nil
}

// Reason is a stable word for why a packet was not delivered.
type Reason string

// The reasons.
const (
	ReasonNone            Reason = ""
	ReasonNoRoute         Reason = "no-route"
	ReasonBlackhole       Reason = "blackhole-route"
	ReasonUnreachable     Reason = "unreachable-route"
	ReasonProhibit        Reason = "prohibit-route"
	ReasonForwardingOff   Reason = "forwarding-off"
	ReasonRPFilter        Reason = "rp-filter"
	ReasonMartian         Reason = "martian-source"
	ReasonTTL             Reason = "ttl-exceeded"
	ReasonMTU             Reason = "mtu-exceeded" // DF is set and the packet does not fit
	ReasonRuleDrop        Reason = "rule-drop"
	ReasonRuleReject      Reason = "rule-reject"
	ReasonNoNeighbor      Reason = "no-neighbor" // nobody answers ARP
	ReasonNoFDB           Reason = "no-fdb-entry"
	ReasonOtherHost       Reason = "other-host" // the frame is for another MAC
	ReasonDeviceDown      Reason = "device-down"
	ReasonPortDown        Reason = "bridge-port-down"
	ReasonHairpinOff      Reason = "hairpin-off"
	ReasonNoLease         Reason = "no-lease"       // flannel UDP: no lease holds the destination
	ReasonTunnelDown      Reason = "tunnel-down"    // nothing serves the tunnel
	ReasonNoListener      Reason = "no-socket"      // nothing listens on the port
	ReasonNoVTEP          Reason = "no-vtep"        // nothing takes the encapsulated packet: wrong port or VNI
	ReasonConntrackFull   Reason = "conntrack-full" //
	ReasonConntrackClash  Reason = "conntrack-invalid"
	ReasonNoSuchHost      Reason = "no-such-host"   // the address belongs to nothing in reach
	ReasonReplyLost       Reason = "reply-lost"     // the request arrived, the answer did not
	ReasonWrongSource     Reason = "wrong-source"   // the answer came from an address that was not asked
	ReasonDuplicate       Reason = "duplicate-addr" // two places own the address
	ReasonLoss            Reason = "link-loss"      // the underlay is shaped to lose packets
	ReasonNotEvaluated    Reason = "not-evaluated"  // a rule or feature that is not understood
	ReasonNotSeen         Reason = "not-seen"       // an observation ends without an event that says why
	ReasonBridgeNetfilter Reason = "bridge-netfilter"
	ReasonNoMasquerade    Reason = "no-masquerade"
)

// Cause names why a packet was not delivered: where, what decided, and in the
// words of a person.
type Cause struct {
	Node      string `json:"node"`
	Namespace string `json:"namespace"`
	Place     string `json:"place"`
	Device    string `json:"device,omitempty"`
	Stage     Stage  `json:"stage"`
	// Table is what decided: "filter", "nat", "main" (a routing table),
	// "neighbor", "fdb", "sysctl", "link", "tunnel", "bgp", "socket", "conntrack".
	Table  string `json:"table,omitempty"`
	Reason Reason `json:"reason"`
	// Rule is the deciding rule, route, sysctl or entry, verbatim.
	Rule string `json:"rule,omitempty"`
	// Kernel is the kernel's own drop reason, in an observation.
	Kernel string `json:"kernel,omitempty"`
	Text   string `json:"text"`
	// Hint says what to look at or do.
	Hint string `json:"hint,omitempty"`
	// Reply: it was the answer that was lost.
	Reply bool `json:"reply,omitempty"`
}
