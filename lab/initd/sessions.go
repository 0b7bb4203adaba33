package initd

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// session lists the processes of a session: of a service, all that it started
// and that did not leave on purpose.
func session(id int) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		// The fields after the name in parentheses: state ppid pgrp session (proc_pid_stat(5)).
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) > 3 && fields[0] != "Z" && fields[3] == strconv.Itoa(id) {
			out = append(out, pid)
		}
	}
	return out
}

func killSession(id int, sig syscall.Signal) {
	for _, pid := range session(id) {
		_ = unix.Kill(pid, sig) // gone is as good
	}
}
