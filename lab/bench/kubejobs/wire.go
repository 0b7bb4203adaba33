package kubejobs

import (
	"net/netip"
	"time"

	"slipway/lab/bench/load"
)

// Task is what a client's Job is to do: in its environment, as JSON.
type Task struct {
	Token string `json:"token"` // the servers know it
	Asks  []Ask  `json:"asks"`
}

// Ask is one measurement.
type Ask struct {
	Job Job `json:"job"`
	// Control is where the server is told what comes; To is where the traffic goes:
	// the server's own address, or a service's.
	Control netip.AddrPort `json:"control"`
	To      netip.AddrPort `json:"to"`
}

// Job is the part of a [load.Job] that both ends know.
type Job struct {
	Workload   string  `json:"workload"`
	DurationNs int64   `json:"durationNs"`
	WarmUpNs   int64   `json:"warmUpNs,omitempty"`
	Streams    int     `json:"streams,omitempty"`
	Buffer     int     `json:"buffer,omitempty"`
	Write      int     `json:"write,omitempty"`
	Size       int     `json:"size,omitempty"`
	Rate       float64 `json:"rate,omitempty"`
	Run        uint16  `json:"run,omitempty"`
}

func jobOf(j load.Job) Job {
	return Job{
		Workload: j.Workload, DurationNs: j.Duration.Nanoseconds(), WarmUpNs: j.WarmUp.Nanoseconds(),
		Streams: j.Streams, Buffer: j.Buffer, Write: j.Write, Size: j.Size, Rate: j.Rate, Run: j.Run,
	}
}

// load is the job of both ends in their own words.
func (j Job) load(client, server load.Place) load.Job {
	return load.Job{
		Workload: j.Workload, Duration: time.Duration(j.DurationNs), WarmUp: time.Duration(j.WarmUpNs),
		Streams: j.Streams, Buffer: j.Buffer, Write: j.Write, Size: j.Size, Rate: j.Rate, Run: j.Run,
		Client: client, Server: server,
	}
}

// Line is what a client prints, one JSON document a line: the machine that it is
// on, then what came of each measurement, then how the processors were used.
type Line struct {
	Machine *Machine     `json:"machine,omitempty"`
	N       *int         `json:"n,omitempty"` // of Task.Asks
	Figures load.Figures `json:"figures,omitempty"`
	Error   string       `json:"error,omitempty"`
	// Machines are those of both ends, at the end: how they were used meanwhile.
	Machines []Machine `json:"machines,omitempty"`
}

// Machine is a node as its pod sees it.
type Machine struct {
	Node    string  `json:"node"`
	ID      string  `json:"id"` // of the kernel's boot: nodes of a lab share one
	Kernel  string  `json:"kernel"`
	Arch    string  `json:"arch"`
	CPU     string  `json:"cpu"`
	CPUs    int     `json:"cpus"`
	Memory  int64   `json:"memoryBytes"`
	Load    float64 `json:"load"`
	Steal   float64 `json:"steal"` // shares of the processors' time since the Job began, 0 to 1
	Idle    float64 `json:"idle"`
	Device  string  `json:"device,omitempty"` // that sends
	MTU     int     `json:"mtu,omitempty"`    // of it, bytes
	Offload string  `json:"offloads,omitempty"`
}

// What the two sides say on a server's control connection, each a line of JSON. The
// client begins with request; the server answers with its port, then with half when
// it has seen all. The client's next line says that it has sent all, and the end of
// the connection that nothing of it is needed any more.
type request struct {
	Token string `json:"token"`
	Job   Job    `json:"job"`
}

type ended struct {
	Ended bool `json:"ended"`
}

type reply struct {
	Port  uint16     `json:"port,omitempty"`
	Error string     `json:"error,omitempty"`
	Half  *load.Half `json:"half,omitempty"`
	Cost  *load.Cost `json:"cost,omitempty"`
	// Machine is the server's.
	Machine *Machine `json:"machine,omitempty"`
}
