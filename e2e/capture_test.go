package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
	labcapture "slipway/lab/capture"
)

// TestCapture captures in a lab as a user does.
func TestCapture(t *testing.T) {
	l := up(t, "capture", proxySpec, proxyObjects)
	for _, c := range []struct {
		name string
		fn   func(*testing.T, *testLab)
	}{
		{"everywhere", captureEverywhere},
		{"filters and devices", captureFilters},
		{"a pipe", capturePipe},
		{"load", captureLoad},
		{"lines", captureLines},
		{"mistakes", captureMistakes},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer l.in(t)()
			c.fn(t, l)
		})
	}
}

// recording is a capture that runs.
type recording struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  io.ReadCloser
	errs *bufio.Reader
	said strings.Builder // on stderr
}

// record starts a capture and waits until it listens.
func record(t testing.TB, l *testLab, args ...string) *recording {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	t.Cleanup(cancel)
	r := &recording{t: t, cmd: exec.CommandContext(ctx, binary, append([]string{"capture", "-L", l.name}, args...)...)}
	var err error
	if r.out, err = r.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	errs, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.errs = bufio.NewReader(errs)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := r.errs.ReadString('\n')
	if err != nil || !strings.Contains(line, "listening at") {
		t.Fatalf("%v: stderr begins with %q (%v)", r.cmd.Args, line, err)
	}
	return r
}

// stop ends a capture as Ctrl-C does, and returns what it printed.
func (r *recording) stop() string {
	r.t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		r.t.Fatal(err)
	}
	return r.wait()
}

func (r *recording) wait() string {
	r.t.Helper()
	out, err := io.ReadAll(r.out)
	if errors.Is(err, os.ErrClosed) { // given to somebody else
		err = nil
	}
	if _, e := io.Copy(&r.said, r.errs); err == nil {
		err = e
	}
	if e := r.cmd.Wait(); err == nil {
		err = e
	}
	if err != nil {
		r.t.Fatalf("%v: %v, want exit code 0\nstderr: %s", r.cmd.Args, err, r.said.String())
	}
	return string(out)
}

// summary records, does something, and returns what the capture says of it.
func summary(t *testing.T, l *testLab, fn func(), args ...string) labcapture.Summary {
	t.Helper()
	r := record(t, l, append(args, "-o", "json")...)
	fn()
	var s labcapture.Summary
	if err := json.Unmarshal([]byte(r.stop()), &s); err != nil {
		t.Fatal(err)
	}
	if s.Ended != labcapture.Interrupted || s.Dropped > 0 {
		t.Errorf("ended: %s; %d dropped", s.Ended, s.Dropped)
	}
	return s
}

// packets are how many were taken, by "place/device".
func packets(s labcapture.Summary) map[string]int {
	out := map[string]int{}
	for _, p := range s.Places {
		for _, d := range p.Devices {
			if d.Packets > 0 {
				out[p.Place+"/"+d.Device] = d.Packets
			}
		}
	}
	return out
}

// captureEverywhere: one ping between nodes, in all places at once. tshark finds
// it in each device that it must pass, in the order of the way, and inside VXLAN
// on the wire.
func captureEverywhere(t *testing.T, l *testLab) {
	testnet.Need(t, testnet.TShark)
	file := filepath.Join(t.TempDir(), "all.pcapng")
	from, to := l.at("client"), l.at("far-b")
	s := summary(t, l, func() {
		if _, err := from.ping(to.addr); err != nil {
			t.Error(err)
		}
	}, "--all", "-w", file)
	if len(s.Places) < 9 { // three nodes, external, fabric, four pods and the cluster's DNS
		t.Errorf("%d places: %+v", len(s.Places), s.Places)
	}
	var way []string
	for _, line := range tshark(t, file, "icmp.type == 8", vxlanWire.decode, "frame.interface_name", "frame.protocols") {
		name, layers, _ := strings.Cut(line, "|")
		place, device, _ := strings.Cut(strings.TrimPrefix(name, "default/"), "/")
		if strings.HasPrefix(device, "veth") {
			device = "veth"
		}
		if strings.Contains(layers, "vxlan") {
			device += " in vxlan"
		}
		way = append(way, place+" "+device)
	}
	want := []string{
		"client eth0", "node01 veth", "node01 cni0", "node01 flannel.1", "node01 eth0 in vxlan",
		"fabric node01-eth0 in vxlan", "fabric node02-eth0 in vxlan",
		"node02 eth0 in vxlan", "node02 flannel.1", "node02 cni0", "node02 veth", "far-b eth0",
	}
	if d := cmp.Diff(want, way); d != "" {
		t.Errorf("the request's way (-want +got)\n%s", d)
	}
}

// captureFilters: the kernel filters, the same on devices with and without a
// frame header, and takes only the devices that were named.
func captureFilters(t *testing.T, l *testLab) {
	from, to := l.at("client"), l.at("far-c")
	traffic := func() {
		if _, err := from.ping(to.addr, "-c", "3", "-i", "0.2"); err != nil {
			t.Error(err)
		}
		if _, err := from.get(l.clusterIP("web")); err != nil {
			t.Error(err)
		}
	}
	s := summary(t, l, traffic, "client", "node01/eth0", "--filter", "icmp[icmptype] == icmp-echo or (udp port 8472 and greater 300)")
	if n := packets(s)["default/client/eth0"]; n != 3 {
		t.Errorf("3 echo requests, %d packets at client/eth0", n)
	}
	if got := packets(s); got["node01/cni0"] != 0 || got["node01/flannel.1"] != 0 {
		t.Errorf("only node01/eth0 was asked for: %v", got)
	}
	s = summary(t, l, traffic, "node*/flannel.*", "--filter", "icmp")
	want := map[string]int{"node01/flannel.1": 6, "node02/flannel.1": 6}
	if d := cmp.Diff(want, packets(s)); d != "" {
		t.Errorf("pattern (-want +got)\n%s", d)
	}
	file := filepath.Join(t.TempDir(), "short.pcapng")
	summary(t, l, traffic, "client", "--filter", "tcp", "--snaplen", "60", "-w", file)
	for _, line := range tshark(t, file, "frame", nil, "frame.cap_len", "frame.len") {
		var captured, whole int
		if _, err := fmt.Sscanf(line, "%d|%d", &captured, &whole); err != nil || captured != min(whole, 60) {
			t.Errorf("of %d bytes %d are kept, want 60 at most (%v)", whole, captured, err)
		}
	}
}

