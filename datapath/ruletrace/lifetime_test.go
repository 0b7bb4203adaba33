package ruletrace_test

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"slipway/datapath"
	"slipway/datapath/ruletrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

const loggerPath = "/proc/sys/net/netfilter/nf_log/2"

func logger(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var b []byte
	check(t, ns.Do(func() error {
		var err error
		b, err = os.ReadFile(loggerPath)
		return err
	}))
	return strings.TrimSpace(string(b))
}

func setLogger(t *testing.T, ns *netns.NS, to string) {
	t.Helper()
	check(t, ns.Do(func() error { return os.WriteFile(loggerPath, []byte(to), 0o644) }))
}

func openIn(ns *netns.NS) (*ruletrace.Tracer, error) {
	return ruletrace.Open([]*netns.NS{ns}, []datapath.Flow{{Proto: "icmp"}}, datapath.Ports{})
}

// Close puts back the logger that was set, whichever it was.
func TestCloseRestoresTheLogger(t *testing.T) {
	ns := testnet.NewNS(t)
	before := logger(t, ns)
	tr, err := openIn(ns)
	check(t, err)
	if got := logger(t, ns); got != "nfnetlink_log" {
		t.Errorf("the logger is %s while rules are traced, want nfnetlink_log", got)
	}
	check(t, tr.Close())
	if got := logger(t, ns); got != before {
		t.Errorf("the logger is %s afterwards, want %s", got, before)
	}
}

// What a killed tracer set is put back by the next one.
func TestLeftLoggerIsRepaired(t *testing.T) {
	ns := testnet.NewNS(t)
	setLogger(t, ns, "nfnetlink_log")
	tr, err := openIn(ns)
	check(t, err)
	check(t, tr.Close())
	if got := logger(t, ns); got != "NONE" {
		t.Errorf("the logger is %s, want NONE", got)
	}
}

// Only one can read, and the other hears why it cannot; the first goes on.
func TestSecondTracerIsRefused(t *testing.T) {
	ns := testnet.NewNS(t)
	first, err := openIn(ns)
	check(t, err)
	defer first.Close() //nolint:errcheck // scratch
	if _, err := openIn(ns); !errors.Is(err, ruletrace.ErrBusy) {
		t.Errorf("a second tracer: %v, want %v", err, ruletrace.ErrBusy)
	}
	if got := logger(t, ns); got != "nfnetlink_log" {
		t.Errorf("the logger is %s after a refused tracer, want nfnetlink_log", got)
	}
}

// childEnv names the namespace in which TestMain's process traces until it is killed.
const childEnv = "RULETRACE_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		ns, err := netns.Open(name)
		if err == nil {
			_, err = openIn(ns)
		}
		if err != nil {
			os.Stderr.WriteString(err.Error()) //nolint:errcheck // the parent sees that nothing comes
			os.Exit(1)
		}
		os.Stdout.WriteString("ready\n")     //nolint:errcheck // as above
		_, _ = io.Copy(io.Discard, os.Stdin) // does not end while the parent has the other end
	}
	os.Exit(m.Run())
}

func TestKilledProcessLeavesNoTable(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.NFT)
	ns := testnet.NewNS(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+ns.Name())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(t, err)
	hold, err := cmd.StdinPipe()
	check(t, err)
	defer hold.Close() //nolint:errcheck // scratch
	check(t, cmd.Start())
	_, readErr := bufio.NewReader(out).ReadString('\n')
	before := tables(t, ns)
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	check(t, readErr)
	if !strings.Contains(before, "slipway-trace") {
		t.Errorf("tables while rules are traced: %q", before)
	}
	testnet.Eventually(t, 10*time.Second, "no table", func() (bool, string) {
		left := tables(t, ns)
		return left == "", left
	})
}

func tables(t *testing.T, ns *netns.NS) string {
	t.Helper()
	var out []byte
	check(t, ns.Do(func() error {
		var err error
		out, err = exec.Command("nft", "list", "tables").Output()
		return err
	}))
	return strings.TrimSpace(string(out))
}
