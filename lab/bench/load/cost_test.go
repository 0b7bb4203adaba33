package load

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/datapath/skbtrace"
)

func TestCostOfRequests(t *testing.T) {
	client, server := wired(t)
	w := Watch{
		Spaces:    []Place{client, server},
		Devices:   []Device{{client.NS, "eth0", "client/eth0"}, {server.NS, "eth0", "server/eth0"}},
		Processes: []int{os.Getpid()},
	}
	before, err := w.Read()
	if err != nil {
		t.Fatal(err)
	}
	f := measure(t, Job{Workload: UDPRequests, Client: client, Server: server, Duration: 300 * time.Millisecond})
	after, err := w.Read()
	if err != nil {
		t.Fatal(err)
	}
	c := after.Since(before)
	// The namespaces are the test's alone: their counters are the requests'.
	near(t, Figures{"in": float64(c.Protocols["server"]["Udp.InDatagrams"])}, "in", f[Rate]*0.3, 0.1)
	if c.Protocols["client"]["Udp.OutDatagrams"] != c.Protocols["server"]["Udp.InDatagrams"] {
		t.Errorf("%v", c.Protocols)
	}
	// This process did the work, for most of the time; the machine at least that.
	// What a hypervisor steals while it runs may count as the process's.
	own := c.Processes[os.Getpid()]
	if c.Took < 300*time.Millisecond || own == 0 || c.CPU < own/2 || c.SoftIRQ > c.CPU || c.ContextSwitches == 0 {
		t.Errorf("%+v", c)
	}
	g := c.Figures(0, 1000)
	if g[DaemonCPUPerRequest] != own.Seconds()/1000 || g[CPUPerRequest] != c.CPU.Seconds()/1000 {
		t.Errorf("%v", g)
	}
	if _, there := g[CPUPerGB]; there {
		t.Error("nothing was carried and costs something")
	}
	for name := range c.Figures(1, 1) {
		if _, ok := Means(name); !ok {
			t.Errorf("nobody says what %q means", name)
		}
	}
}

func TestCostIsTheDifference(t *testing.T) {
	at := time.Now()
	before := Counts{at: at, machine: machineCounts{1, 10 * tick, 3 * tick, 100}, drops: map[string]int64{"a": 5, "b": 1}, conntrack: map[string]int64{"a": 9},
		protocols: map[string]map[string]int64{"a": {"Tcp.RetransSegs": 4, "Tcp.InSegs": 7}}}
	after := Counts{at: at.Add(time.Second), machine: machineCounts{1, 90 * tick, 4 * tick, 150}, drops: map[string]int64{"a": 8, "b": 1}, conntrack: map[string]int64{"a": 7},
		protocols: map[string]map[string]int64{"a": {"Tcp.RetransSegs": 6, "Tcp.InSegs": 7}}}
	want := Cost{
		Took: time.Second, CPU: 20 * tick, SoftIRQ: tick, ContextSwitches: 50, Processes: map[int]time.Duration{},
		Protocols: map[string]map[string]int64{"a": {"Tcp.RetransSegs": 2}}, Drops: map[string]int64{"a": 3}, Conntrack: map[string]int64{"a": -2},
	}
	got := after.Since(before)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	f := got.Figures(2e9, 0) // 0.2 s for two gigabytes
	if f[CPUPerGB] != 0.1 || f[SwitchesPerGB] != 25 || f[DeviceDrops] != 3 || f[ConntrackEntries] != -2 {
		t.Errorf("%v", f)
	}
}

