package kube

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slipway/topology"
)

// What a node's programs take of the machine's inotify instances, by role, as
// counted in /proc/PID/fd of v1.36.3: apiserver 6, controller manager 7, scheduler
// 1; kube-proxy 1; kubelet 6, containerd 2. While they start over, some are taken
// twice.
const (
	inotifyMaster  = 16
	inotifyProxy   = 1
	inotifyKubelet = 9
)

// inotifyFD is what an inotify instance's descriptor leads to (proc_pid_fd(5)).
const inotifyFD = "anon_inode:inotify"

const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

// InotifyError says that the machine allows too few inotify instances.
type InotifyError struct{ Limit, Used, Need int }

// Error says what to do.
func (e *InotifyError) Error() string {
	return fmt.Sprintf("this lab's programs need about %d inotify instances, and %d of the %d that the kernel allows root are in use (%s): "+
		"take other labs down, or allow more with `sysctl fs.inotify.max_user_instances=1024`, which is a setting of the whole machine", e.Need, e.Used, e.Limit, inotifyLimit)
}

// checkInotify makes sure that a new lab's programs find what they watch files with:
// without it they start, and do not work.
func checkInotify(c *topology.Cluster) error {
	raw, err := os.ReadFile(inotifyLimit)
	if err != nil {
		return nil //nolint:nilerr // a kernel without the limit
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return fmt.Errorf("%s: %w", inotifyLimit, err)
	}
	used, err := inotifyUsed()
	if err != nil {
		return err
	}
	if need := InotifyNeed(c); used+need > limit {
		return &InotifyError{Limit: limit, Used: used, Need: need}
	}
	return nil
}

// InotifyNeed is how many inotify instances the programs of a cluster take.
func InotifyNeed(c *topology.Cluster) (need int) {
	for _, n := range c.Spec.Nodes {
		if n.HasRole(topology.RoleControlPlane) {
			need += inotifyMaster
		}
		if !(topology.NodeState{Node: n}).InDatapath() {
			continue
		}
		need += inotifyProxy
		if c.Spec.Components == topology.ComponentsFull {
			need += inotifyKubelet
		}
	}
	return need
}

// inotifyUsed counts the instances that processes of root hold (inotify(7)).
func inotifyUsed() (int, error) {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, err
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == inotifyFD { // else the process has ended
			n++
		}
	}
	return n, nil
}
