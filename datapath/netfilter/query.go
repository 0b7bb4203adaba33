package netfilter

import (
	"net/netip"
	"time"

	"slipway/datapath"
)

// Query is one packet at one table of one hook, with what the rules can ask
// about it. What is left out is not known, and a rule that asks for it is then
// unknown; except as the fields say.
type Query struct {
	Hook  string // prerouting | input | forward | output | postrouting
	Table string // raw | mangle | nat | filter | security, or a [Stop]'s of nftables

	// Packet is as it comes to the table. One with an Outer is judged by that:
	// rules see the carrying packet.
	Packet datapath.Packet
	// In and Out are the devices, empty where the hook has none.
	In, Out string
	// Bridged says that the packet came through a bridge with br_netfilter;
	// PhysIn and PhysOut are the bridge's ports. PhysOut is known only to the
	// kernel, and to be set here, for a packet that stays in the bridge.
	Bridged         bool
	PhysIn, PhysOut string

	// State is the connection's state: NEW | ESTABLISHED | RELATED | INVALID |
	// UNTRACKED. It is not asked for in table raw, which comes before connection
	// tracking, unless the packet comes from the loopback.
	State string
	// Reply: the packet goes in the direction of the connection's answers.
	Reply bool
	// DNATed and SNATed: the connection's destination or source is translated
	// (--ctstate DNAT, SNAT; IPS_DST_NAT, IPS_SRC_NAT). After a verdict of table
	// nat that translates, they must be set for what follows.
	DNATed, SNATed bool
	// SeenReply, Assured and Confirmed are conntrack's status bits. A connection
	// is confirmed when its first packet has left the last hook. Where State is
	// ESTABLISHED, SeenReply and Confirmed go without saying.
	SeenReply, Assured, Confirmed bool
	// OrigSrc to ReplyDst are the connection's tuples, ports zero where the
	// protocol has none.
	OrigSrc, OrigDst, ReplySrc, ReplyDst netip.AddrPort
	CTMark                               uint32

	// AddrType is the routing type of an address (LOCAL, UNICAST, BROADCAST …),
	// as far as routes over dev say, if dev is not empty. See [AddrTypes].
	AddrType func(a netip.Addr, dev string) (rtn string, ok bool)
	// Recent says how often xt_recent's list has seen an address within a time
	// (0: ever). Without it, or if it is not ok, the address is taken for a new
	// client's, and the outcome has a note.
	Recent func(list string, a netip.Addr, within time.Duration) (hits int, ok bool)
	// InSet says whether a packet is in an ipset, by the fields ("src,dst") named.
	InSet func(set, fields string, p datapath.Packet) (member, ok bool)
}

// Verdict is what a table does with a packet. The zero value is unknown.
type Verdict int

// The verdicts.
const (
	Unknown Verdict = iota
	Accept          // goes on to the next table or hook
	Drop
	Reject // dropped, and the sender is told
)

// String is the name, in lower case.
func (v Verdict) String() string {
	switch v {
	case Accept:
		return "accept"
	case Drop:
		return "drop"
	case Reject:
		return "reject"
	default:
		return "unknown"
	}
}

// Outcome is one thing that can become of the packet in the table.
type Outcome struct {
	Verdict Verdict
	// Probability is the chance of this outcome; those of one query sum to 1.
	Probability float64
	// Packet is as the table leaves it: with its mark and TTL changed, but not
	// translated.
	Packet datapath.Packet
	// NAT is the translation asked for; nil if the table asked for none, which
	// settles for this connection that there is none.
	NAT *NAT
	// Hits are all rules that matched, in order: those whose counters the
	// kernel moves. The last may be a policy.
	Hits []Hit
	// Deciding is the rule or policy that the verdict comes from; nil if the
	// table or its chain is not there.
	Deciding *Hit
	// RejectWith is REJECT's answer: "icmp-port-unreachable", "tcp-reset", …
	RejectWith string
	CTMark     uint32 // the connection's mark afterwards
	NoTrack    bool   // the connection must not be tracked
	// Remembered are entries that xt_recent's lists have got, in order.
	Remembered []Remembered
	// Unknown is the rule that is not understood, verbatim, and Why what about it.
	Unknown, Why string
	// Notes are assumptions that the outcome rests on.
	Notes []string
}

// Remembered is an address that a list of xt_recent has seen once more.
type Remembered struct {
	List    string
	Address netip.Addr // under the rule's mask
}

// NATKind is a target of table nat.
type NATKind string

// The kinds.
const (
	DNAT       NATKind = "dnat"
	SNAT       NATKind = "snat"
	Masquerade NATKind = "masquerade" // to the address of the device that the packet leaves by
	Redirect   NATKind = "redirect"   // to the address of the device that it came by; from output to 127.0.0.1
	Netmap     NATKind = "netmap"
)

// NAT is a translation that a rule asks for. A zero address is one that depends
// on devices (Masquerade, Redirect) or is not changed; a zero port leaves the
// port as it is as long as that is free.
type NAT struct {
	Kind NATKind
	// Source: it is the source that is changed, not the destination.
	Source   bool
	Min, Max netip.AddrPort // of the range, both inclusive; equal for one address and port
	// Random (--random, --random-fully): the port is chosen at random, from
	// 1024 up where the rule has no range. Persistent: a client gets the same
	// address each time.
	Random, RandomFully, Persistent bool
}

// Hit is a rule, or a policy, that the packet matched.
type Hit struct {
	Table  string
	Chain  string
	Number int    // in its chain, from 1; 0 for a policy
	Rule   string // verbatim, without counters; "policy ACCEPT"
	Effect string // "jump KUBE-SVC-…", "return", "accept", "mark 0x4000", "dnat to 10.244.1.2:80", …
	// Probability that the rule alone had, where chance decided; else 0.
	Probability float64
}

// Order lists the tables that a hook visits, in order (linux
// include/uapi/linux/netfilter_ipv4.h, NF_IP_PRI_…). Connection tracking comes
// after raw. Table nat is asked only for a connection's first packet, once in
// prerouting or output for the destination and once in postrouting or input for
// the source.
func Order(hook string) []string {
	switch hook {
	case "prerouting":
		return []string{"raw", "mangle", "nat"}
	case "input":
		return []string{"mangle", "filter", "security", "nat"}
	case "forward":
		return []string{"mangle", "filter", "security"}
	case "output":
		return []string{"raw", "mangle", "nat", "filter", "security"}
	case "postrouting":
		return []string{"mangle", "nat"}
	default:
		return nil
	}
}
