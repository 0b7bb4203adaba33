// Package matrix runs the bench's rounds: every case in every bed, in turn, so
// that what else the machine does meets all alike. It knows nothing of labs: a
// bed is whatever two ends can talk over.
package matrix

import (
	"context"
	"net/netip"

	"slipway/lab/bench/load"
)

// The paths between two ends.
const (
	SameNode  = "same-node"
	OtherNode = "other-node"
	OtherRack = "other-rack" // over a router
	Hairpin   = "hairpin"    // a pod to itself by way of a service
	Loopback  = "loopback"   // control: inside one namespace
	VethPair  = "veth"       // control: two namespaces, one veth pair, nothing else
	NodeNode  = "node"       // control: the underlay, from node to node
)

// What a client connects to.
const (
	Pod       = "pod"
	ClusterIP = "clusterip"
	NodePort  = "nodeport"
	Direct    = "" // of controls
)

// Case is one row of the plan: every bed that has its path measures it alike.
type Case struct {
	Path, Target string
	// Job is what to do; the bed fills in its ends.
	Job load.Job
	// Params stand beside the figures: "write": "128KiB".
	Params map[string]string
	// Main is the metric that decides on further rounds.
	Main string
}

// Ends is where a case runs in a bed.
type Ends struct {
	Client, Server load.Place
	// To and Port as in [load.Job]; zero for the server's own address.
	To   netip.AddrPort
	Port uint16
	// Sender is the device whose MTU and offloads stand beside the figures.
	Sender load.Device
}

// Bed is one variant's network: a column of the report. It is up during a whole
// run.
type Bed interface {
	// Name is the report's variant: "flannel-udp/ebpf".
	Name() string
	// Ends says where a path and target are in this bed, and whether it has them.
	Ends(path, target string) (Ends, bool)
	// Watch is what the cost of a measurement in this bed is read from.
	Watch() load.Watch
	// Close takes the network down.
	Close(ctx context.Context) error
}
