package load

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every architecture
// that this runs on (linux include/asm-generic/param.h).
const tick = time.Second / 100

// machineCounts are those of the whole machine.
type machineCounts struct {
	cpus int
	// idle is the time of all processors that nobody used, a hypervisor's share
	// included. Unlike the time in use, which is a sample at each of the timer's
	// ticks, the kernel measures it (get_idle_time, fs/proc/stat.c).
	idle     time.Duration
	softIRQ  time.Duration // by samples
	switches int64
}

func readMachine() (machineCounts, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machineCounts{}, fmt.Errorf("read CPU times: %w", err)
	}
	m, err := parseMachine(string(data))
	if err != nil {
		return m, fmt.Errorf("read CPU times: %w", err)
	}
	return m, nil
}

// parseMachine reads the first line of /proc/stat, which counts user nice system
// idle iowait irq softirq steal in ticks, how many lines of processors follow it,
// and that of context switches (proc_stat(5)).
func parseMachine(stat string) (machineCounts, error) {
	var m machineCounts
	line, rest, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return m, errors.New("/proc/stat does not begin with a cpu line of eight counters")
	}
	for i, f := range fields[1:9] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return m, fmt.Errorf("counter %q: %w", f, err)
		}
		switch i {
		case 3, 4, 7: // idle, iowait, steal
			m.idle += time.Duration(v) * tick
		case 6:
			m.softIRQ = time.Duration(v) * tick
		}
	}
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "cpu") {
			m.cpus++
		}
		if value, ok := strings.CutPrefix(line, "ctxt "); ok {
			var err error
			m.switches, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return m, err
		}
	}
	return m, errors.New("/proc/stat has no context switches")
}

// busy is the time of all processors in use since an earlier moment, so long ago.
func (m machineCounts) busy(before machineCounts, took time.Duration) time.Duration {
	return max(0, time.Duration(m.cpus)*took-(m.idle-before.idle))
}

// schedClock is the scheduler's own account among a process's clocks
// (CPUCLOCK_SCHED, include/linux/posix-timers.h).
const schedClock = 2

// maxProcess bounds process ids (PID_MAX_LIMIT, include/linux/threads.h).
const maxProcess = 4 << 20

// processCPU is what a process has used, in user and kernel mode, all its threads
// that ever were: clock_getcpuclockid(3). Of threads that are running it may lack
// what they did since the last tick.
func processCPU(pid int) (time.Duration, error) {
	if pid <= 0 || pid > maxProcess {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, unix.ESRCH)
	}
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &ts); err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// space reads a namespace's counters. These files show the namespace of the
// thread that opens them.
func (c *Counts) space(p Place) error {
	counters := map[string]int64{}
	err := p.NS.Do(func() error {
		for _, name := range []string{"snmp", "netstat"} {
			data, err := os.ReadFile("/proc/thread-self/net/" + name)
			if err != nil {
				return err
			}
			if err := parseProtocols(string(data), counters); err != nil {
				return err
			}
		}
		data, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		c.conntrack[p.Label], err = strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		return err
	})
	c.protocols[p.Label] = counters
	return err
}

// gauges are the lines' entries that are settings or states, not counters.
var gauges = map[string]bool{
	"Ip.Forwarding": true, "Ip.DefaultTTL": true, "Tcp.RtoAlgorithm": true, "Tcp.RtoMin": true,
	"Tcp.RtoMax": true, "Tcp.MaxConn": true, "Tcp.CurrEstab": true,
}

// parseProtocols reads pairs of lines, "Tcp: names…" and "Tcp: values…"
// (linux net/ipv4/proc.c).
func parseProtocols(text string, into map[string]int64) error {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		if len(names) == 0 || len(names) != len(values) || names[0] != values[0] {
			return fmt.Errorf("lines %q and %q are no pair", lines[i], lines[i+1])
		}
		proto := strings.TrimSuffix(names[0], ":")
		for k := 1; k < len(names); k++ {
			name := proto + "." + names[k]
			if gauges[name] {
				continue
			}
			v, err := strconv.ParseInt(values[k], 10, 64)
			if err != nil {
				return fmt.Errorf("counter %s: %w", name, err)
			}
			into[name] = v
		}
	}
	return nil
}
