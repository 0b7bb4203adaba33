package daemon

import (
	"time"

	"slipway/datapath"
	"slipway/topology"
)

// Desired is everything that the daemon has to run. Setting it again changes
// only what differs.
type Desired struct {
	Lab   string `json:"lab"`
	Nodes []Node `json:"nodes"`
	// Pods lists the pods with the namespaces they live in.
	Pods []Pod `json:"pods"`
	// Relays are the delayed wires of the underlay.
	Relays []Relay `json:"relays,omitempty"`
	// Snapshot is what the cluster DNS answers from.
	Snapshot topology.Snapshot `json:"snapshot"`
}

// Node is the part of a node (or router) that runs in user space.
type Node struct {
	Name  string `json:"name"`
	NetNS string `json:"netns"`
	// Inode identifies the namespace, as for pods.
	Inode     uint64               `json:"inode"`
	UDPTunnel *datapath.UDPTunnel  `json:"udpTunnel,omitempty"` // unless eBPF programs carry it
	IPIP      *datapath.IPIPTunnel `json:"ipip,omitempty"`      // only when user space relays it
	Speaker   *datapath.Speaker    `json:"speaker,omitempty"`
}

// Pod is a pod's declared ports and where to open them.
type Pod struct {
	topology.Pod
	NetNS string `json:"netns"`
	// Inode identifies the namespace, so that a pod that was deleted and made
	// again under the same name gets new listeners.
	Inode uint64 `json:"inode"`
}

// Relay is a wire with delay between two TAP devices.
type Relay struct {
	Name   string        `json:"name"`
	NodeNS string        `json:"nodeNetns"`
	Node   string        `json:"node"` // device in the node
	PortNS string        `json:"portNetns"`
	Port   string        `json:"port"` // device in the fabric
	Delay  time.Duration `json:"delay"`
	// NodeInode and PortInode identify the namespaces, as for pods.
	NodeInode uint64 `json:"nodeInode"`
	PortInode uint64 `json:"portInode"`
}

// Status is what the daemon runs at the moment.
type Status struct {
	PID       int                     `json:"pid"`
	Since     time.Time               `json:"since"`
	Tunnels   []TunnelStatus          `json:"tunnels,omitempty"`
	Speakers  map[string]SpeakerState `json:"speakers,omitempty"`
	Listeners int                     `json:"listeners"`
	Relays    int                     `json:"relays"`
	// Relayed are the fabric's ports whose relays are carrying frames.
	Relayed  []string `json:"relayed,omitempty"`
	RSSBytes int64    `json:"rssBytes"`
	// Errors are what went wrong since the last Set, in the daemon's own words.
	Errors []string `json:"errors,omitempty"`
}

// TunnelStatus is one user-space tunnel.
type TunnelStatus struct {
	Node   string `json:"node"`
	Device string `json:"device"`
	Stats  any    `json:"stats"`
}

// Tunnel is one node's user-space tunnel with what it runs on.
type Tunnel struct {
	Node string `json:"node"`
	// Running: it is open and carries packets.
	Running bool                 `json:"running"`
	UDP     *datapath.UDPTunnel  `json:"udp,omitempty"`
	IPIP    *datapath.IPIPTunnel `json:"ipip,omitempty"`
}

// SpeakerState sums up one node's BGP speaker.
type SpeakerState struct {
	PID int `json:"pid,omitempty"` // 0: none runs
	// Restarts counts how often a speaker that ended by itself was started
	// again; LastEnd says how the last one ended, or why none starts.
	Restarts    int    `json:"restarts,omitempty"`
	LastEnd     string `json:"lastEnd,omitempty"`
	Peers       int    `json:"peers"`
	Established int    `json:"established"`
	// Routes are in the kernel, where they stay when a speaker crashes.
	Routes int  `json:"routes"`
	Synced bool `json:"synced"`
	// Down are the lab's own peers that it has no session with.
	Down   []string `json:"down,omitempty"`
	Detail any      `json:"detail,omitempty"`
}

// Changes says what a Set did.
type Changes struct {
	Changes []datapath.Change `json:"changes"`
}
