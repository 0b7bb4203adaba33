package load

import (
	"errors"
	"fmt"
	"maps"
	"time"

	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Metrics of cost, as [Cost.Figures] has them.
const (
	CPU                 = "cpu"     // s, of all processors, busy with anything
	SoftIRQ             = "softirq" // s, the part of it in soft interrupts
	ContextSwitches     = "context-switches"
	DaemonCPU           = "daemon-cpu" // s, of the processes looked at: the lab's daemon
	CPUPerGB            = "cpu-per-gb" // GB is 10⁹ bytes of payload
	SoftIRQPerGB        = "softirq-per-gb"
	DaemonCPUPerGB      = "daemon-cpu-per-gb"
	SwitchesPerGB       = "context-switches-per-gb"
	CPUPerRequest       = "cpu-per-request"
	SoftIRQPerRequest   = "softirq-per-request"
	DaemonCPUPerRequest = "daemon-cpu-per-request"
	SwitchesPerRequest  = "context-switches-per-request"
	ConntrackEntries    = "conntrack-entries" // more than before, in all namespaces looked at
	DeviceDrops         = "device-drops"      // packets, at all devices looked at
	Dropped             = "drops"             // packets that the kernel dropped in all namespaces looked at, for whatever reason
	// DroppedBy begins the names of the parts of it, where there were any:
	// "drops:NETFILTER_DROP". Without the kernel's reasons they are named by its
	// counters, "drops:Udp.RcvbufErrors", and there is no sum, since one packet may
	// be in several of them.
	DroppedBy = "drops:"
)

// Device is a device of a namespace.
type Device struct {
	NS    *netns.NS
	Name  string
	Label string // "node01/flannel.1"
}

// Watch is what a measurement's cost is read from, beside the machine as a whole.
type Watch struct {
	Spaces    []Place // whose protocol counters and connections; by label
	Devices   []Device
	Processes []int // by id: the lab's daemon
	// Reasons gives the packets dropped in Spaces by reason, as
	// skbtrace.CountDrops does; nil where the kernel cannot.
	Reasons DropReasons
}

// Counts are the counters of a moment.
type Counts struct {
	at        time.Time
	machine   machineCounts
	processes map[int]time.Duration
	protocols map[string]map[string]int64
	conntrack map[string]int64
	drops     map[string]int64
	reasons   map[string]map[string]int64 // nil where they are not known
}

// Cost is what was used between two moments.
type Cost struct {
	Took time.Duration
	// CPU is of all processors, with other things that the machine did: what was
	// not idle or stolen, to 10 ms, the unit of /proc/stat. SoftIRQ is the part of
	// it in soft interrupts as the kernel's ticks (CONFIG_HZ, 100 to 1000 a second)
	// found it: of a share p of n ticks it is right to √(p(1−p)/n), a standard
	// error of at most 5 % where half a second on two processors has 100 ticks.
	// Medians over rounds average it.
	CPU             time.Duration
	SoftIRQ         time.Duration
	ContextSwitches int64
	Processes       map[int]time.Duration // CPU of each
	// Protocols are the counters of /proc/net/snmp and netstat that moved, by
	// label and "Tcp.RetransSegs".
	Protocols map[string]map[string]int64
	Conntrack map[string]int64 // entries more than before, by label; absent where there is no table
	Drops     map[string]int64 // packets that devices dropped, by label, where some were
	// DropsByReason are the packets that the kernel dropped, by label and by its
	// own word for why, where some were; nil where it cannot say.
	DropsByReason map[string]map[string]int64
}

// Read takes the counters of now.
func (w Watch) Read() (Counts, error) {
	c := Counts{processes: map[int]time.Duration{}, protocols: map[string]map[string]int64{}, conntrack: map[string]int64{}, drops: map[string]int64{}}
	for _, p := range w.Spaces {
		if err := c.space(p); err != nil {
			return Counts{}, fmt.Errorf("read counters of %s: %w", p.Label, err)
		}
	}
	for _, d := range w.Devices {
		drops, err := d.drops()
		if err != nil {
			return Counts{}, fmt.Errorf("read drops of %s: %w", d.Label, err)
		}
		c.drops[d.Label] = drops
	}
	for _, pid := range w.Processes {
		used, err := processCPU(pid)
		if err != nil {
			return Counts{}, err
		}
		c.processes[pid] = used
	}
	var err error
	if w.Reasons != nil {
		if c.reasons, err = w.reasons(); err != nil {
			return Counts{}, err
		}
	}
	c.machine, err = readMachine()
	c.at = time.Now()
	return c, err
}

// drops are the packets that a device dropped, either way.
func (d Device) drops() (int64, error) {
	h, err := nl.At(d.NS)
	if err != nil {
		return 0, err
	}
	defer h.Close()
	l, err := h.LinkByName(d.Name)
	if err != nil {
		return 0, err
	}
	s := l.Attrs().Statistics
	if s == nil {
		return 0, errors.New("the device has no statistics")
	}
	return int64(s.RxDropped + s.TxDropped), nil
}

// Since says what was used since an earlier moment of the same watch.
func (c Counts) Since(before Counts) Cost {
	took := c.at.Sub(before.at)
	cost := Cost{
		Took: took, CPU: c.machine.busy(before.machine, took), SoftIRQ: c.machine.softIRQ - before.machine.softIRQ,
		ContextSwitches: c.machine.switches - before.machine.switches,
		Processes:       map[int]time.Duration{}, Protocols: map[string]map[string]int64{},
		Conntrack: less(c.conntrack, before.conntrack), Drops: moved(less(c.drops, before.drops)),
	}
	for pid, used := range c.processes {
		cost.Processes[pid] = used - before.processes[pid]
	}
	for label, counters := range c.protocols {
		cost.Protocols[label] = moved(less(counters, before.protocols[label]))
	}
	if c.reasons != nil {
		cost.DropsByReason = map[string]map[string]int64{}
	}
	for label, counts := range c.reasons {
		if some := moved(less(counts, before.reasons[label])); len(some) > 0 {
			cost.DropsByReason[label] = some
		}
	}
	return cost
}

func less(now, before map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, v := range now {
		out[name] = v - before[name]
	}
	return out
}

// moved leaves out what is zero.
func moved(m map[string]int64) map[string]int64 {
	maps.DeleteFunc(m, func(_ string, v int64) bool { return v == 0 })
	return m
}

// Figures are the cost of a measurement, whole and by what it carried in the
// time of the cost: bytes of payload, and requests. What is zero gives no share.
func (c Cost) Figures(bytes, requests float64) Figures {
	f := Figures{CPU: c.CPU.Seconds(), SoftIRQ: c.SoftIRQ.Seconds(), ContextSwitches: float64(c.ContextSwitches)}
	f[DeviceDrops], f[ConntrackEntries] = sum(c.Drops), sum(c.Conntrack)
	c.dropped(f)
	if len(c.Processes) > 0 {
		f[DaemonCPU] = 0
		for _, used := range c.Processes {
			f[DaemonCPU] += used.Seconds()
		}
	}
	share := func(of, name string, by float64) {
		if v, ok := f[of]; ok && by > 0 {
			f[name] = v / by
		}
	}
	share(CPU, CPUPerGB, bytes/1e9)
	share(SoftIRQ, SoftIRQPerGB, bytes/1e9)
	share(DaemonCPU, DaemonCPUPerGB, bytes/1e9)
	share(ContextSwitches, SwitchesPerGB, bytes/1e9)
	share(CPU, CPUPerRequest, requests)
	share(SoftIRQ, SoftIRQPerRequest, requests)
	share(DaemonCPU, DaemonCPUPerRequest, requests)
	share(ContextSwitches, SwitchesPerRequest, requests)
	return f
}

func sum(m map[string]int64) float64 {
	var n int64
	for _, v := range m {
		n += v
	}
	return float64(n)
}
