package datapath

import "net/netip"

// KernelState is what the kernel of one namespace or host really holds: the
// observed counterpart of a NodeConfig, with everything, not only what is ours.
type KernelState struct {
	Namespace string
	Links     []LinkState
	Routes    []Route
	Neighbors []Neighbor // permanent ones
	FDB       []FDBEntry
	Sysctls   []Sysctl
	// RuleSave is iptables-save output by table, without counters.
	RuleSave map[string]string
	// NFTables are those of nftables' tables that can be ours; nil: not read.
	NFTables []NFTable
}

// LinkState is a link as the kernel reports it.
type LinkState struct {
	Link
	Index    int
	Type     string // the kernel's kind, "veth", "bridge", "vxlan", "tun", …
	Up       bool
	Master   string
	Alias    string
	PeerNSID int // -1: none
	Prefixes []netip.Prefix
}

// ChangeAction says what happened, or has to happen, to an object.
type ChangeAction string

// The actions of a change.
const (
	Add    ChangeAction = "add"
	Remove ChangeAction = "remove"
	Update ChangeAction = "update"
)

// Change is one difference between wanted and observed state, as the command
// that an operator would type: "ip route add 10.244.2.0/24 via … dev flannel.1 onlink".
type Change struct {
	Node    string       `json:"node"`
	Action  ChangeAction `json:"action"`
	Object  string       `json:"object"` // link, address, route, neighbor, fdb, sysctl, rules, pod, tunnel, bgp
	Command string       `json:"command"`
	// Was is the observed value for updates and removals.
	Was string `json:"was,omitempty"`
}

// Diff is what separates a kernel from its NodeConfig. Empty means equal.
type Diff []Change
