package bgp_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

func writeSysctl(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
}

// What the sessions carry is BGP to others too: OPEN, an UPDATE with the block
// and its next hop, End-of-RIB, and a Cease NOTIFICATION at the end.
func TestSessionDecodesInTShark(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root, testnet.TShark)
	nodes := mesh(t, 2)
	file := filepath.Join(t.TempDir(), "bgp.pcap")
	capture := spawn(t, nodes[0].ns, "tshark", "-q", "-i", "eth0", "-f", "tcp port 179", "-w", file)
	capture.waitFor("Capture started")
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.wait("session", synced(1, 1))
	}
	nodes[1].stop()
	eventually(t, "capture of the end", func() (bool, string) {
		got := decode(t, file, "bgp.notify.major_error == 6")
		return len(got) > 0, "no Cease in the capture yet"
	})
	capture.interrupt()

	opens := decode(t, file, "bgp.type == 1", "ip.src", "bgp.open.myas", "bgp.open.holdtime", "bgp.open.identifier")
	slices.Sort(opens)
	want := []string{"192.0.2.1 64512 90 192.0.2.1", "192.0.2.2 64512 90 192.0.2.2"}
	if diff := cmp.Diff(want, opens); diff != "" {
		t.Errorf("OPEN messages (-want +got):\n%s", diff)
	}
	updates := decode(t, file, "bgp.nlri_prefix", "ip.src", "bgp.nlri_prefix", "bgp.update.path_attribute.next_hop")
	slices.Sort(updates)
	want = []string{"192.0.2.1 10.65.1.0 192.0.2.1", "192.0.2.2 10.65.2.0 192.0.2.2"}
	if diff := cmp.Diff(want, updates); diff != "" {
		t.Errorf("UPDATE messages (-want +got):\n%s", diff)
	}
	if bad := decode(t, file, "_ws.malformed"); len(bad) > 0 {
		t.Errorf("malformed: %v", bad)
	}
}

// decode prints the fields of the packets that match filter, a line each.
func decode(t *testing.T, file, filter string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", file, "-Y", filter, "-T", "fields", "-E", "separator=/s"}
	if len(fields) == 0 {
		fields = []string{"frame.number"}
	}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := exec.Command("tshark", args...).Output() // a cut-off last packet is no failure here
	if err != nil && len(out) == 0 {
		return nil
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// bird 2 as an iBGP peer, with a static block and a kernel protocol, learns our
// block and announces its own.
func TestBirdInterop(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Root, testnet.Bird)
	nodes := mesh(t, 2)
	ours, theirs := nodes[0], nodes[1]
	dir := t.TempDir()
	conf := filepath.Join(dir, "bird.conf")
	must(t, os.WriteFile(conf, fmt.Appendf(nil, birdConf, addr(2), block(2), addr(2), asn, addr(1), asn), 0o644))
	ctl := filepath.Join(dir, "ctl")
	bird := spawn(t, theirs.ns, "bird", "-f", "-c", conf, "-s", ctl, "-P", filepath.Join(dir, "pid"))
	ours.start()
	ours.wait("session with bird", synced(1, 1))
	if diff := cmp.Diff(direct(1, 2), ours.routes()); diff != "" {
		t.Errorf("our routes (-want +got):\n%s", diff)
	}
	both := append(direct(2, 2), "blackhole "+block(2).String())
	theirs.waitRoutes("bird's kernel routes", both...)

	// Our crash is a restart to bird, our shutdown is not.
	ours.kill()
	eventually(t, "bird's loss of the session", func() (bool, string) {
		out, err := exec.Command("birdc", "-s", ctl, "show", "protocols", "slipway").CombinedOutput()
		return err == nil && !strings.Contains(string(out), "Established"), string(out)
	})
	if diff := cmp.Diff(both, theirs.routes()); diff != "" {
		t.Errorf("bird's kernel routes after our crash (-want +got):\n%s", diff)
	}
	ours.start()
	ours.wait("second session with bird", synced(1, 1))
	theirs.waitRoutes("bird's kernel routes after our restart", both...)
	ours.stop()
	theirs.waitRoutes("bird's kernel routes after our shutdown", "blackhole "+block(2).String())
	bird.interrupt()
}

const birdConf = `router id %s;
protocol device {}
protocol direct { ipv4; } # what next hops are resolved through
protocol kernel { ipv4 { export where source != RTS_DEVICE; }; }
protocol static { ipv4; route %s blackhole; }
protocol bgp slipway {
	local %s as %d;
	neighbor %s as %d;
	connect delay time 1;
	connect retry time 1;
	error wait time 1, 2;
	graceful restart on;
	ipv4 { import all; export where source = RTS_STATIC; next hop self; };
}
`

// spawned is a program that runs in a namespace until the test ends.
type spawned struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *testnet.Buffer
	done chan struct{}
}

func spawn(t *testing.T, ns *netns.NS, name string, args ...string) *spawned {
	t.Helper()
	s := &spawned{t: t, cmd: exec.Command(name, args...), said: &testnet.Buffer{}, done: make(chan struct{})}
	s.cmd.Stdout, s.cmd.Stderr = s.said, s.said
	must(t, ns.Do(s.cmd.Start))
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("%s: %s", name, s.said)
		}
	})
	return s
}

func (s *spawned) waitFor(text string) {
	s.t.Helper()
	eventually(s.t, s.cmd.Path, func() (bool, string) {
		return strings.Contains(s.said.String(), text), s.said.String()
	})
}

func (s *spawned) interrupt() {
	s.t.Helper()
	must(s.t, s.cmd.Process.Signal(syscall.SIGINT))
	<-s.done
}
