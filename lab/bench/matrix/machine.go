package matrix

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine are the facts of this machine that figures depend on.
type Machine struct {
	Kernel, Arch, CPU string
	CPUs              int     // that this process may run on
	Memory            int64   // bytes
	Load              float64 // average of the last minute
}

// ReadMachine reads the facts of now.
func ReadMachine() (Machine, error) {
	m := Machine{Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), CPU: cpuModel()}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Machine{}, fmt.Errorf("read kernel version: %w", err)
	}
	m.Kernel = unix.ByteSliceToString(uts.Release[:])
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Machine{}, fmt.Errorf("read memory: %w", err)
	}
	m.Memory = int64(info.Totalram) * int64(info.Unit)
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Machine{}, fmt.Errorf("read load average: %w", err)
	}
	if first, _, ok := strings.Cut(string(load), " "); ok {
		m.Load, _ = strconv.ParseFloat(first, 64)
	}
	return m, nil
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

// CPUTimes are counters of /proc/stat, of all processors, in ticks.
type CPUTimes struct{ Total, Idle, Steal uint64 }

// Since are the shares of the time since then, 0 to 1, that a hypervisor gave to
// others and that nobody used.
func (t CPUTimes) Since(then CPUTimes) (steal, idle float64) {
	total := float64(t.Total - then.Total)
	if total <= 0 {
		return 0, 0
	}
	return float64(t.Steal-then.Steal) / total, float64(t.Idle-then.Idle) / total
}

// ReadCPUTimes reads the counters of now.
func ReadCPUTimes() (CPUTimes, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return CPUTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	t, err := parseCPUTimes(string(data))
	if err != nil {
		return CPUTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	return t, nil
}

// parseCPUTimes reads the first line of /proc/stat: user nice system idle
// iowait irq softirq steal, then guest times, which user and nice include
// (proc_stat(5)).
func parseCPUTimes(stat string) (CPUTimes, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return CPUTimes{}, errors.New("/proc/stat does not begin with a cpu line of eight counters")
	}
	var t CPUTimes
	for i, f := range fields[1:9] {
		v, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return CPUTimes{}, fmt.Errorf("counter %q: %w", f, err)
		}
		t.Total += v
		switch i {
		case 3, 4: // idle, iowait
			t.Idle += v
		case 7:
			t.Steal += v
		}
	}
	return t, nil
}
