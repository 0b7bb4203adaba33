package doctor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What one pod costs, at most: the kernel's memory for a namespace with a veth
// pair, the daemon's for its servers (`slipway bench scale` measures both), and
// a descriptor for each of two declared ports.
const (
	podBytes       = 430_000
	podDescriptors = 2
	// aside is left to everything else of the box.
	asideBytes       = 500_000_000
	asideDescriptors = 256
)

// fewPods is what the larger examples need.
const fewPods = 100

// speakerThreads is what a BGP speaker's process has, about.
const speakerThreads = 12

func resourceChecks() []check {
	return []check{
		{
			name: "CPUs", group: Resources,
			probe: func(context.Context, *scratch) (string, error) { return fmt.Sprint(runtime.NumCPU()), nil },
		},
		resource("memory", "large labs run out of memory", "a machine with more of it", memoryPods),
		resource("descriptors", "the daemon cannot open all ports of a large lab", "ulimit -Hn 1048576, or LimitNOFILE= of the unit that starts it", descriptorPods),
		resource("namespaces", "every pod and node is a network namespace", "sysctl user.max_net_namespaces=100000", namespacePods),
		resource("mounts", "every pod and node is a mount, of its namespace's name", "sysctl fs.mount-max=100000", mountPods),
		{
			name: "processes", group: Resources,
			means: "large labs in the calico modes have one BGP speaker per node, which may not fit",
			hint:  "sysctl kernel.pid_max=4194304; TasksMax= of the unit, or pids.max of the container",
			probe: probeProcesses,
		},
		{
			name: "ARP entries", group: Resources,
			means: "the kernel drops packets when labs and the machine together have learnt that many; a lab leaves up to 512 to ARP, and gets permanent entries above",
			hint:  "sysctl net.ipv4.neigh.default.gc_thresh3=8192",
			probe: probeNeighbors,
		},
		{
			name: "cgroups", group: Resources,
			means: "nothing for labs, whose processes are found by their environment",
			probe: probeCgroups,
		},
		{
			name: "leftovers", group: Resources,
			means: "something was cut off, or a lab keeps its state elsewhere (SLIPWAY_STATE_DIR)",
			hint:  "`slipway up` or `slipway down` for a lab; `ip netns del` for a namespace without one",
			probe: probeLeftovers,
		},
	}
}

// resource is a limit in terms of how many pods it allows.
func resource(name, means, hint string, count func() (seen string, pods uint64, err error)) check {
	return check{
		name: name, group: Resources, means: means, hint: hint,
		probe: func(context.Context, *scratch) (string, error) {
			seen, pods, err := count()
			if err != nil {
				return "", err
			}
			detail := fmt.Sprintf("%s: about %d pods", seen, pods)
			if pods < fewPods {
				return detail, less("fewer than %d", fewPods)
			}
			return detail, nil
		},
	}
}

func memoryPods() (string, uint64, error) {
	free, err := availableMemory()
	if err != nil {
		return "", 0, err
	}
	what := "available"
	if limit, ok := cgroupLimit("memory", "memory.max", "memory.limit_in_bytes"); ok && limit < free {
		free, what = limit, "allowed by the cgroup"
	}
	return fmt.Sprintf("%.1f GB %s", float64(free)/1e9, what), atLeast0(free, asideBytes) / podBytes, nil
}

// availableMemory is MemAvailable (proc_meminfo(5)), in bytes.
func availableMemory() (uint64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no MemAvailable in /proc/meminfo")
}

// descriptorPods goes by the hard limit: the Go runtime raises the soft one to
// it when a program starts (os/rlimit.go).
func descriptorPods() (string, uint64, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return "", 0, fmt.Errorf("getrlimit: %w", err)
	}
	return fmt.Sprintf("%d per process", r.Max), atLeast0(r.Max, asideDescriptors) / podDescriptors, nil
}

func namespacePods() (string, uint64, error) {
	n, err := readUint("/proc/sys/user/max_net_namespaces")
	return fmt.Sprintf("%d", n), n, err
}

func mountPods() (string, uint64, error) {
	n, err := readUint("/proc/sys/fs/mount-max")
	return fmt.Sprintf("%d per mount namespace", n), n, err
}

func probeProcesses(context.Context, *scratch) (string, error) {
	limit, err := readUint("/proc/sys/kernel/pid_max")
	if err != nil {
		return "", err
	}
	what := "kernel.pid_max"
	if n, e := readUint("/proc/sys/kernel/threads-max"); e == nil && n < limit {
		limit, what = n, "kernel.threads-max"
	}
	if n, ok := cgroupLimit("pids", "pids.max", "pids.max"); ok && n < limit {
		limit, what = n, "pids.max of the cgroup"
	}
	nodes := limit / speakerThreads
	detail := fmt.Sprintf("%d tasks (%s): about %d calico nodes; pods need none", limit, what, nodes)
	if nodes < fewPods {
		return detail, less("fewer than %d", fewPods)
	}
	return detail, nil
}

// defaultNeighbors is the kernel's own gc_thresh3 (net/ipv4/arp.c, arp_tbl),
// which labs count on.
const defaultNeighbors = 1024

func probeNeighbors(context.Context, *scratch) (string, error) {
	n, err := readUint("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
	if err != nil {
		return "", err
	}
	detail := fmt.Sprintf("%d for all namespaces together", n)
	if n < defaultNeighbors {
		return detail, less("fewer than %d", defaultNeighbors)
	}
	return detail, nil
}

func probeCgroups(context.Context, *scratch) (string, error) {
	const root = "/sys/fs/cgroup"
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return "", fmt.Errorf("statfs %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return "version 2", nil
	}
	if _, err := os.Stat(root + "/unified"); err == nil {
		return "version 1 and 2 (hybrid)", nil
	}
	if st.Type == unix.TMPFS_MAGIC {
		return "version 1", nil
	}
	return "", fmt.Errorf("%s is no cgroup file system", root)
}

// cgroupLimit reads a limit of the process's own cgroup (cgroups(7)); false
// where there is none.
func cgroupLimit(controller, v2, v1 string) (uint64, bool) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	best, found := uint64(math.MaxUint64), false
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		var file string
		switch part[1] {
		case "":
			file = filepath.Join("/sys/fs/cgroup", part[2], v2)
		case controller:
			file = filepath.Join("/sys/fs/cgroup", controller, part[2], v1)
		default:
			continue
		}
		if n, err := readUint(file); err == nil && n < best { // "max" and files of other mounts are no limit
			best, found = n, true
		}
	}
	return best, found
}

func readUint(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

func atLeast0(n, less uint64) uint64 { return n - min(n, less) }
