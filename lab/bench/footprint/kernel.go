// Package footprint reads what labs take of the machine: memory of the kernel
// and of their processes, CPU time, and namespaces that are still being torn down.
package footprint

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
)

// Memory is what the machine's memory goes to, in bytes (proc_meminfo(5)).
type Memory struct {
	Available int64 // without swapping; page cache that can be dropped counts as free
	// Kernel is what is neither free nor page cache nor a process's own: slab,
	// per-CPU memory, page tables, stacks, and pages that drivers took.
	Kernel int64
	Slab   int64 // the kernel's objects
	PerCPU int64 // its per-CPU allocator, which counters of namespaces use
}

// ReadMemory reads the memory of now.
func ReadMemory() (Memory, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Memory{}, fmt.Errorf("read memory: %w", err)
	}
	return parseMemory(string(data)), nil
}

func parseMemory(meminfo string) Memory {
	f := sizes(meminfo)
	return Memory{
		Available: f["MemAvailable"], Slab: f["Slab"], PerCPU: f["Percpu"],
		Kernel: f["MemTotal"] - f["MemFree"] - f["Buffers"] - f["Cached"] - f["SwapCached"] - f["AnonPages"],
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

// SettledMemory reads the memory once what is free has moved by less than 2 MB
// in half a second: what the commands before it used is given back with a delay.
func SettledMemory(ctx context.Context) (Memory, error) {
	debug.FreeOSMemory() // this process's own garbage is nobody's memory
	last, err := ReadMemory()
	if err != nil {
		return last, err
	}
	err = poll(ctx, settlePatience, 500*time.Millisecond, func() (bool, error) {
		now, err := ReadMemory()
		moved := now.Available - last.Available
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

// NamespacesAlive is how many network namespaces the kernel holds, the ones that
// it has not yet torn down included. The count is the slab allocator's, which
// takes some free objects for used ones; ok is false where it has none.
func NamespacesAlive() (n int, ok bool, err error) {
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
	// TearDownPatience bounds the wait for the kernel to finish what a `down` of
	// thousands of namespaces has left to it.
	TearDownPatience = 4 * time.Minute
	// UncountedFree is what the slab allocator may take for used although it is
	// free: a few partial slabs for each CPU.
	UncountedFree = 100
)

// AwaitTearDown waits until the kernel holds hardly more namespaces than before.
// It returns how long that took, and whether it came to its end.
func AwaitTearDown(ctx context.Context, before int) (took time.Duration, finished bool, err error) {
	start := time.Now()
	look := func() (bool, error) {
		if err := nudge(); err != nil {
			return false, err
		}
		n, ok, err := NamespacesAlive()
		finished = !ok || n <= before+UncountedFree
		return finished, err
	}
	if finished, err = look(); err != nil || finished {
		return 0, finished, err
	}
	err = poll(ctx, TearDownPatience, 100*time.Millisecond, look)
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
