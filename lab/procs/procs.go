// Package procs finds and ends the processes that belong to a lab. A process
// belongs to it when its environment carries the lab's mark, which every
// process that slipway starts does and hands down to its children.
package procs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// MarkEnv is the environment variable that carries a lab's unique mark.
const MarkEnv = "SLIPWAY_LAB_MARK"

// Process is one running process.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// Marked lists the processes whose environment carries the mark, without the caller.
func Marked(mark string) ([]Process, error) {
	return scan(func(pid int) bool {
		env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
		if err != nil {
			return false
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if string(kv) == MarkEnv+"="+mark {
				return true
			}
		}
		return false
	})
}

// Inside lists the processes in one of the network namespaces, given by inode.
func Inside(inodes map[uint64]bool) ([]Process, error) {
	return scan(func(pid int) bool {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &st); err != nil {
			return false
		}
		return inodes[st.Ino]
	})
}

func scan(match func(pid int) bool) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var out []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !match(pid) {
			continue
		}
		cmd, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline")) // empty for one that just ended
		out = append(out, Process{PID: pid, Command: string(bytes.TrimSpace(bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))})
	}
	return out, nil
}

// EndMarked kills every process that carries the mark and waits until none is
// left. It looks again after each round, so that a fork does not slip through.
func EndMarked(ctx context.Context, mark string) (ended []Process, err error) {
	seen := map[int]bool{}
	for {
		left, err := Marked(mark)
		if err != nil || len(left) == 0 {
			return ended, err
		}
		for _, p := range left {
			if e := kill(p.PID, mark); e != nil {
				return ended, e
			}
			if !seen[p.PID] {
				seen[p.PID] = true
				ended = append(ended, p)
			}
		}
		select {
		case <-ctx.Done():
			return ended, fmt.Errorf("end processes of the lab: %d still there: %w", len(left), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kill goes by a pidfd, and reads the mark again once it holds it, so that a
// reused pid is never hit.
func kill(pid int, mark string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // descriptor of a process that is ending
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil || !bytes.Contains(env, []byte(MarkEnv+"="+mark+"\x00")) {
		return nil // gone, or a zombie, or not ours any more
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", pid, err)
	}
	return nil
}
