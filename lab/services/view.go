package services

import (
	"net/netip"

	"slipway/topology"
)

// View is a service as one node's rules have it.
type View struct {
	Lab     string     `json:"lab,omitempty"`
	Mode    string     `json:"mode,omitempty"` // of kube-proxy
	Service string     `json:"service"`
	Type    string     `json:"type"`
	Node    string     `json:"node"`
	Program string     `json:"program,omitempty"` // that the rules were read with
	Ports   []PortView `json:"ports"`
	// Others says how the rules of other nodes compare; nil if it was not asked.
	Others *Comparison `json:"others,omitempty"`
}

// PortView is one port of a service.
type PortView struct {
	Name     string `json:"name"` // "default/nginx-svc:http", as kube-proxy calls it
	Protocol string `json:"protocol"`
	Port     int    `json:"port"`
	// Entries are the ways in, in table nat, or elements of nftables' maps.
	Entries []Entry `json:"entries"`
	// Refusals are the port's rules in table filter, or elements of nftables' maps.
	Refusals []Refusal `json:"refusals,omitempty"`
	// Chains are what the entries lead to, each once, in the order in which
	// they are reached.
	Chains []ChainView `json:"chains"`
	// Masquerade is what becomes of marked packets at the end (KUBE-POSTROUTING).
	Masquerade []RuleView `json:"masquerade,omitempty"`

	nft bool // they are nftables': entries and refusals are elements of maps
	// dispatch are the rules that mark before the maps are asked (nftables).
	dispatch []RuleView
}

// Via is a way to a service.
type Via string

// The ways.
const (
	ViaClusterIP    Via = "clusterip"
	ViaExternalIP   Via = "external"
	ViaLoadBalancer Via = "loadbalancer"
	ViaNodePort     Via = "nodeport"
)

// Entry is a rule that leads into a service's chains.
type Entry struct {
	Via     Via        `json:"via"`
	Address netip.Addr `json:"address,omitzero"` // none for a node port: any of the node's own
	Port    int        `json:"port"`
	In      string     `json:"in"` // the chain that the rule stands in
	Rule    RuleView   `json:"rule"`
}

// Refusal is a rule of table filter about a service.
type Refusal struct {
	Via     Via        `json:"via"`
	Address netip.Addr `json:"address,omitzero"`
	Port    int        `json:"port"`
	In      string     `json:"in"`
	Rule    RuleView   `json:"rule"`
}

// Role is what a chain is for.
type Role string

// The roles.
const (
	RoleCluster  Role = "all endpoints"         // KUBE-SVC, service-
	RoleLocal    Role = "this node's endpoints" // KUBE-SVL, local-
	RoleExternal Role = "from outside"          // KUBE-EXT, external-
	RoleSources  Role = "allowed sources"       // KUBE-FW, firewall-
	RoleEndpoint Role = "endpoint"              // KUBE-SEP, endpoint-
	RoleOther    Role = "other"
)

// ChainView is a chain with its rules.
type ChainView struct {
	Name  string     `json:"name"`
	Role  Role       `json:"role"`
	Rules []RuleView `json:"rules"`
}

// RuleView is a rule taken apart.
type RuleView struct {
	Text    string  `json:"text"` // verbatim
	Packets *uint64 `json:"packets,omitempty"`
	Bytes   *uint64 `json:"bytes,omitempty"`
	// When are its conditions in words, without protocol and port, which every
	// way to it fulfils already.
	When []string `json:"when,omitempty"`
	// Does is what it does: mark, masquerade, dnat, jump, return, accept,
	// reject, drop, remember, none, or the target's name.
	Does   string `json:"does"`
	Target string `json:"target,omitempty"` // the chain of a jump
	// Own is the chance that the rule itself has, Effective that of a new
	// connection that comes to the chain to leave it here. Both are left out
	// where it is not chance that decides.
	Own       *float64 `json:"own,omitempty"`
	Effective *float64 `json:"effective,omitempty"`
	// Last says that a balancing rule takes whatever is left.
	Last bool `json:"last,omitempty"`
	// AffinitySeconds is for how long a client is led here again.
	AffinitySeconds int `json:"affinitySeconds,omitempty"`
	// Remembers says that the client is written down for that.
	Remembers bool          `json:"remembers,omitempty"`
	Endpoint  *EndpointView `json:"endpoint,omitempty"`
	// Unknown says that a match or the target is not understood.
	Unknown bool `json:"unknown,omitempty"`

	onlyTo       string // the destination that it asks for
	onlySource   string // "10.244.0.0/16" of a "-s"
	notSource    bool   // "! -s"
	fromNode     bool   // addrtype --src-type LOCAL
	balanced     bool   // takes part in the sharing out
	affinityOnly bool   // only for remembered clients
}

// EndpointView is who is behind an address.
type EndpointView struct {
	Address netip.AddrPort `json:"address"`
	Pod     string         `json:"pod,omitempty"` // "namespace/name"; empty if it is no pod's
	Node    string         `json:"node,omitempty"`
}

// Chain finds a chain that the port's entries lead to; nil if there is none.
func (p *PortView) Chain(name string) *ChainView {
	for i := range p.Chains {
		if p.Chains[i].Name == name {
			return &p.Chains[i]
		}
	}
	return nil
}

// who finds the pod or node of an address.
func who(s *topology.Snapshot, a netip.AddrPort) *EndpointView {
	e := &EndpointView{Address: a}
	for _, p := range s.Pods {
		if p.Address == a.Addr() {
			e.Pod, e.Node = p.Key(), p.Node
			return e
		}
	}
	for _, n := range s.Nodes {
		if n.Address == a.Addr() {
			e.Node = n.Name
			return e
		}
	}
	return e
}