// What a rule drops is counted with the kernel's reason, in its namespace, and is
// what the receiver misses; without the kernel's reasons its counters tell.
func TestDropsByReason(t *testing.T) {
	client, server := wired(t)
	counted, err := skbtrace.CountDrops()
	if err != nil {
		t.Fatal(err)
	}
	defer counted.Close() //nolint:errcheck // the test is over
	w := Watch{Spaces: []Place{client, server}, Reasons: counted}
	filtered(t, server, every10th...)
	before, err := w.Read()
	if err != nil {
		t.Fatal(err)
	}
	f := measure(t, Job{Workload: UDPRequests, Client: client, Server: server, Duration: 500 * time.Millisecond, Rate: 1000})
	after, err := w.Read()
	if err != nil {
		t.Fatal(err)
	}
	c := after.Since(before)
	got := c.Figures(0, 0)
	near(t, got, "drops:NETFILTER_DROP", f[Loss]*500, 0.1)
	if there := c.DropsByReason["client"]["NETFILTER_DROP"]; there != 0 || got[Dropped] < got["drops:NETFILTER_DROP"] {
		t.Errorf("%v", c.DropsByReason)
	}
	for name := range got {
		if _, ok := Means(name); !ok {
			t.Errorf("nobody says what %q means", name)
		}
	}
	c = Cost{Protocols: map[string]map[string]int64{"a": {"Udp.RcvbufErrors": 4, "Udp.InDatagrams": 9}, "b": {"Udp.RcvbufErrors": 1}}}
	if diff := cmp.Diff(map[string]float64{"drops:Udp.RcvbufErrors": 5}, named(c.Figures(0, 0), Dropped)); diff != "" {
		t.Error(diff)
	}
}

// named are the figures whose names begin so.
func named(f Figures, prefix string) map[string]float64 {
	out := map[string]float64{}
	for name, v := range f {
		if strings.HasPrefix(name, prefix) {
			out[name] = v
		}
	}
	return out
}

func TestWatchOfWhatIsNotThere(t *testing.T) {
	client, _ := wired(t)
	if _, err := (Watch{Devices: []Device{{client.NS, "eth9", "client/eth9"}}}).Read(); err == nil {
		t.Error("a device that is not there was read")
	}
	if _, err := (Watch{Processes: []int{maxProcess - 1}}).Read(); err == nil {
		t.Error("a process that is not there was read")
	}
}

func TestNatureOfDevice(t *testing.T) {
	client, server := wired(t)
	got, err := Device{client.NS, "eth0", "client/eth0"}.Nature()
	if err != nil {
		t.Fatal(err)
	}
	// What a veth pair has on by default, and GRO off (drivers/net/veth.c).
	if diff := cmp.Diff(Nature{1500, "rx tx sg tso gso uso"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := (Device{server.NS, "eth9", "server/eth9"}).Nature(); err == nil {
		t.Error("a device that is not there has a nature")
	}
}

func TestParseMachine(t *testing.T) {
	m, err := parseMachine("cpu  100 20 300 4000 50 6 70 8 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\ncpu1 1 1 1 1 1 1 1 1 0 0\nintr 5\nctxt 12345\n")
	// Not in use: idle 4000, iowait 50, steal 8.
	if err != nil || m != (machineCounts{2, 40580 * time.Millisecond, 700 * time.Millisecond, 12345}) {
		t.Errorf("%+v, %v", m, err)
	}
	for _, bad := range []string{"", "cpu 1 2", "cpu 1 2 3 x 5 6 7 8\nctxt 1", "cpu 1 2 3 4 5 6 x 8\nctxt 1\n", "cpu 1 2 3 4 5 6 7 8\n", "cpu 1 2 3 4 5 6 7\nctxt 1\n"} {
		if m, err := parseMachine(bad); err == nil {
			t.Errorf("%q gave %+v", bad, m)
		}
	}
}

// A process's time is what getrusage(2), which counts in microseconds, says of it
// before and after.
func TestProcessCPU(t *testing.T) {
	used := func() time.Duration {
		var r unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	for range 100 {
		before := used()
		got, err := processCPU(os.Getpid())
		if after := used(); err != nil || got < before-2*time.Microsecond || got > after+2*time.Microsecond {
			t.Fatalf("%v, %v, between %v and %v", got, err, before, after)
		}
	}
}

func TestParseProtocols(t *testing.T) {
	got := map[string]int64{}
	err := parseProtocols("Tcp: RtoMin MaxConn RetransSegs\nTcp: 200 -1 7\nUdp: InErrors\nUdp: 3\n", got)
	if diff := cmp.Diff(map[string]int64{"Tcp.RetransSegs": 7, "Udp.InErrors": 3}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"Tcp: A B\nTcp: 1\n", "Tcp: A\nUdp: 1\n", "Tcp: A\nTcp: x\n"} {
		if err := parseProtocols(bad, map[string]int64{}); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
