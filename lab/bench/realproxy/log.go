package realproxy

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// log takes what kube-proxy says: it calls done for every sync that has ended,
// with whether it failed, and keeps the last lines.
type log struct {
	done func(took time.Duration, failed bool)

	mu    sync.Mutex
	rest  []byte // a line's beginning
	lines []string

	failed bool // the sync that is going on
}

// keptLines is enough for an error and what led to it.
const keptLines = 20

// Write takes a part of the log; it never fails.
func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, b...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(b), nil
		}
		l.line(string(line))
		l.rest = rest
	}
}

func (l *log) line(s string) {
	if l.lines = append(l.lines, s); len(l.lines) > keptLines {
		l.lines = l.lines[1:]
	}
	if strings.Contains(s, `"Sync failed"`) {
		l.failed = true
	}
	if took, ok := syncDone(s); ok {
		l.done(took, l.failed)
		l.failed = false
	}
}

func (l *log) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n")
}

// syncDone reads how long a sync took from the line that kube-proxy writes at
// its end (pkg/proxy/iptables/proxier.go and nftables/proxier.go, syncProxyRules):
//
//	I1121 06:00:00.000000 17 proxier.go:662] "SyncProxyRules complete" ipFamily="IPv4" elapsed="12.3ms"
func syncDone(line string) (time.Duration, bool) {
	_, rest, ok := strings.Cut(line, `"SyncProxyRules complete"`)
	if !ok {
		return 0, false
	}
	_, rest, ok = strings.Cut(rest, `elapsed="`)
	text, _, closed := strings.Cut(rest, `"`)
	took, err := time.ParseDuration(text)
	return took, ok && closed && err == nil
}

// userHz is the unit of times in /proc/PID/stat: USER_HZ is 100 on every
// architecture that Go runs on (linux include/uapi/asm-generic/param.h).
const userHz = 100

// cpuOf is the user and system time of a process and of the children that it
// has waited for: fields 14 to 17 of its stat (proc_pid_stat(5)).
func cpuOf(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 15 {
		return 0, fmt.Errorf("time of process %d: short stat", pid)
	}
	var ticks int64
	for _, f := range fields[11:15] {
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("time of process %d: %w", pid, err)
		}
		ticks += v
	}
	return time.Duration(ticks) * time.Second / userHz, nil
}
