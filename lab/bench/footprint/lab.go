package footprint

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"slipway/lab"
	"slipway/lab/procs"
)

// Daemon is what a lab's own processes, the daemon and BGP speakers, use.
type Daemon struct {
	// Of the daemon alone, in bytes: Private is its own memory (RssAnon), Resident
	// the program's pages too (VmRSS), which all its processes share.
	Private, Resident int64
	CPU               time.Duration
}

// ReadDaemon reads the cost of a lab's processes since their start.
func ReadDaemon(ctx context.Context, name string) (Daemon, error) {
	var c Daemon
	st, err := lab.ReadState(name)
	if err != nil {
		return c, err
	}
	status, err := lab.DaemonStatus(ctx, name)
	if err != nil {
		return c, err
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", status.PID))
	if err != nil {
		return c, fmt.Errorf("memory of the daemon: %w", err)
	}
	memory := sizes(string(data))
	c.Private, c.Resident = memory["RssAnon"], memory["VmRSS"]
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"="))
	if err != nil {
		return c, err
	}
	for _, p := range all {
		used, err := processTime(p.PID)
		if err != nil {
			return c, err
		}
		c.CPU += used
	}
	return c, nil
}

// userHz is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go runs on (linux include/uapi/asm-generic/param.h).
const userHz = 100

// processTime is the user and system time of a process: fields 14 and 15 of its
// stat, after the command's name in parentheses (proc_pid_stat(5)).
func processTime(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("time of process %d: short stat", pid)
	}
	var ticks int64
	for _, f := range fields[11:13] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("time of process %d: %w", pid, err)
		}
		ticks += v
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}

// Private is the private memory (RssAnon, proc_pid_status(5)) of processes, in
// bytes, all together.
func Private(pids ...int) (sum int64, err error) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("memory of process %d: %w", pid, err)
		}
		sum += sizes(string(data))["RssAnon"]
	}
	return sum, nil
}
