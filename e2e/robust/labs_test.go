package robust

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/netns"
	"slipway/topology"
)

// Labs with the very same addresses stand side by side; each one's service is
// answered by its own pods, and taking one down leaves the others whole.
func TestLabsSideBySide(t *testing.T) {
	w := newWorld(t)
	names := []string{labName(), labName(), labName()}
	modes := []string{"flannel-vxlan", "calico-ipip", "flannel-udp"}
	for i, n := range names {
		w.up(n, modes[i])
	}
	first, last := decode[snapshot](t, w.must("inspect", names[0], "-o", "json")), decode[snapshot](t, w.must("inspect", names[2], "-o", "json"))
	if d := cmp.Diff(addresses(first), addresses(last)); d != "" {
		t.Fatalf("the labs were to have the same addresses (-first +last)\n%s", d)
	}
	for _, n := range names {
		w.works(n)
	}
	// Connections of one lab do not get into another.
	const more = 5
	here, there := accepted(t, w, names[0]), accepted(t, w, names[2])
	for range more {
		w.works(names[0])
	}
	if got := accepted(t, w, names[0]); got != here+more {
		t.Errorf("the busy lab's servers accepted %d connections, want %d", got-here, more)
	}
	if got := accepted(t, w, names[2]); got != there {
		t.Errorf("the idle lab's servers accepted %d connections", got-there)
	}
	w.must("down", names[1])
	w.wantGone(names[1])
	w.works(names[0])
	w.works(names[2])
	if s := w.run("get", "pods"); s.Code != 2 || !strings.Contains(s.Err, names[0]) || !strings.Contains(s.Err, "-L") {
		t.Errorf("%s\nwant exit code 2, the labs' names and -L", s)
	}
}

// snapshot is what the tests read of `inspect -o json`.
type snapshot struct {
	Complete bool
	Snapshot topology.Snapshot
}

func addresses(s snapshot) map[string]string {
	out := map[string]string{}
	for _, n := range s.Snapshot.Nodes {
		out[n.Name] = n.Address.String()
	}
	for _, v := range s.Snapshot.Services {
		out[v.Key()] = v.ClusterIP.String()
	}
	return out
}

