// Package matrix runs the bench's rounds: every case in every bed, in turn, so
// that what else the machine does meets all alike. It knows nothing of labs: a
// bed is whatever two ends can talk over.
package matrix

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
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
	Path, Target string // empty if nothing is sent ([load.Idle])
	// Job is what to do; the bed fills in its ends.
	Job load.Job
	// Params stand beside the figures: "write": "128KiB".
	Params map[string]string
	// Main is the metric that decides on further rounds, and stands for the case
	// where there is room for one. Without it the first rounds are enough.
	Main string
	// Only names the beds that take part; empty: all that have the path.
	Only []string
}

// in reports whether a bed of that name takes part.
func (c Case) in(bed string) bool { return len(c.Only) == 0 || slices.Contains(c.Only, bed) }

// Takes is how long one measurement of the case is expected to take.
func (c Case) Takes() time.Duration { return c.Job.WarmUp + c.Job.Duration + aroundJob }

// aroundJob is what a measurement takes beside its traffic: connections are made
// and closed, and counters read before and after.
const aroundJob = 40 * time.Millisecond

// Ends is where a case runs in a bed.
type Ends struct {
	Client, Server load.Place
	// To and Port as in [load.Job]; zero for the server's own address.
	To   netip.AddrPort
	Port uint16
	// Sender is the device whose MTU and offloads stand beside the figures; without
	// a namespace there are none.
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

// Progress is told what happens. A phase of total zero has no steps.
type Progress interface {
	Phase(name string, total int)
	Step()
}

// Options say how to measure. MaxRounds, Budget, Narrow and Progress may be zero.
type Options struct {
	Runner    load.Runner
	Generator string // the runner, for the report: "slipway", "iperf3 3.12"
	Version   string // of the program, for the report
	Rounds    int    // at least
	MaxRounds int    // at most, while main metrics are not narrow; not more than Rounds if that is larger
	// Narrow is how far the interval of a median may reach to either side, as a
	// share of it, for no more rounds to be needed; zero is 0.05.
	Narrow float64
	// Budget bounds the run: no round is begun that would not end in it.
	Budget time.Duration
	// Control is the variant that ratios are to.
	Control string
	// Seed decides the order of beds and the bootstrap.
	Seed     uint64
	Progress Progress
	// Before are the machine's facts from before the beds were made, which loads
	// it; the zero value stands for those at the start of the run.
	Before Machine
	// Round, if there is one, measures a whole round elsewhere in place of Runner,
	// case after case in the order asked for, and answers in that order; step is
	// called after each. An error ends the run.
	Round func(ctx context.Context, round int, asked []Asked, step func()) ([]Answer, error)
	// Describe, if it is there, corrects the conditions before anything is concluded
	// from them: those of a round that was measured elsewhere.
	Describe func(*report.Report)
	// CPUTimes replaces [ReadCPUTimes].
	CPUTimes func() (CPUTimes, error)
}

// Asked is one measurement of a round that is made elsewhere.
type Asked struct {
	Case
	Bed string
}

// Answer is what came of it.
type Answer struct {
	Figures load.Figures
	Err     error
}