// capturePipe: a reader of the pipe has packets while the capture goes on, and
// its end ends the capture, also when nothing comes any more.
func capturePipe(t *testing.T, l *testLab) {
	testnet.Need(t, testnet.TShark)
	r := record(t, l, "client", "-w", "-", "--filter", "icmp")
	reader := exec.Command("tshark", "-n", "-l", "-i", "-", "-c", "2", "-T", "fields", "-e", "frame.interface_name", "-e", "icmp.seq")
	reader.Stdin = r.out
	lines, err := reader.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	_ = r.out.Close() // the reader has it
	if _, err := l.at("client").ping(l.at("far-b").addr); err != nil {
		t.Error(err)
	}
	// The capture goes on: what is read now was written meanwhile.
	in := bufio.NewReader(lines)
	for range 2 {
		line, err := in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "default/client/eth0\t1") {
			t.Fatalf("tshark says %q (%v)", line, err)
		}
	}
	if err := reader.Wait(); err != nil { // it has what it wants
		t.Error(err)
	}
	if r.wait(); !strings.Contains(r.said.String(), "(reader gone)") {
		t.Errorf("stderr %q, want that the reader is gone", r.said.String())
	}
}

// captureLoad: two seconds of small datagrams, as fast as one sender can. What
// is in the file and what is said to be dropped are what was sent.
func captureLoad(t *testing.T, l *testLab) {
	from, to := l.at("client"), l.at("far-b")
	file := filepath.Join(t.TempDir(), "load.pcapng")
	r := record(t, l, "client", "far-b", "-w", file, "-o", "json", "--filter", "udp port 9")
	c, err := from.dial("udp4", netip.AddrPortFrom(to.addr, 9), answerPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // done with it
	sent := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		if _, err := c.Write([]byte("x")); err == nil {
			sent++
		} else if !errors.Is(err, unix.ECONNREFUSED) { // nobody listens there
			t.Fatal(err)
		}
	}
	var s labcapture.Summary
	if err := json.Unmarshal([]byte(r.stop()), &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Places {
		n := p.Dropped
		for _, d := range p.Devices {
			n += d.Packets
		}
		t.Logf("%s: %d packets, %d dropped, of %d sent", p.Place, n-p.Dropped, p.Dropped, sent)
		if p.Place == "default/client" && n != sent {
			t.Errorf("%s: %d taken or dropped, %d were sent", p.Place, n, sent)
		}
	}
	out, err := run.Cmd{Name: "capinfos", Args: []string{"-Mcr", file}}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(out), fmt.Sprint(s.Packets)) {
		t.Errorf("capinfos does not find %d packets:\n%s", s.Packets, out)
	}
}

// captureLines: without -w packets are shown, and -c ends it.
func captureLines(t *testing.T, l *testLab) {
	r := record(t, l, "node01", "-c", "5", "--filter", "icmp or udp port 8472")
	from, to := l.at("client"), l.at("far-b")
	if _, err := from.ping(to.addr); err != nil {
		t.Error(err)
	}
	lines := strings.Split(strings.TrimSpace(r.wait()), "\n")
	echo := fmt.Sprintf("%s → %s ICMP echo request", from.addr, to.addr)
	if len(lines) != 5 || !slices.ContainsFunc(lines, func(s string) bool {
		return strings.Contains(s, "/eth0 out VXLAN vni 1 ") && strings.Contains(s, "["+echo)
	}) ||
		!strings.Contains(lines[1], "node01/cni0 in "+echo) {
		t.Errorf("lines:\n%s", strings.Join(lines, "\n"))
	}
	if !strings.Contains(r.said.String(), "5 packets in ") || !strings.Contains(r.said.String(), "(count), none dropped") {
		t.Errorf("stderr %q", r.said.String())
	}
}

func captureMistakes(t *testing.T, l *testLab) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "say which places"},
		{[]string{"nobody"}, `no node or pod "nobody"`},
		{[]string{"client/eth7"}, `default/client has no device "eth7", only lo, eth0`},
		{[]string{"node*/eth7"}, `has no device "eth7"`},
		{[]string{"web?"}, `no node or pod "web?"`},
		{[]string{"client", "--filter", "tcp prot 80"}, `filter "tcp prot 80": syntax error`},
		{[]string{"client", "--filter", "ip and arp"}, `filter "ip and arp": no packet can match`},
		{[]string{"client", "--filter", "host client"}, "unknown host 'client'"},
		{[]string{"client", "--all"}, "--all is every place"},
		{[]string{"client", "--print", "-w", "-"}, "cannot both have stdout"},
		{[]string{"client", "-c", "-1"}, "not negative"},
		{[]string{"client", "-w", "/nowhere/x.pcapng"}, "no such file"},
	} {
		s := slipway(t, append([]string{"capture", "-L", l.name}, c.args...)...)
		if s.Code != 2 || !strings.Contains(s.Err, c.want) {
			t.Errorf("%s: exit code %d, want 2; stderr %q, want %q", s.Argv, s.Code, s.Err, c.want)
		}
	}
}