// accepted is how many TCP connections the nginx pods of a lab have accepted
// (proc_net_snmp: Tcp PassiveOpens, RFC 1213 tcpPassiveOpens).
func accepted(t *testing.T, w *world, name string) int {
	t.Helper()
	sum := 0
	for _, p := range decode[snapshot](t, w.must("inspect", name, "-o", "json")).Snapshot.Pods {
		if !strings.HasPrefix(p.Name, "nginx-") {
			continue
		}
		for line := range strings.Lines(w.must("exec", "-L", name, p.Key(), "--", "cat", "/proc/net/snmp")) {
			if f := strings.Fields(line); f[0] == "Tcp:" && f[6] != "PassiveOpens" {
				n, err := strconv.Atoi(f[6])
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}

// A lab whose name begins with another's is not taken down with it, and their
// namespaces' names do not meet.
func TestNameIsPrefixOfAnother(t *testing.T) {
	w := newWorld(t)
	short := labName()
	long := short + "-b"
	w.up(short, "flannel-vxlan")
	w.up(long, "flannel-host-gw")
	w.must("down", short)
	w.works(long)
	w.up(short, "calico-ipip")
	w.must("down", long)
	w.wantGone(long)
	w.works(short)
}

// A namespace that is in the way is named, left alone, and nothing of the new
// lab stays.
func TestForeignNamespaceInTheWay(t *testing.T) {
	w := newWorld(t)
	name := labName()
	foreign := newStranger(t, "slipway-"+name+"-external")
	s := w.run(w.upArgs(name, "flannel-vxlan")...)
	if s.Code == 0 || !strings.Contains(s.Err, foreign.ns.Name()) || !strings.Contains(s.Err, "left alone") {
		t.Errorf("%s\nwant a failure that names the namespace", s)
	}
	w.wantNothingLeft(name, foreign)
}

// A directory that is not a lab's is no lab, whatever its name, and nothing in
// it is touched.
func TestForeignDirectory(t *testing.T) {
	w := newWorld(t)
	name := labName()
	file := filepath.Join(w.state, name, "precious")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(w.state) })
	if s := w.run("down", "--all"); s.Code != 0 {
		t.Error(s)
	}
	if s := w.run("down", name); s.Code == 0 {
		t.Error(s)
	}
	if s := w.run(w.upArgs(name, "flannel-vxlan")...); s.Code == 0 || !strings.Contains(s.Err, "is not a lab's") {
		t.Error(s)
	}
	for _, bad := range []string{"..", ".", "../" + filepath.Base(w.state), name + "/.", "/etc"} {
		if s := w.run("down", bad); s.Code != 2 {
			t.Errorf("%s\nwant exit code 2", s)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

// On a machine where nobody has made a namespace yet, the first lab makes the
// directory of names, and the last one takes it away again. A private mount
// namespace with an empty /run stands for that machine.
func TestFirstNamespaceOnTheMachine(t *testing.T) {
	w := newWorld(t)
	script := `set -ex
mount -t tmpfs none /run
"$0" up -L "$1" -f ../../examples/minimal.yaml >/dev/null
test -e /run/netns/slipway-$1-fabric
"$0" up -L "$2" -f ../../examples/minimal.yaml >/dev/null
"$0" down "$1" >/dev/null
test -e /run/netns/slipway-$2-fabric
(timeout -s KILL 0.05 "$0" down "$2" || true) >/dev/null 2>&1
"$0" down --all >/dev/null
find /run -mindepth 1
`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, binary, labName(), labName())
	cmd.Env = append(os.Environ(), "SLIPWAY_STATE_DIR="+w.state)
	var left, trace bytes.Buffer
	cmd.Stdout, cmd.Stderr = &left, &trace
	if err := cmd.Run(); err != nil || left.Len() > 0 {
		t.Errorf("%v, left:\n%s\nthe script's way:\n%s", err, &left, &trace)
	}
}

// together runs commands at the same time.
func together(w *world, commands ...[]string) []said {
	out := make([]said, len(commands))
	var wg sync.WaitGroup
	for i, c := range commands {
		wg.Go(func() { out[i] = w.run(c...) })
	}
	wg.Wait()
	return out
}

// Two `up` of the same lab at once: one creates it, the other waits and finds
// nothing to change.
func TestTwoUpAtOnce(t *testing.T) {
	w := newWorld(t)
	for range 3 {
		name := labName()
		up := w.upArgs(name, "flannel-vxlan", "-o", "json")
		created := 0
		for _, s := range together(w, up, up, up) {
			if s.Code != 0 {
				t.Fatalf("%s\nwant exit code 0", s)
			}
			if r := decode[result](t, s.Out); r.Created {
				created++
			} else if len(r.Changes) != 0 {
				t.Errorf("the later one changed %v", r.Changes)
			}
		}
		if created != 1 {
			t.Errorf("%d of them created the lab", created)
		}
		w.works(name)
		w.must("down", name)
		w.wantNothingLeft(name)
	}
}

// `up` and `down` of one lab at once, and several `down`: whoever comes last
// has its way, nobody fails for a reason that is not true, nothing is left.
func TestUpDuringDown(t *testing.T) {
	w := newWorld(t)
	for round := range 6 {
		name := labName()
		w.up(name, "flannel-vxlan")
		for _, s := range together(w, []string{"down", name}, w.upArgs(name, "flannel-vxlan"), []string{"down", name}, []string{"status", "-L", name}, []string{"mode", "-L", name, "flannel-host-gw"}) {
			none := s.Code == 2 && strings.Contains(s.Err, "no such lab")
			drift := s.Code == 1 && strings.Contains(s.Argv, "status") // of a lab that was half there
			partial := s.Code == 5 && strings.Contains(s.Err, "only partly up")
			if s.Code != 0 && !none && !drift && !partial || strings.Contains(s.Err, "panic") {
				t.Errorf("round %d: %s", round, s)
			}
		}
		w.up(name, "flannel-vxlan")
		w.works(name)
		w.must("down", name)
		w.wantNothingLeft(name)
		if t.Failed() {
			break
		}
	}
}

// Labs that come and go beside each other share the machine's directory of
// namespace names and the state directory.
func TestLabsComeAndGoTogether(t *testing.T) {
	w := newWorld(t)
	names := []string{labName(), labName(), labName()}
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() {
			for range 4 {
				for _, s := range []said{w.run(w.upArgs(n, "flannel-host-gw")...), w.run("down", n)} {
					if s.Code != 0 {
						t.Errorf("%s\nwant exit code 0", s)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, n := range names {
		w.wantNothingLeft(n)
	}
}

// wantGone is wantNothingLeft for a lab that is not the last one.
func (w *world) wantGone(name string) {
	w.t.Helper()
	if left, err := netns.Names("slipway-" + name + "-"); err != nil || len(left) > 0 {
		w.t.Errorf("namespaces left: %v (%v)", left, err)
	}
	if _, err := os.Stat(filepath.Join(w.state, name)); err == nil {
		w.t.Errorf("the directory of lab %s is left", name)
	}
}
