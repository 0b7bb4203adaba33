package matrix

import (
	"maps"
	"slices"
	"strings"

	"slipway/lab/bench/load"
)

// WithCost adds what a measurement cost to its figures. Costs are of the whole
// measurement, so they are divided by what went over during the warm-up, too.
func WithCost(f load.Figures, c load.Cost, j load.Job) {
	carried := (j.WarmUp + j.Duration).Seconds()
	costs := c.Figures(f[load.Throughput]/8*carried, f[load.Rate]*carried)
	for _, whole := range []string{load.CPU, load.SoftIRQ, load.DaemonCPU, load.ContextSwitches} {
		delete(costs, whole) // of a window whose length is chosen: only shares say something
	}
	for name, v := range costs {
		if _, known := f[name]; !known {
			f[name] = v
		}
	}
	if _, known := f[load.Retransmits]; !known && strings.HasPrefix(j.Workload, "tcp-") {
		f[load.Retransmits] = retransmits(c, j)
	}
}

// retransmits are the segments that both ends sent again.
func retransmits(c load.Cost, j load.Job) (n float64) {
	for _, label := range slices.Compact(slices.Sorted(slices.Values([]string{j.Client.Label, j.Server.Label}))) {
		n += float64(c.Protocols[label]["Tcp.RetransSegs"])
	}
	return n
}

// reading is the order in which a row's metrics are read; others follow by name.
var reading = []string{
	load.Throughput, load.Offered, load.PacketRate, load.Loss, load.Jitter, load.Rate, load.P50, load.P90, load.P99, load.P999, load.Max,
	load.ConnectP50, load.ConnectP99, load.CPUPerGB, load.CPUPerRequest, load.SoftIRQPerGB, load.SoftIRQPerRequest, load.DaemonCPU,
	load.DaemonCPUPerGB, load.DaemonCPUPerRequest, load.SwitchesPerGB, load.SwitchesPerRequest, load.Retransmits, load.Dropped, load.DeviceDrops,
}

// order sorts the names of metrics.
func order(f load.Figures) []string {
	place := func(name string) int {
		if i := slices.Index(reading, name); i >= 0 {
			return i
		}
		return len(reading)
	}
	return slices.SortedFunc(maps.Keys(f), func(a, b string) int {
		if d := place(a) - place(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
}
