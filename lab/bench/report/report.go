// Package report holds what a bench found: every round's figure, what they say
// together, and under which conditions. It is pure: it summarises, compares,
// and draws (table, CSV, Markdown, a page with charts).
package report

import "time"

// The identity of a report's JSON form.
const (
	APIVersion = "slipway/v1alpha1"
	Kind       = "BenchReport"
)

// Report is one run of the bench.
type Report struct {
	APIVersion string     `json:"apiVersion"`
	Kind       string     `json:"kind"`
	Started    time.Time  `json:"started"`
	TookNs     int64      `json:"tookNs"`
	Conditions Conditions `json:"conditions"`
	Plan       Plan       `json:"plan"`
	Series     []Series   `json:"series"`
	// Warnings say why figures should be doubted, Notes how to read them.
	Warnings []string `json:"warnings,omitempty"`
	Notes    []string `json:"notes,omitempty"`
	// Partial: the run was cut off; what it has is whole rounds.
	Partial bool `json:"partial,omitempty"`
}

// Conditions are the machine and what else it did.
type Conditions struct {
	Slipway string `json:"slipway"` // version
	// Lab is the running lab that was measured in; empty if the bench made its own.
	Lab string `json:"lab,omitempty"`
	// Cluster is the cluster whose pods measured; the machine's facts are then those
	// of the client's node, and Nodes those of all that took part.
	Cluster    string    `json:"cluster,omitempty"`
	Nodes      []Node    `json:"nodes,omitempty"`
	Host       string    `json:"host,omitempty"`
	Kernel     string    `json:"kernel"`
	CPU        string    `json:"cpu"`
	CPUs       int       `json:"cpus"`
	MemoryByte int64     `json:"memoryBytes,omitempty"`
	Started    time.Time `json:"started"`
	// LoadBefore is the load average of the last minute before, StealPercent the
	// share of time that a hypervisor took meanwhile, IdlePercent what was left.
	LoadBefore   float64 `json:"loadBefore"`
	StealPercent float64 `json:"stealPercent"`
	IdlePercent  float64 `json:"idlePercent"`
	Generator    string  `json:"generator"` // slipway | iperf3 3.12
}

// Node is a node of a cluster that was measured.
type Node struct {
	Name         string  `json:"name"`
	Kernel       string  `json:"kernel"`
	CPU          string  `json:"cpu"`
	CPUs         int     `json:"cpus"`
	MemoryByte   int64   `json:"memoryBytes,omitempty"`
	LoadBefore   float64 `json:"loadBefore"`
	StealPercent float64 `json:"stealPercent"` // while it was measured
	IdlePercent  float64 `json:"idlePercent"`
	// Machine tells nodes on one machine: those of a lab.
	Machine string `json:"machine,omitempty"`
}

// Plan is what was to be done, so that a run can be repeated.
type Plan struct {
	Variants  []string `json:"variants"`
	Workloads []string `json:"workloads"`
	Paths     []string `json:"paths"`
	Rounds    int      `json:"rounds"`    // at least
	MaxRounds int      `json:"maxRounds"` // at most, while intervals are wide
	RoundNs   int64    `json:"roundNs"`   // of one measurement
	WarmUpNs  int64    `json:"warmUpNs"`
	BudgetNs  int64    `json:"budgetNs,omitempty"` // that the whole was to stay in
	Seed      uint64   `json:"seed,omitempty"`     // of the order of rounds and the bootstrap
}

// Series is one workload on one path in one variant: a row of figures.
type Series struct {
	// Variant is what is compared: a mode, with its implementation where it has
	// several ("flannel-udp/simple"), or a control ("loopback", "veth", "node").
	Variant  string `json:"variant"`
	Workload string `json:"workload"` // tcp-stream | udp-stream | udp-pps | tcp-rr | udp-rr | tcp-crr | http | idle
	Path     string `json:"path"`     // same-node | other-node | other-rack | hairpin | loopback | veth | node
	Target   string `json:"target"`   // pod | clusterip | nodeport; empty for controls
	// Params are what the workload was run with: "write": "128KiB", "streams": "4".
	Params map[string]string `json:"params,omitempty"`
	// MTU in bytes and offloads of the sender's device, printed with each figure.
	MTU      int    `json:"mtu,omitempty"`
	Offloads string `json:"offloads,omitempty"` // "tso gso gro"
	// Main is the metric that stands for the series where there is room for one.
	Main    string   `json:"main,omitempty"`
	Metrics []Metric `json:"metrics"`
}

// Better says in which direction a metric is better.
type Better string

// The directions.
const (
	Higher  Better = "higher"
	Lower   Better = "lower"
	Neither Better = "" // says nothing by itself: a count
)

// Metric is one measured quantity.
type Metric struct {
	Name   string `json:"name"` // throughput | rate | p50 | p99 | cpu-per-gb | retransmits | loss | …
	Unit   string `json:"unit"` // bit/s | 1/s | s | s/GB | …: always a base unit, scaled when printed
	Better Better `json:"better"`
	// Rounds are the raw figures; a round that gave none is null.
	Rounds  []*float64 `json:"rounds"`
	Summary Summary    `json:"summary"`
	// Ratio is this variant's figure over the control's of the same round.
	Ratio   *Summary `json:"ratio,omitempty"`
	Control string   `json:"control,omitempty"` // the variant that the ratio is to
}

// Summary is what rounds say together.
type Summary struct {
	Median float64 `json:"median"`
	// Low and High are the interval of the median at Confidence, by bootstrap; of
	// fewer than six rounds they are the lowest and the highest.
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"`
	N          int     `json:"n"`
}
