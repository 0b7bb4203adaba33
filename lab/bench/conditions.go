package bench

import (
	"time"

	"slipway/lab/bench/matrix"
)

// Conditions are what a result depends on besides what is measured.
type Conditions struct {
	Time     time.Time `json:"time"`
	Kernel   string    `json:"kernel"`
	Arch     string    `json:"arch"`
	CPUs     int       `json:"cpus"` // that this process may run on
	CPUModel string    `json:"cpuModel"`
	// LoadAverage is over one minute, before the measurement.
	LoadAverage float64 `json:"loadAverage"`
	// Steal is the share of the CPUs' time, 0 to 1, that a hypervisor gave to
	// others during the measurement; Idle the share that nobody used.
	Steal     float64 `json:"steal"`
	Idle      float64 `json:"idle"`
	MTU       int     `json:"mtu,omitempty"`       // bytes, of the path
	WriteSize int     `json:"writeSize,omitempty"` // bytes, of streams

	start matrix.CPUTimes
}

// ReadConditions reads the machine's facts before a measurement.
func ReadConditions() (Conditions, error) {
	m, err := matrix.ReadMachine()
	if err != nil {
		return Conditions{}, err
	}
	c := Conditions{Time: time.Now(), Kernel: m.Kernel, Arch: m.Arch, CPUs: m.CPUs, CPUModel: m.CPU, LoadAverage: m.Load}
	c.start, err = matrix.ReadCPUTimes()
	return c, err
}

// Finish fills in what is known only after the measurement.
func (c *Conditions) Finish() error {
	now, err := matrix.ReadCPUTimes()
	if err != nil {
		return err
	}
	c.Steal, c.Idle = now.Since(c.start)
	return nil
}
