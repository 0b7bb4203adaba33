package bench

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
)

// What a case offers, where it is not as much as goes.
const (
	// fixedRate of udp-stream in bit/s is one that the slowest mode carries.
	fixedRate = 200e6
	// openRate of tcp-rr-open in requests/s is one that leaves every mode idle
	// for most of the time.
	openRate = 2000
	// idleTime is how long the labs are watched at rest: their CPU time is counted
	// in hundredths of a second.
	idleTime = 2 * time.Second
)

// tcpRequestsOpen is tcp-rr at a rate.
const tcpRequestsOpen = load.TCPRequests + "-open"

// traffic is a workload that can be asked for.
type traffic struct {
	name string
	job  load.Job
	main string
	// params beside those that the plan adds.
	params map[string]string
}

var workloads = []traffic{
	{load.TCPStream, load.Job{Workload: load.TCPStream}, load.Throughput, nil},
	{load.UDPStream, load.Job{Workload: load.UDPStream, Rate: fixedRate}, load.CPUPerGB, map[string]string{"rate": "200Mbit/s"}},
	{load.UDPPackets, load.Job{Workload: load.UDPPackets}, load.PacketRate, nil},
	{load.TCPRequests, load.Job{Workload: load.TCPRequests}, load.P50, map[string]string{"size": "1"}},
	{tcpRequestsOpen, load.Job{Workload: load.TCPRequests, Rate: openRate}, load.P99, map[string]string{"size": "1", "rate": strconv.Itoa(openRate) + "/s"}},
	{load.UDPRequests, load.Job{Workload: load.UDPRequests}, load.P50, nil},
	{load.TCPConnects, load.Job{Workload: load.TCPConnects}, load.P50, map[string]string{"size": "1"}},
	{load.HTTP, load.Job{Workload: load.HTTP, Size: 1024}, load.P50, map[string]string{"body": "1KiB"}},
	{load.Idle, load.Job{Workload: load.Idle}, load.DaemonCPU, nil},
}

// Workloads are the names of what can be measured.
func Workloads() []string {
	var out []string
	for _, w := range workloads {
		out = append(out, w.name)
	}
	return out
}

var (
	podPaths     = []string{matrix.OtherNode, matrix.SameNode, matrix.OtherRack, matrix.Hairpin}
	controlPaths = []string{matrix.Loopback, matrix.VethPair, matrix.NodeNode}
)

// Paths are the names of where it can be measured, those of controls last.
func Paths() []string { return slices.Concat(podPaths, controlPaths) }

// Targets are what a client may connect to.
func Targets() []string { return []string{matrix.Pod, matrix.ClusterIP, matrix.NodePort} }

// What is measured where, unless something else is asked for.
var (
	sidePathWorkloads = []string{load.TCPStream, load.TCPRequests}                                    // beside other-node
	controlWorkloads  = []string{load.TCPStream, load.UDPPackets, load.TCPRequests, load.TCPConnects} // loopback, veth and node
	explained         = []string{load.TCPStream, load.TCPRequests}                                    // by variants that are controls
)

// writeSizes are tcp-stream's with controls.
var writeSizes = []int{1 << 10, 4 << 10, 16 << 10, 128 << 10, 1 << 20}

// Cases are the plan's rows, whatever network has their paths.
func (o ModesOptions) Cases() []matrix.Case { return o.cases() }

// cases lays out the plan.
func (o ModesOptions) cases() []matrix.Case {
	var out []matrix.Case
	for _, w := range workloads {
		if !slices.Contains(o.Workloads, w.name) {
			continue
		}
		if w.name == load.Idle {
			out = append(out, o.rest(w))
			continue
		}
		for _, path := range Paths() {
			if !o.wants(w.name, path) {
				continue
			}
			for _, target := range o.targets(w.name, path) {
				out = append(out, o.shapes(w, path, target)...)
			}
		}
	}
	return out
}

// wants reports whether a workload is measured on a path.
func (o ModesOptions) wants(workload, path string) bool {
	if len(o.Paths) > 0 {
		return slices.Contains(o.Paths, path)
	}
	switch {
	case path == matrix.OtherNode:
		return true
	case slices.Contains(controlPaths, path):
		return slices.Contains(controlWorkloads, workload)
	default:
		return slices.Contains(sidePathWorkloads, workload)
	}
}

// targets are what a workload connects to on a path.
func (o ModesOptions) targets(workload, path string) []string {
	switch {
	case slices.Contains(controlPaths, path):
		return []string{matrix.Direct}
	case path == matrix.Hairpin && len(o.Targets) == 0:
		return []string{matrix.ClusterIP}
	case len(o.Targets) > 0:
		return o.Targets
	case workload == load.TCPConnects && path == matrix.OtherNode:
		return Targets()
	default:
		return []string{matrix.Pod}
	}
}

// shapes are the sizes and numbers of streams of a workload on a path.
func (o ModesOptions) shapes(w traffic, path, target string) []matrix.Case {
	j := w.job
	j.Duration, j.WarmUp = o.Duration, o.WarmUp
	main := path == matrix.OtherNode || len(o.Paths) > 0
	c := matrix.Case{Path: path, Target: target, Job: j, Main: w.main, Params: w.params, Only: o.own()}
	switch {
	case w.name == load.TCPStream:
		return o.streams(c, main)
	case slices.Contains(explained, w.name) && main:
		c.Only = nil
	}
	return []matrix.Case{c}
}

// rest lets all labs idle at once.
func (o ModesOptions) rest(w traffic) matrix.Case {
	c := matrix.Case{Job: w.job, Main: w.main, Only: o.own()}
	c.Job.Duration = max(idleTime, o.Duration)
	c.Params = map[string]string{"for": c.Job.Duration.String()}
	return c
}

// streams are tcp-stream's: by their number, and with controls by what is
// written at once.
func (o ModesOptions) streams(c matrix.Case, main bool) []matrix.Case {
	var out []matrix.Case
	add := func(streams, write int, only []string) {
		c.Job.Streams, c.Job.Write, c.Only = streams, write, only
		c.Params = map[string]string{"streams": strconv.Itoa(streams), "write": size(write)}
		out = append(out, c)
	}
	numbers := o.Streams
	if !main {
		numbers = numbers[:1]
	}
	for _, n := range numbers {
		if o.Controls && main && n == numbers[0] {
			for _, write := range writeSizes {
				add(n, write, nil)
			}
			continue
		}
		add(n, load.DefaultWrite, o.own())
	}
	return out
}

// own are the beds but those of variants that are there to explain others; nil
// is all.
func (o ModesOptions) own() []string {
	if !o.Controls {
		return nil
	}
	out := slices.Clone(controlPaths)
	for _, v := range o.Variants {
		out = append(out, v.Name())
	}
	return out
}

// size writes "128KiB".
func size(bytes int) string {
	if bytes >= 1<<20 {
		return fmt.Sprintf("%dMiB", bytes>>20)
	}
	return fmt.Sprintf("%dKiB", bytes>>10)
}
