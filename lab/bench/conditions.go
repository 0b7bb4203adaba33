package bench

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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

	start cpuTimes
}

// cpuTimes are counters of /proc/stat in ticks.
type cpuTimes struct{ total, idle, steal uint64 }

// ReadConditions reads the machine's facts before a measurement.
func ReadConditions() (Conditions, error) {
	c := Conditions{Time: time.Now(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Conditions{}, fmt.Errorf("read kernel version: %w", err)
	}
	c.Kernel = unix.ByteSliceToString(uts.Release[:])
	c.CPUModel = cpuModel()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Conditions{}, fmt.Errorf("read load average: %w", err)
	}
	if first, _, ok := strings.Cut(string(load), " "); ok {
		c.LoadAverage, _ = strconv.ParseFloat(first, 64)
	}
	if c.start, err = readCPUTimes(); err != nil {
		return Conditions{}, err
	}
	return c, nil
}

// Finish fills in what is known only after the measurement.
func (c *Conditions) Finish() error {
	now, err := readCPUTimes()
	if err != nil {
		return err
	}
	if total := float64(now.total - c.start.total); total > 0 {
		c.Steal = float64(now.steal-c.start.steal) / total
		c.Idle = float64(now.idle-c.start.idle) / total
	}
	return nil
}

// cpuModel is the name in /proc/cpuinfo; some architectures have none there.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close() //nolint:errcheck // read only
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func readCPUTimes() (cpuTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	t, err := parseCPUTimes(string(data))
	if err != nil {
		return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	return t, nil
}

// parseCPUTimes reads the first line of /proc/stat: user nice system idle
// iowait irq softirq steal, then guest times, which user and nice include
// (proc_stat(5)).
func parseCPUTimes(stat string) (cpuTimes, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTimes{}, errors.New("/proc/stat does not begin with a cpu line of eight counters")
	}
	var t cpuTimes
	for i, f := range fields[1:9] {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("counter %q: %w", f, err)
		}
		t.total += v
		switch i {
		case 3, 4: // idle, iowait
			t.idle += v
		case 7:
			t.steal += v
		}
	}
	return t, nil
}
