package datapath

import "net/netip"

// NetState is everything in one network namespace that decides a packet's way:
// what a trace is predicted from. It is read from the kernel (datapath/linux)
// and kept in recorded traces, so it is plain data.
//
// It is wider than [KernelState], which holds what a NodeConfig can ask for.
type NetState struct {
	Namespace string            `json:"namespace"`
	Inode     uint64            `json:"inode"` // of the namespace: what kernel events carry
	Devices   []Device          `json:"devices"`
	Policy    []PolicyRule      `json:"policy"` // ip rule, by priority
	Routes    []FIBRoute        `json:"routes"` // all tables, IPv4
	Neighbors []NeighborState   `json:"neighbors,omitempty"`
	FDB       []FDBState        `json:"fdb,omitempty"`
	Sysctls   map[string]string `json:"sysctls,omitempty"` // "net/ipv4/ip_forward" → "1"
	// All and Default are net/ipv4/conf/all and …/default.
	All     DeviceConf `json:"all"`
	Default DeviceConf `json:"default"`
	// RuleSave is iptables-save output by table, each from its "*nat" to its
	// "COMMIT", with counters (-c) if they were asked for. A table that the
	// kernel does not have is not there.
	RuleSave map[string]string `json:"ruleSave,omitempty"`
	// RuleBackend is "legacy" or "nft"; empty without rules.
	RuleBackend string `json:"ruleBackend,omitempty"`
	// NFTables is the JSON of `nft -j list ruleset` if the namespace has tables
	// of nftables' own, which iptables-save does not show; empty otherwise.
	NFTables string `json:"nftables,omitempty"`
	// NFTPlanned are tables that a what-if put into the place of those of the same
	// name in NFTables.
	NFTPlanned []NFTable       `json:"nftPlanned,omitempty"`
	Conntrack  *ConntrackState `json:"conntrack,omitempty"` // nil: no connection tracking
	Sockets    []SocketState   `json:"sockets,omitempty"`   // listening and bound ones
	// UDPTunnel is the flannel UDP backend that serves a TUN here.
	UDPTunnel *UDPTunnelState `json:"udpTunnel,omitempty"`
	IPIP      *IPIPState      `json:"ipip,omitempty"`
}

// Device is a link with all that decides what it does with a packet.
type Device struct {
	Name      string         `json:"name"`
	Index     int            `json:"index"`
	Kind      string         `json:"kind"` // "loopback", "veth", "bridge", "vxlan", "tun", "ipip", …
	MTU       int            `json:"mtu"`  // bytes of IP packet
	MAC       string         `json:"mac,omitempty"`
	Up        bool           `json:"up"`      // IFF_UP
	Carrier   bool           `json:"carrier"` // IFF_LOWER_UP
	NoARP     bool           `json:"noARP,omitempty"`
	Promisc   bool           `json:"promisc,omitempty"`
	Master    string         `json:"master,omitempty"`
	PeerIndex int            `json:"peerIndex,omitempty"` // IFLA_LINK: of the veth's peer, in its namespace
	PeerNSID  int            `json:"peerNSID"`            // IFLA_LINK_NETNSID; -1: the same namespace or none
	Addresses []netip.Prefix `json:"addresses,omitempty"` // IPv4
	VXLAN     *VXLANAttrs    `json:"vxlan,omitempty"`
	Port      *BridgePort    `json:"port,omitempty"` // of a bridge
	Bridge    *BridgeAttrs   `json:"bridge,omitempty"`
	Conf      DeviceConf     `json:"conf"`
	// Ingress and Egress name the BPF programs on the device's tc hooks.
	Ingress []string `json:"ingress,omitempty"`
	Egress  []string `json:"egress,omitempty"`
}

