package ssh

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/installer"
	"slipway/installer/facts"
)

// BenchmarkHundredHosts connects to 100 sshds in namespaces of their own and
// gathers facts from all of them. It reports the memory of the operator's process
// at its highest as well. The sshds, the shells and the operator share the machine.
func BenchmarkHundredHosts(b *testing.B) {
	o := newOperator(b)
	var targets []Target
	for i := range 100 {
		targets = append(targets, newMachine(b, o, fmt.Sprintf("node%03d", i), "", "").target("root"))
	}
	began := cpu(b)
	for b.Loop() {
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // proc_pid_clear_refs(5): forget the peak
			b.Fatal(err)
		}
		hosts, err := OpenAll(b.Context(), targets, o.options())
		if err != nil {
			b.Fatal(err)
		}
		all := map[string]installer.Host{}
		for name, h := range hosts {
			all[name] = h
		}
		got, err := facts.Gather(b.Context(), all)
		if err != nil || len(got) != len(targets) {
			b.Fatalf("%d hosts, %v", len(got), err)
		}
		CloseAll(hosts)
	}
	b.ReportMetric(peak(b), "MB-peak")
	b.ReportMetric((cpu(b)-began)/float64(b.N), "cpu-s/op") // the operator's own
}

// cpu is the processor time that this process has used, in seconds.
func cpu(b *testing.B) float64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// peak is the highest resident memory of this process.
func peak(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	var kib float64
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		b.Fatal(err)
	}
	return kib / 1024
}

// BenchmarkRun is what one program costs.
func BenchmarkRun(b *testing.B) {
	o := newOperator(b)
	m := newMachine(b, o, "node01", allowed, "")
	for _, user := range []string{"root", "ops"} {
		b.Run(user, func(b *testing.B) {
			h := o.open(b, m, user)
			for b.Loop() {
				if _, err := h.Run(b.Context(), sh("exit 0")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStore is what sending takes, with all sums.
func BenchmarkStore(b *testing.B) {
	o := newOperator(b)
	m := newMachine(b, o, "node01", "mount -t tmpfs tmpfs /opt", "")
	h := o.open(b, m, "root")
	blob, _ := newBlob(b, 100<<20)
	b.SetBytes(blob.Size)
	for b.Loop() {
		if err := h.Store(b.Context(), blob); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		m.sh(b, "rm /opt/slipway/store/*")
		b.StartTimer()
	}
}
