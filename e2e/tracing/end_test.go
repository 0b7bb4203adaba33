package tracing

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"slipway/internal/testnet"
	"slipway/topology"
)

// However a trace ends, nothing of it stays: neither programs in the kernel nor
// tables in the nodes, and the next trace works.
func TestNothingStaysLoaded(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF)
	l := up(t, topology.FlannelVXLAN)
	for name, signal := range map[string]syscall.Signal{"interrupted": syscall.SIGINT, "killed": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(underTest, "trace", "-L", l.name, "--follow", "client", "one", "--duration", "60s")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			var programs []ebpf.ProgramID
			testnet.Eventually(t, 20*time.Second, "the tracer attached", func() (bool, string) {
				tables := l.tables(t)
				programs = programsOf(t, cmd.Process.Pid)
				return len(programs) > 0 && strings.Contains(tables, "slipway-trace"), fmt.Sprintf("%d programs, %s", len(programs), tables)
			})
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := <-ended; err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			testnet.Eventually(t, 20*time.Second, "the tracer's programs gone", func() (bool, string) {
				left := loaded(programs)
				return len(left) == 0, fmt.Sprint(left)
			})
			if left := l.tables(t); strings.Contains(left, "slipway-trace") {
				t.Errorf("left in node01:\n%s", left)
			}
			if tr, s := l.trace(t, "client", "one"); s.Code != 0 || tr.Observer != "bpf" {
				t.Errorf("the next trace: %s", s)
			}
		})
	}
}

// tables are those of nftables' own on a node.
func (l *testLab) tables(t *testing.T) string {
	t.Helper()
	return l.run(t, "node01: nft list tables").Out
}

// programsOf are the BPF programs that a process holds, by what the kernel says
// of its descriptors.
func programsOf(t *testing.T, pid int) []ebpf.ProgramID {
	t.Helper()
	var out []ebpf.ProgramID
	infos, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	for _, path := range infos {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // closed meanwhile
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "prog_id:"); ok {
				id, err := strconv.Atoi(strings.TrimSpace(rest))
				if err != nil {
					t.Fatalf("%s: %q", path, line)
				}
				out = append(out, ebpf.ProgramID(id))
			}
		}
	}
	return out
}

// loaded are those programs that are still in the kernel.
func loaded(ids []ebpf.ProgramID) []ebpf.ProgramID {
	var out []ebpf.ProgramID
	for _, id := range ids {
		if p, err := ebpf.NewProgramFromID(id); err == nil {
			out = append(out, id)
			_ = p.Close()
		}
	}
	return out
}
