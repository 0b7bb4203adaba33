package udptun

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/testnet"
	"slipway/topology"
)

func TestCloseLeavesNothing(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	for _, impl := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched} {
		t.Run(string(impl), func(t *testing.T) {
			n := &node{ns: testnet.NewNS(t), outer: netip.MustParseAddr("127.0.0.1")}
			cycle := func() {
				tunnel, err := Open(n.ns, n.config(impl), slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- tunnel.Run(ctx) }()
				waitFor(t, "both directions to park", func() bool { return tunnel.Stats().Parks >= 2 })
				if err := tunnel.Run(ctx); !errors.Is(err, errRunning) {
					t.Errorf("second Run: %v", err)
				}
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run after its context ended: %v", err)
				}
				go func() { ended <- tunnel.Run(t.Context()) }()
				waitFor(t, "both directions to park again", func() bool { return tunnel.Stats().Parks >= 4 })
				if err := errors.Join(tunnel.Close(), tunnel.Close()); err != nil {
					t.Error(err)
				}
				if err := <-ended; !errors.Is(err, os.ErrClosed) {
					t.Errorf("Run after Close: %v", err)
				}
			}
			cycle() // opens what the runtime keeps, such as its poller
			fds, goroutines := countFDs(t), runtime.NumGoroutine()
			for range 20 {
				cycle()
			}
			waitFor(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
			if got := countFDs(t); got != fds {
				t.Errorf("%d descriptors open, %d before", got, fds)
			}
		})
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestIdleTunnelSleeps(t *testing.T) {
	a, b := newPair(t, topology.UDPBatched, topology.UDPBatched)
	echo := b.listenPacket(t, addrB.String()+":0")
	go serveEcho(echo)
	echoOnce(t, a.dial(t, "udp4", echo.LocalAddr().String()), []byte("x"))
	calls := func() uint64 {
		s := a.tunnel.Stats()
		return s.Encapsulated.Syscalls + s.Decapsulated.Syscalls
	}
	// Once traffic has ended, the count comes to rest: nothing polls.
	last, since := calls(), time.Now()
	waitFor(t, "300 ms without a system call", func() bool {
		if now := calls(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 300*time.Millisecond
	})
}

func TestDeviceGoesAway(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	n := &node{ns: testnet.NewNS(t), outer: netip.MustParseAddr("127.0.0.1")}
	tunnel, err := Open(n.ns, n.config(topology.UDPBatched), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close() //nolint:errcheck // what counts is Run
	ended := make(chan error, 1)
	go func() { ended <- tunnel.Run(t.Context()) }()
	h := testnet.Handle(t, n.ns)
	link, err := h.LinkByName("flannel0")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.LinkDel(link); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "flannel0") {
			t.Errorf("Run ended with %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("Run goes on without its device")
	}
}

func TestOpenErrors(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN)
	n := &node{ns: testnet.NewNS(t), outer: netip.MustParseAddr("192.0.2.1")}
	if _, err := Open(n.ns, n.config(topology.UDPBatched), slog.Default()); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("bind to a foreign address: %v", err)
	}
	n.outer = netip.MustParseAddr("127.0.0.1")
	tunnel, err := Open(n.ns, n.config(topology.UDPSimple), slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	defer tunnel.Close() //nolint:errcheck // not under test
	if _, err := Open(n.ns, n.config(topology.UDPSimple), slog.Default()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("attach twice: %v", err)
	}
}