// BridgeAttrs are a bridge's own settings that decide.
type BridgeAttrs struct {
	VLANFiltering bool `json:"vlanFiltering,omitempty"`
	STP           bool `json:"stp,omitempty"`
	// CallIPTables makes what is bridged pass iptables, whatever the sysctl
	// bridge-nf-call-iptables says.
	CallIPTables bool `json:"callIPTables,omitempty"`
}

// BridgePort is what a bridge lets a port do.
type BridgePort struct {
	// State is disabled | listening | learning | forwarding | blocking
	// (linux include/uapi/linux/if_bridge.h, BR_STATE_…).
	State    string `json:"state"`
	Hairpin  bool   `json:"hairpin,omitempty"`
	Learning bool   `json:"learning"`
	Flood    bool   `json:"flood"` // unknown unicast
	Isolated bool   `json:"isolated,omitempty"`
}

// DeviceConf is net/ipv4/conf/DEVICE.
type DeviceConf struct {
	Forwarding   int `json:"forwarding"`
	RPFilter     int `json:"rpFilter"`
	ProxyARP     int `json:"proxyARP"`
	AcceptLocal  int `json:"acceptLocal"`
	RouteLocal   int `json:"routeLocalnet"`
	ARPIgnore    int `json:"arpIgnore"`
	SrcValidMark int `json:"srcValidMark"`
}

// PolicyRule is one entry of `ip rule`.
type PolicyRule struct {
	Priority int          `json:"priority"`
	Src      netip.Prefix `json:"src,omitzero"`
	Dst      netip.Prefix `json:"dst,omitzero"`
	IIf      string       `json:"iif,omitempty"`
	OIf      string       `json:"oif,omitempty"`
	Mark     uint32       `json:"mark,omitempty"`
	Mask     uint32       `json:"mask,omitempty"`
	Invert   bool         `json:"invert,omitempty"`
	Action   string       `json:"action"` // lookup | blackhole | unreachable | prohibit | goto | nop
	Table    int          `json:"table,omitempty"`
	Goto     int          `json:"goto,omitempty"` // priority of the rule to go on with
	// Other holds selectors that are not evaluated here, verbatim: the rule's
	// effect is unknown if it is not empty.
	Other string `json:"other,omitempty"`
	// Text is the rule as `ip rule` prints it.
	Text string `json:"text"`
}

// FIBRoute is one route of any table.
type FIBRoute struct {
	Table    int           `json:"table"` // 255 local, 254 main, 253 default
	Dst      netip.Prefix  `json:"dst"`
	Type     string        `json:"type"` // unicast | local | broadcast | multicast | blackhole | unreachable | prohibit | throw
	TOS      int           `json:"tos,omitempty"`
	Priority int           `json:"priority,omitempty"` // metric
	Via      netip.Addr    `json:"via,omitzero"`
	Dev      string        `json:"dev,omitempty"`
	Src      netip.Addr    `json:"src,omitzero"`
	Onlink   bool          `json:"onlink,omitempty"`
	Scope    string        `json:"scope,omitempty"` // global | link | host
	Protocol RouteProtocol `json:"protocol,omitempty"`
	MTU      int           `json:"mtu,omitempty"`
	Dead     bool          `json:"dead,omitempty"` // the kernel does not use it: its device is down
	// NextHops of a multipath route; Via and Dev are then empty.
	NextHops []NextHop `json:"nextHops,omitempty"`
	// Other names attributes that are not evaluated here, such as a
	// lightweight tunnel: the route's effect is unknown if it is not empty.
	Other string `json:"other,omitempty"`
	// Text is the route as `ip route` prints it.
	Text string `json:"text"`
}

// NextHop is one leg of a multipath route.
type NextHop struct {
	Via    netip.Addr `json:"via,omitzero"`
	Dev    string     `json:"dev"`
	Weight int        `json:"weight"` // 1 and up
	Onlink bool       `json:"onlink,omitempty"`
	Dead   bool       `json:"dead,omitempty"`
}

