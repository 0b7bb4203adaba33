package bench

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/procs"
)

// memory is what the machine's memory goes to, in bytes (proc_meminfo(5)).
type memory struct {
	available int64 // without swapping; page cache that can be dropped counts as free
	// kernel is what is neither free nor page cache nor a process's own: slab,
	// per-CPU memory, page tables, stacks, and pages that drivers took.
	kernel int64
	slab   int64 // the kernel's objects
	percpu int64 // its per-CPU allocator, which counters of namespaces use
}

func readMemory() (memory, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return memory{}, fmt.Errorf("read memory: %w", err)
	}
	return parseMemory(string(data)), nil
}

func parseMemory(meminfo string) memory {
	f := sizes(meminfo)
	return memory{
		available: f["MemAvailable"], slab: f["Slab"], percpu: f["Percpu"],
		kernel: f["MemTotal"] - f["MemFree"] - f["Buffers"] - f["Cached"] - f["SwapCached"] - f["AnonPages"],
	}
}

// sizes reads lines of the form "Slab:  483492 kB" into bytes.
func sizes(text string) map[string]int64 {
	out := map[string]int64{}
	for line := range strings.Lines(text) {
		key, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) != 2 || fields[1] != "kB" {
			continue
		}
		if v, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
			out[key] = v << 10
		}
	}
	return out
}

// settlePatience bounds the wait for the memory's figures to stand still.
const settlePatience = 4 * time.Second

// settledMemory reads the memory once what is free has moved by less than 2 MB
// in half a second: what the commands before it used is given back with a delay.
func settledMemory(ctx context.Context) (memory, error) {
	debug.FreeOSMemory() // this process's own garbage is nobody's memory
	last, err := readMemory()
	if err != nil {
		return last, err
	}
	err = poll(ctx, settlePatience, 500*time.Millisecond, func() (bool, error) {
		now, err := readMemory()
		moved := now.available - last.available
		last = now
		return max(moved, -moved) < 2<<20, err
	})
	if err != nil {
		return last, err
	}
	return last, nil
}

// poll calls done again and again until it says so or patience ends, neither of
// which is an error: the caller can tell by what done has left.
func poll(ctx context.Context, patience, every time.Duration, done func() (bool, error)) error {
	end := time.NewTimer(patience)
	defer end.Stop()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end.C:
			return nil
		case <-tick.C:
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
}

// namespacesAlive is how many network namespaces the kernel holds, the ones that
// it has not yet torn down included. The count is the slab allocator's, which
// takes some free objects for used ones; ok is false where it has none.
func namespacesAlive() (n int, ok bool, err error) {
	f, err := os.Open("/proc/slabinfo")
	if err != nil {
		return 0, false, fmt.Errorf("count namespaces: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	n, ok = activeObjects(bufio.NewScanner(f), "net_namespace")
	return n, ok, nil
}

// activeObjects finds a cache's second column (slabinfo(5)).
func activeObjects(lines *bufio.Scanner, cache string) (int, bool) {
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) > 1 && fields[0] == cache {
			n, err := strconv.Atoi(fields[1])
			return n, err == nil
		}
	}
	return 0, false
}

const (
	// tearDownPatience bounds the wait for the kernel to finish what a `down` of
	// thousands of namespaces has left to it.
	tearDownPatience = 4 * time.Minute
	// uncountedFree is what the slab allocator may take for used although it is
	// free: a few partial slabs for each CPU.
	uncountedFree = 100
)

// awaitTearDown waits until the kernel holds hardly more namespaces than before.
// It returns how long that took, and whether it came to its end.
func awaitTearDown(ctx context.Context, before int) (took time.Duration, finished bool, err error) {
	start := time.Now()
	look := func() (bool, error) {
		if err := nudge(); err != nil {
			return false, err
		}
		n, ok, err := namespacesAlive()
		finished = !ok || n <= before+uncountedFree
		return finished, err
	}
	if finished, err = look(); err != nil || finished {
		return 0, finished, err
	}
	err = poll(ctx, tearDownPatience, 100*time.Millisecond, look)
	return time.Since(start), finished, err
}

// nudge makes a namespace and lets go of it: from Linux 6.13 on the kernel frees
// what it tore down only when it tears down the next one (net/core/net_namespace.c,
// net_complete_free).
func nudge() error {
	ns, err := netns.Anonymous()
	if err != nil {
		return err
	}
	return ns.Close()
}

// daemonCost is what a lab's own processes, the daemon and BGP speakers, use.
type daemonCost struct {
	// Of the daemon alone, in bytes: private is its own memory (RssAnon), resident
	// the program's pages too (VmRSS), which all its processes share.
	private, resident int64
	cpu               time.Duration
}

// readDaemon reads the cost of a lab's processes since their start.
func readDaemon(ctx context.Context, name string) (daemonCost, error) {
	var c daemonCost
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
	c.private, c.resident = memory["RssAnon"], memory["VmRSS"]
	all, err := procs.Marked(strings.TrimPrefix(lab.Mark(st), procs.MarkEnv+"="))
	if err != nil {
		return c, err
	}
	for _, p := range all {
		used, err := processTime(p.PID)
		if err != nil {
			return c, err
		}
		c.cpu += used
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
