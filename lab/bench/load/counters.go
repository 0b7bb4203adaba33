package load

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every architecture
// that this runs on (linux include/asm-generic/param.h).
const tick = time.Second / 100

// machineCounts are those of the whole machine.
type machineCounts struct {
	busy, softIRQ time.Duration
	switches      int64
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
// idle iowait irq softirq steal in ticks, and that of context switches
// (proc_stat(5)).
func parseMachine(stat string) (machineCounts, error) {
	var m machineCounts
	line, rest, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 8 || fields[0] != "cpu" {
		return m, errors.New("/proc/stat does not begin with a cpu line of seven counters")
	}
	for i, f := range fields[1:8] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return m, fmt.Errorf("counter %q: %w", f, err)
		}
		switch i {
		case 3, 4: // idle, iowait
			continue
		case 6:
			m.softIRQ = time.Duration(v) * tick
		}
		m.busy += time.Duration(v) * tick
	}
	for line := range strings.Lines(rest) {
		if value, ok := strings.CutPrefix(line, "ctxt "); ok {
			var err error
			m.switches, err = strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return m, err
		}
	}
	return m, errors.New("/proc/stat has no context switches")
}

// processCPU is what a process has used, in user and kernel mode.
func processCPU(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	used, err := parseProcess(string(data))
	if err != nil {
		return 0, fmt.Errorf("read CPU time of process %d: %w", pid, err)
	}
	return used, nil
}

// parseProcess reads the 14th and 15th field, utime and stime in ticks
// (proc_pid_stat(5)). The second is the name in parentheses, with whatever in it.
func parseProcess(stat string) (time.Duration, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 13 {
		return 0, errors.New("too few fields")
	}
	var used time.Duration
	for _, f := range fields[11:13] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("counter %q: %w", f, err)
		}
		used += time.Duration(v) * tick
	}
	return used, nil
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