// NeighborState is one ARP entry.
type NeighborState struct {
	Dev     string     `json:"dev"`
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac,omitempty"`
	State   string     `json:"state"` // permanent | reachable | stale | delay | probe | failed | incomplete | noarp
	Proxy   bool       `json:"proxy,omitempty"`
}

// FDBState is one forwarding entry of a bridge port or a VXLAN device.
type FDBState struct {
	Dev    string     `json:"dev"` // the port, or the VXLAN device
	MAC    string     `json:"mac"`
	Master string     `json:"master,omitempty"` // the bridge whose table it is in; empty: the device's own
	Dst    netip.Addr `json:"dst,omitzero"`     // VXLAN: the remote VTEP
	Port   int        `json:"port,omitempty"`   // VXLAN: another UDP port than the device's
	VNI    int        `json:"vni,omitempty"`
	VLAN   int        `json:"vlan,omitempty"`
	Local  bool       `json:"local,omitempty"` // the bridge's or the port's own MAC (permanent)
}

// ConntrackState is what connection tracking holds.
type ConntrackState struct {
	Count int `json:"count"`
	Max   int `json:"max"`
	// Entries are those that were asked for, not all.
	Entries []ConntrackEntry `json:"entries,omitempty"`
}

// ConntrackEntry is one tracked connection, in both directions. Of an ICMP one
// the ports are the identifier.
type ConntrackEntry struct {
	Proto    string         `json:"proto"`
	State    string         `json:"state,omitempty"` // TCP: SYN_SENT, ESTABLISHED …
	OrigSrc  netip.AddrPort `json:"origSrc"`
	OrigDst  netip.AddrPort `json:"origDst"`
	ReplySrc netip.AddrPort `json:"replySrc"`
	ReplyDst netip.AddrPort `json:"replyDst"`
	Mark     uint32         `json:"mark,omitempty"`
	Assured  bool           `json:"assured,omitempty"`
	Timeout  int            `json:"timeout,omitempty"` // seconds
}

// SocketState is a socket that takes packets.
type SocketState struct {
	Proto string         `json:"proto"` // tcp | udp | sctp
	Local netip.AddrPort `json:"local"` // unspecified address: any
	State string         `json:"state"` // listen | bound | established
	// Remote is the only sender that an established UDP socket takes from.
	Remote netip.AddrPort `json:"remote,omitzero"`
	// Device is the only one that the socket takes from (SO_BINDTODEVICE).
	Device string `json:"device,omitempty"`
	// Dual: an IPv6 socket that takes IPv4 too.
	Dual bool `json:"dual,omitempty"`
}

// UDPTunnelState is a flannel UDP backend with whether it works.
type UDPTunnelState struct {
	UDPTunnel
	// Running: a process serves the TUN, or the programs are attached.
	Running bool   `json:"running"`
	Problem string `json:"problem,omitempty"` // why not
}

// IPIPState is a tunl0 with what makes it work.
type IPIPState struct {
	IPIPTunnel
	// Attached: the programs or the kernel driver that serve it are there.
	Attached bool   `json:"attached"`
	Problem  string `json:"problem,omitempty"` // why not
}

// Device finds a device by name; nil if there is none.
func (s *NetState) Device(name string) *Device {
	for i := range s.Devices {
		if s.Devices[i].Name == name {
			return &s.Devices[i]
		}
	}
	return nil
}

// DeviceByIndex finds a device by its index; nil if there is none.
func (s *NetState) DeviceByIndex(index int) *Device {
	for i := range s.Devices {
		if s.Devices[i].Index == index {
			return &s.Devices[i]
		}
	}
	return nil
}

// LocalAddress reports whether an address is one of the namespace's own, and on
// which device.
func (s *NetState) LocalAddress(a netip.Addr) (device string, ok bool) {
	for _, d := range s.Devices {
		for _, p := range d.Addresses {
			if p.Addr() == a {
				return d.Name, true
			}
		}
	}
	return "", false
}
