package load

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
)

// filtered adds an iptables rule to the INPUT chain of a place.
func filtered(t testing.TB, p Place, rule ...string) {
	t.Helper()
	testnet.Need(t, testnet.IPTables)
	cmd := run.Cmd{
		NS: p.NS, Name: "iptables-legacy", Args: append([]string{"-w", "-A", "INPUT"}, rule...),
		Env: lockFile(t),
	}
	if _, err := cmd.Output(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// lockFile is an environment in which iptables shares no lock with others.
func lockFile(t testing.TB) []string {
	return append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
}

// every10th loses each tenth packet of UDP, but not the first, which iperf3
// cannot do without.
var every10th = []string{"-p", "udp", "-m", "statistic", "--mode", "nth", "--every", "10", "--packet", "5", "-j", "DROP"}

func TestUDPStreamAtRate(t *testing.T) {
	client, server := wired(t)
	f := measure(t, Job{Workload: UDPStream, Client: client, Server: server, WarmUp: 100 * time.Millisecond, Duration: 500 * time.Millisecond, Rate: 20e6})
	// A busy machine does not always let it send in time, and then it catches up.
	near(t, f, Offered, 20e6, 0.3)
	near(t, f, Throughput, f[Offered], 0.1)
	near(t, f, Offered, f[PacketsSent]*8*(1500-28), 0.001) // the largest datagrams that need no fragments
	if f[Loss] != 0 || f[Reordered] != 0 || f[Duplicates] != 0 || f[ReceiverDrops] != 0 {
		t.Errorf("over a bare wire: %v", f)
	}
	if f[Jitter] <= 0 || f[Jitter] > 0.5 {
		t.Errorf("jitter is %v s", f[Jitter])
	}
}

func TestUDPStreamLosesWhatIsDropped(t *testing.T) {
	client, server := wired(t)
	filtered(t, server, every10th...)
	f := measure(t, Job{Workload: UDPStream, Client: client, Server: server, Duration: 500 * time.Millisecond, Rate: 20e6, Size: 1000})
	near(t, f, Loss, 0.1, 0.05)
	near(t, f, PacketRate, 0.9*f[PacketsSent], 0.05)
	if f[ReceiverDrops] != 0 {
		t.Errorf("the rule's drops are said to be the receiver's: %v", f[ReceiverDrops])
	}
}

// Twice what the wire takes: half of it arrives.
func TestUDPStreamOverLimitedWire(t *testing.T) {
	client, server := wired(t)
	const wire, size = 1_000_000, 986 // bytes a second; a payload that makes frames of 1028
	limit(t, client, wire, 32<<10)    // less than the sender's socket holds, which would slow it down
	f := measure(t, Job{Workload: UDPStream, Client: client, Server: server, WarmUp: 200 * time.Millisecond, Duration: time.Second, Rate: 2 * wire * 8, Size: size})
	// A busy machine may leave the wire unused for a while, but it carries no more.
	most := wire * 8.0 * size / (size + 42)
	if f[Throughput] > 1.1*most || f[Throughput] < most/4 {
		t.Errorf("%v bit/s arrived over a wire for %v", f[Throughput], most)
	}
	near(t, f, Loss, 1-f[PacketRate]/f[PacketsSent], 0.05)
	if f[Loss] < 1-1.1*most/f[Offered] {
		t.Errorf("of %v bit/s %v was lost over a wire for %v", f[Offered], f[Loss], most)
	}
}

func TestUDPPackets(t *testing.T) {
	client, server := wired(t)
	_, before := received(t, server)
	f := measure(t, Job{Workload: UDPPackets, Client: client, Server: server, Duration: 300 * time.Millisecond})
	_, after := received(t, server)
	// Each datagram is a packet of its own: none are put together for the device.
	near(t, f, PacketsSent, (after-before)/0.3, 0.05)
	if f[PacketRate] > f[PacketsSent]*1.01 || f[Loss] < 0 || f[Loss] >= 1 {
		t.Errorf("%v", f)
	}
}

// Sending and receiving thousands of datagrams allocates nothing for each.
func TestDatagramsAllocateNothing(t *testing.T) {
	client, server := wired(t)
	j := Job{Client: client, Server: server, Workload: UDPPackets}
	in, port, err := listen(j, unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	out, err := dial(t.Context(), j, unix.SOCK_DGRAM, j.target(port))
	if err != nil {
		t.Fatal(err)
	}
	defer out.close()
	d := &datagrams{size: 100, w: window{time.Now(), time.Now(), time.Now().Add(time.Hour)}}
	send, receive := newBatch(100, false), newBatch(100, false)
	number := int64(0)
	each := testing.AllocsPerRun(100, func() {
		for i := range batchSize {
			stamp(send.payload(i), d.run, number, time.Since(d.w.start))
			number++
		}
		if err := sendAll(context.Background(), send, out, batchSize); err != nil {
			t.Fatal(err)
		}
		for got := 0; got < batchSize; {
			n, err := receive.receive(in)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				d.arrive(receive.received(i), d, time.Now())
			}
			got += n
		}
	})
	if each != 0 || d.got != number || d.reordered != 0 || d.duplicates != 0 {
		t.Errorf("%v allocations for %d datagrams; %d of %d arrived, %d reordered, %d twice", each, batchSize, d.got, number, d.reordered, d.duplicates)
	}
}

// arrivalsOf plays datagrams with numbers, sent a millisecond apart and each so
// many milliseconds under way.
func arrivalsOf(numbers []int64, ways []float64) arrivals {
	start := time.Now()
	d := &datagrams{run: 7, w: window{start, start, start.Add(time.Hour)}}
	b := make([]byte, stampSize)
	for i, n := range numbers {
		sent := time.Duration(n) * time.Millisecond
		stamp(b, d.run, n, sent)
		d.arrive(b, d, start.Add(sent+time.Duration(ways[i]*float64(time.Millisecond))))
	}
	return d.arrivals
}

func TestJitterOfRFC3550(t *testing.T) {
	// Transit 5, 5, 21, 5 ms: |D| = 0, 16, 16; J = 0, 16/16 = 1, 1 + (16−1)/16.
	a := arrivalsOf([]int64{0, 1, 2, 3}, []float64{5, 5, 21, 5})
	if got, want := time.Duration(a.jitter), 1937500*time.Nanosecond; got != want {
		t.Errorf("jitter %v, want %v", got, want)
	}
}

func TestReorderingOfRFC4737(t *testing.T) {
	same := make([]float64, 16)
	// 2 comes after 4: it alone is late; 5 comes twice.
	a := arrivalsOf([]int64{0, 1, 3, 4, 2, 5, 5, 6}, same)
	if a.reordered != 1 || a.duplicates != 1 || a.got != 7 {
		t.Errorf("%d reordered, %d twice, %d in all; want 1, 1, 7", a.reordered, a.duplicates, a.got)
	}
	// Numbers far apart: the memory of old ones is wiped as new ones enter.
	a = arrivalsOf([]int64{3, 3 + memory, 3 + memory, 3 + 5*memory}, same)
	if a.reordered != 0 || a.duplicates != 1 || a.got != 3 {
		t.Errorf("%d reordered, %d twice, %d in all; want 0, 1, 3", a.reordered, a.duplicates, a.got)
	}
}

// The memory agrees with a set of all numbers, whatever their order.
func TestDuplicatesAgainstSet(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var a arrivals
	set := map[int64]bool{}
	for base := int64(0); base < 3*memory; base += random.Int64N(40) {
		n := base + random.Int64N(1000)
		if got := a.again(n); got != set[n] {
			t.Fatalf("number %d had come: %v, want %v", n, got, set[n])
		}
		set[n], a.next = true, max(a.next, n+1)
	}
}

func TestStampsOfOtherRuns(t *testing.T) {
	b := make([]byte, stampSize)
	stamp(b, 9, 12345, 678)
	if n, sent, ok := stamped(b, 9); !ok || n != 12345 || sent != 678 {
		t.Errorf("read back %d %v %v", n, sent, ok)
	}
	if _, _, ok := stamped(b, 10); ok {
		t.Error("a datagram of another run is taken for one's own")
	}
	if _, _, ok := stamped(b[:stampSize-1], 9); ok {
		t.Error("a short datagram is taken for a stamp")
	}
}
