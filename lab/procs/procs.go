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

// PartEnv is the environment variable that says in the lab's own processes which
// part of the lab they are of, where one part has to be told from the others.
const PartEnv = "SLIPWAY_LAB_PART"

// Process is one running process.
type Process struct {
	PID     int    `json:"pid"`
	Command string `json:"command"`
}

// Marked lists the processes whose environment carries the mark, without the caller.
func Marked(mark string) ([]Process, error) { return With(MarkEnv + "=" + mark) }

// With lists the processes that have an entry in their environment, without the
// caller.
func With(entry string) ([]Process, error) {
	return scan(func(pid int) bool { return has(pid, entry) })
}

func has(pid int, entry string) bool {
	for kv := range bytes.SplitSeq(environ(pid), []byte{0}) {
		if string(kv) == entry {
			return true
		}
	}
	return false
}

// execPatience is how long a process may take from closing what closes on exec to
// having its new environment: microseconds, unless others have the processors. One
// that has its new arguments is nearly there, or has no environment for good.
const (
	execPatience   = time.Second
	nearlyPatience = 50 * time.Millisecond
)

// environ reads a process's environment; it is empty where there is no process. One
// that is just becoming another program is waited for: the kernel closes its files,
// and with them a lab's lock, before it shows first the new arguments and then the
// new environment (fs/exec.c, begin_new_exec; fs/binfmt_elf.c, create_elf_tables).
func environ(pid int) []byte {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	began := time.Now()
	for nearly := time.Duration(0); ; <-time.After(time.Millisecond) {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || len(env) > 0 {
			return env
		}
		// A thread of the kernel has no program, and neither has a process that has ended.
		if _, err := os.Readlink(filepath.Join(dir, "exe")); err != nil {
			return nil
		}
		args, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		waited := time.Since(began)
		if len(args) > 0 && nearly == 0 {
			nearly = waited
		}
		if err != nil || waited > execPatience || nearly > 0 && waited-nearly > nearlyPatience {
			return nil
		}
	}
}

// In reports whether a process is in the network namespace, given by inode.
func In(pid int, inode uint64) bool {
	var st unix.Stat_t
	return unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &st) == nil && st.Ino == inode
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
// left.
func EndMarked(ctx context.Context, mark string) (ended []Process, err error) {
	return EndWith(ctx, MarkEnv+"="+mark)
}

// EndWith kills every process that has an entry in its environment and waits
// until none is left. It looks again after each round, so that a fork does not
// slip through.
func EndWith(ctx context.Context, entry string) (ended []Process, err error) {
	seen := map[int]bool{}
	for {
		left, err := With(entry)
		if err != nil || len(left) == 0 {
			return ended, err
		}
		for _, p := range left {
			if e := kill(p.PID, entry); e != nil {
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

// kill goes by a pidfd, and reads the environment again once it holds it, so that
// a reused pid is never hit.
func kill(pid int, entry string) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open pid %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // descriptor of a process that is ending
	if !has(pid, entry) {
		return nil // gone, or a zombie, or not ours any more
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill pid %d: %w", pid, err)
	}
	return nil
}
