package skbtrace_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// loaded is what a tracer has in the kernel, by number.
type loaded struct{ Programs, Links []uint32 }

func loadedBy(tr *skbtrace.Tracer) (loaded, error) {
	programs, err := tr.ProgramIDs()
	if err != nil {
		return loaded{}, err
	}
	links, err := tr.LinkIDs()
	return loaded{programs, links}, err
}

// left counts what of that the kernel still has.
func left(t *testing.T, l loaded) int {
	t.Helper()
	n := 0
	for _, id := range l.Programs {
		p, err := ebpf.NewProgramFromID(ebpf.ProgramID(id))
		if err == nil {
			n++
			check(t, p.Close())
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	for _, id := range l.Links {
		k, err := link.NewFromID(link.ID(id))
		if err == nil {
			n++
			check(t, k.Close())
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return n
}

func awaitNothingLeft(t *testing.T, l loaded) {
	t.Helper()
	testnet.Eventually(t, 10*time.Second, "everything gone", func() (bool, string) {
		n := left(t, l)
		return n == 0, fmt.Sprintf("%d programs and links are still there", n)
	})
}

func TestCloseLeavesNothing(t *testing.T) {
	ns := testnet.NewNS(t)
	tr, err := skbtrace.Open(skbtrace.Options{Namespaces: []*netns.NS{ns}})
	check(t, err)
	l, err := loadedBy(tr)
	check(t, err)
	// 7 tracepoints; 5 hooks, each before and behind all tables.
	if len(l.Links) != 7+10 || left(t, l) != len(l.Programs)+len(l.Links) {
		t.Errorf("open: %d of %d programs and %d links are in the kernel", left(t, l), len(l.Programs), len(l.Links))
	}
	check(t, tr.Close())
	awaitNothingLeft(t, l)
}

// childEnv names the namespace in which TestMain's process traces until it is killed.
const childEnv = "SKBTRACE_TEST_CHILD"

func TestMain(m *testing.M) {
	if name := os.Getenv(childEnv); name != "" {
		traceUntilKilled(name)
	}
	os.Exit(m.Run())
}

func traceUntilKilled(name string) {
	fail := func(err error) {
		if err != nil {
			os.Stderr.WriteString(err.Error()) //nolint:errcheck // the parent sees that nothing comes
			os.Exit(1)
		}
	}
	ns, err := netns.Open(name)
	fail(err)
	tr, err := skbtrace.Open(skbtrace.Options{Namespaces: []*netns.NS{ns}})
	fail(err)
	l, err := loadedBy(tr)
	fail(err)
	fail(json.NewEncoder(os.Stdout).Encode(l))
	_, _ = io.Copy(io.Discard, os.Stdin) // does not end while the parent has the other end
}

func TestKilledProcessLeavesNothing(t *testing.T) {
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
	line, readErr := bufio.NewReader(out).ReadBytes('\n')
	var l loaded
	var before int
	if readErr == nil {
		check(t, json.Unmarshal(line, &l))
		before = left(t, l)
	}
	check(t, cmd.Process.Kill())
	_ = cmd.Wait()
	check(t, readErr)
	if before != len(l.Programs)+len(l.Links) || before == 0 {
		t.Errorf("only %d of %d programs and %d links were in the kernel", before, len(l.Programs), len(l.Links))
	}
	awaitNothingLeft(t, l)
}

// Events that find no room are counted: with those that were read they are all.
func TestLostEventsAreCounted(t *testing.T) {
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
	check(t, in(t, a, "ping", "-c1", "-W5", "10.0.0.2")) // the neighbour is known
	tr := open(t, skbtrace.Options{Namespaces: []*netns.NS{a}, Flows: []skbtrace.Flow{flow("udp", "10.0.0.1:0", "10.0.0.2:9")}})
	var sink net.PacketConn
	check(t, b.Do(func() error {
		var err error
		sink, err = net.ListenPacket("udp4", "10.0.0.2:9") // so that no ICMP error comes back
		return err
	}))
	defer sink.Close() //nolint:errcheck // scratch
	var c net.Conn
	check(t, a.Do(func() error {
		var err error
		c, err = net.Dial("udp4", "10.0.0.2:9")
		return err
	}))
	defer c.Close() //nolint:errcheck // scratch
	const packets = 4000
	for range packets {
		_, err := c.Write([]byte("x"))
		check(t, err)
	}
	events, err := tr.Collect(t.Context(), quiet, nil)
	check(t, err)
	// output and postrouting before and behind all tables, queue and xmit.
	if got, want := len(events)+tr.Lost(), 6*packets; got != want || tr.Lost() == 0 {
		t.Errorf("%d events and %d lost, want %d in all", len(events), tr.Lost(), want)
	}
}
