package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"slipway/lab"
)

// sweep takes away what tests left that were killed.
func sweep() {
	dirs, _ := filepath.Glob(statePrefix + "[0-9]*-*")
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(d, statePrefix), "-")
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue
		}
		if err := clean(d); err != nil {
			fmt.Fprintln(os.Stderr, "left by a test that was killed:", err)
		}
	}
}

// record notes a process that has to end with the rig, before anything else can
// fail: its number, and when it began, as numbers come again.
func record(dir string, pid int) error {
	began, err := beginning(pid)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "processes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, pid, began)
	return errors.Join(err, f.Close())
}

// beginning is when a process was started, in the kernel's ticks (proc_pid_stat(5),
// field 22).
func beginning(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	if len(f) < 20 {
		return "", fmt.Errorf("process %d: %q is no state", pid, stat)
	}
	return f[19], nil
}

// endRecorded ends the processes of a rig that still run. What they waited for
// ends with them: systemd-nspawn sees to that.
func endRecorded(dir string) error {
	raw, err := os.ReadFile(filepath.Join(dir, "processes"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for line := range strings.Lines(string(raw)) {
		number, began, _ := strings.Cut(strings.TrimSpace(line), " ")
		pid, _ := strconv.Atoi(number)
		if now, err := beginning(pid); pid < 2 || err != nil || now != began {
			continue
		}
		if child := firstChild(pid); child != 0 {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	return err
}

// labsDown ends the labs of a state directory.
func labsDown(state string) error {
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	cmd := exec.Command(binary, "down", "--all")
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("slipway down --all: %w\n%s", err, out)
	}
	return nil
}
