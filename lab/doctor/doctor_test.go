package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
)

// TestMain lets a test run the doctor again as another user: this test binary
// prints its findings instead of running tests.
func TestMain(m *testing.M) {
	if os.Getenv("DOCTOR_PRINT") == "" {
		os.Exit(m.Run())
	}
	for _, f := range Run(context.Background()) {
		fmt.Println(f.Name, "is", f.Status)
	}
}

func find(t *testing.T, all []Finding, name string) Finding {
	t.Helper()
	for _, f := range all {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding %q", name)
	return Finding{}
}

// What the doctor says of a feature must be what a test that needs it finds:
// testnet has probes of its own.
func TestAgreesWithIndependentProbes(t *testing.T) {
	testnet.Need(t, testnet.Root)
	all := Run(t.Context())
	for name, capability := range map[string]testnet.Capability{
		"root":               testnet.Root,
		"network namespaces": testnet.Root,
		"veth":               testnet.Root, // every test that has a wire needs it
		"vxlan":              testnet.VXLAN,
		"TUN":                testnet.TUN,
		"IPIP by eBPF":       testnet.BPF,
		"iptables":           testnet.IPTables,
		"match statistic":    testnet.IPTables,
		"SCTP":               testnet.SCTP,
		"netem":              testnet.Netem,
		"tshark":             testnet.TShark,
		"bird":               testnet.Bird,
		"ping":               testnet.Ping,
		"curl":               testnet.Curl,
		"nginx":              testnet.NGINX,
		"haproxy":            testnet.HAProxy,
		"keepalived":         testnet.Keepalived,
		"envoy":              testnet.Envoy,
	} {
		t.Run(name, func(t *testing.T) {
			f := find(t, all, name)
			has := f.Status == OK || f.Status == Degraded
			if has == skips(t, capability) {
				t.Errorf("the doctor says %s (%s), the test probe %q the opposite", f.Status, f.Detail, capability)
			}
		})
	}
}

// skips reports whether a test that needs the capability would skip. It asks in
// a subtest of its own, whose skip is not the caller's.
func skips(t *testing.T, c testnet.Capability) bool {
	t.Setenv(testnet.RequireEnv, "")
	skipped := true
	t.Run("probe", func(t *testing.T) {
		testnet.Need(t, c)
		skipped = false
	})
	return skipped
}

// One way of IPIP must be there where TUN and tc programs are. Testnet is asked
// for the kernel's only where the module is loaded, as its probe would load it,
// and so put a tunl0 into every namespace.
func TestSaysWhichIPIPRuns(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF)
	all := Run(t.Context())
	runs := find(t, all, "calico-ipip")
	want := "runs as ebpf"
	if _, err := os.Stat("/sys/module/ipip"); err == nil {
		want = "runs as kernel"
		if skips(t, testnet.KernelIPIP) {
			t.Error("the module is loaded, but testnet cannot make a device")
		}
	}
	if kernel := find(t, all, "IPIP in the kernel"); (kernel.Status == OK) != (want == "runs as kernel") {
		t.Errorf("IPIP in the kernel is %s (%s), want %q", kernel.Status, kernel.Detail, want)
	}
	if runs.Status != OK || !strings.HasPrefix(runs.Detail, want) {
		t.Errorf("calico-ipip: %s, %q; want ok, %q", runs.Status, runs.Detail, want)
	}
}

// Whoever reads of a gap must learn what it means for him; and nothing is said
// about what is there.
func TestEveryGapIsExplained(t *testing.T) {
	names := map[string]bool{}
	for _, f := range Run(t.Context()) {
		if names[f.Name] {
			t.Errorf("%s: two findings of one name", f.Name)
		}
		names[f.Name] = true
		switch f.Status {
		case OK, Unknown:
			if f.Means != "" || f.Hint != "" {
				t.Errorf("%s is %s but has advice: %q %q", f.Name, f.Status, f.Means, f.Hint)
			}
		case Missing, Degraded:
			if f.Detail == "" || f.Means == "" {
				t.Errorf("%s is %s: says %q, means %q; want both", f.Name, f.Status, f.Detail, f.Means)
			}
		default:
			t.Errorf("%s: status %q", f.Name, f.Status)
		}
	}
}

// The machine's own namespace, and the list of named ones, are after a run what
// they were before it.
func TestLeavesNothing(t *testing.T) {
	testnet.Need(t, testnet.Root)
	before := machine(t)
	Run(t.Context())
	if d := cmp.Diff(before, machine(t)); d != "" {
		t.Errorf("the run changed the machine (-before +after):\n%s", d)
	}
}

// machine is what of the machine a probe could leave something in. Names of
// namespaces are left out, as other packages' tests make theirs meanwhile; no
// probe makes a named one.
func machine(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for what, file := range map[string]string{"links": "/proc/net/dev", "routes": "/proc/net/route", "tables": "/proc/net/ip_tables_names"} {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		out[what] = names(string(b))
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "net:") {
			open = append(open, to)
		}
	}
	out["open namespaces"] = strings.Join(open, "\n")
	return out
}

// names keeps the first word of each line: counters change by themselves.
func names(text string) string {
	var out []string
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 0 {
			out = append(out, f[0])
		}
	}
	return strings.Join(out, "\n")
}

// Without root the doctor says so instead of failing, and calls nothing missing
// that it could not try.
func TestUnprivileged(t *testing.T) {
	testnet.Need(t, testnet.Root)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), "DOCTOR_PRINT=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}} // nobody
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"root is missing", "CAP_NET_ADMIN is missing", "network namespaces is missing", "veth is unknown", "vxlan is unknown", "memory is ok"} {
		if !strings.Contains(string(out), want+"\n") {
			t.Errorf("no line %q in:\n%s", want, out)
		}
	}
}

// Only what is required and not there is lacking; degraded is enough to run.
func TestLacking(t *testing.T) {
	got := Lacking([]Finding{
		{Name: "a", Required: true, Status: Missing},
		{Name: "b", Required: true, Status: Unknown},
		{Name: "c", Required: true, Status: Degraded},
		{Name: "d", Required: true, Status: OK},
		{Name: "e", Status: Missing},
	})
	var names []string
	for _, f := range got {
		names = append(names, f.Name)
	}
	if d := cmp.Diff([]string{"a", "b"}, names); d != "" {
		t.Error(d)
	}
}

// A run that is cut off has said of nothing that it is missing.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, f := range Run(ctx) {
		if f.Status != Unknown {
			t.Errorf("%s is %s after cancellation", f.Name, f.Status)
		}
	}
}
