package installer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/internal/testnet"
)

// sandbox is a host of its own on this machine: a mount namespace whose /etc,
// /var/lib and /opt nobody else sees.
type sandbox struct {
	name  string
	pid   int
	store string // what is mounted at StoreDir
}

func newSandbox(t *testing.T, name string) *sandbox {
	t.Helper()
	testnet.Need(t, testnet.Root)
	store := t.TempDir()
	script := fmt.Sprintf(`set -e
mount --make-rprivate /
users=$(cat /etc/passwd) groups=$(cat /etc/group)
for d in /etc /var/lib /opt; do mount -t tmpfs tmpfs $d; done
printf '%%s\n' "$users" >/etc/passwd
printf '%%s\n' "$groups" >/etc/group
mkdir -p %[1]s
mount --bind %[2]s %[1]s
echo ready
exec sleep 600`, StoreDir, store)
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ready := make([]byte, 6)
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
	return &sandbox{name, cmd.Process.Pid, store}
}

func (s *sandbox) Name() string { return s.name }

func (s *sandbox) Run(ctx context.Context, c Command) (Result, error) {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", fmt.Sprint(s.pid), "-m", "--"}, c.Argv...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &out, &errs
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		err = nil
	}
	return Result{cmd.ProcessState.ExitCode(), out.Bytes(), errs.Bytes()}, err
}

func (s *sandbox) Store(_ context.Context, b Blob) error {
	data, err := os.ReadFile(b.Path)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.store, b.Sum), data, 0o755)
}

func (s *sandbox) sh(t *testing.T, script string) string {
	t.Helper()
	r, err := s.Run(t.Context(), Command{Argv: []string{"sh", "-c", script}})
	if err != nil || r.Code != 0 {
		t.Fatalf("%s: %v, exit code %d: %s", script, err, r.Code, r.Stderr)
	}
	return string(r.Stdout)
}

func blob(t *testing.T, text string) Blob {
	t.Helper()
	path := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return Blob{Sum: sum([]byte(text)), Size: int64(len(text)), Path: path}
}

func planOf(host string, items ...Item) Plan {
	return Plan{Phases: []Phase{{ID: "01-base", Steps: []Step{{Name: "test", Work: []Work{{host, items}}}}}}}
}

// apply returns what was changed.
func apply(t *testing.T, h Host, p Plan) (changed []string, err error) {
	t.Helper()
	e := &Engine{Hosts: map[string]Host{h.Name(): h}, Tell: func(ev Event) {
		if ev.Changed {
			changed = append(changed, ev.Item)
		}
	}}
	return changed, e.Apply(t.Context(), p)
}

func TestApplyChangesWhatDiffersAndUndoTakesItBack(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, `umask 022; printf 'before\n' >/etc/old; chmod 640 /etc/old; chown daemon:daemon /etc/old; printf 'theirs\n' >/etc/old2
		mkdir -m 711 /etc/olddir; ln -s /nowhere /etc/oldlink; mkdir -p /usr/local/bin`)
	state := `cd /; find etc opt var/lib -mindepth 1 -not -path opt/slipway/store/\* | sort | while read f; do echo "$f $(stat -c '%A %U %G' $f) $(readlink $f) $(cat $f 2>/dev/null)"; done`
	before := h.sh(t, state)
	items := []Item{
		Directory{Path: "/etc/kubernetes/pki", Mode: 0o700},
		Directory{Path: "/etc/olddir", Mode: 0o755},
		Directory{Path: "/var/lib/etcd", Mode: 0o700, Data: true},
		File{Path: "/etc/kubernetes/it's a file", Mode: 0o600, Content: []byte("a 'quoted' $HOME\nline without end"), Secret: true},
		File{Path: "/etc/old", Mode: 0o644, Content: []byte("after\n")},
		File{Path: "/etc/empty", Mode: 0o644},
		Block{Path: "/etc/old2", Name: "ours", Content: "one\ntwo\n"},
		Program{Path: "/opt/bin/tool", Blob: blob(t, "#!/bin/sh\necho hello\n")},
		Program{Path: "/etc/oldlink", Blob: blob(t, "#!/bin/sh\necho hello\n")},
		Action{Name: "mark", Check: "test -e /var/lib/mark", Do: "touch /var/lib/mark", Back: "rm /var/lib/mark"},
		Wait{Name: "the tool answers", Check: `test "$(/opt/bin/tool)" = hello`, Until: 5 * time.Second},
	}
	changed, err := apply(t, h, planOf("node01", items...))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, it := range items {
		if _, wait := it.(Wait); !wait { // what comes about by itself is no change
			all = append(all, it.ID())
		}
	}
	if diff := cmp.Diff(all, changed); diff != "" {
		t.Error(diff)
	}
	if got := h.sh(t, `cat "/etc/kubernetes/it's a file"; stat -c ' %a %U' "/etc/kubernetes/it's a file" /etc/old; cat /etc/old /etc/old2; /etc/oldlink`); got != "a 'quoted' $HOME\nline without end 600 root\n 644 root\nafter\ntheirs\n# BEGIN ours\none\ntwo\n# END ours\nhello\n" {
		t.Errorf("%q", got)
	}

	changed, err = apply(t, h, planOf("node01", items...))
	if err != nil || len(changed) != 0 {
		t.Errorf("a second run changed %v, %v", changed, err)
	}

	// What somebody changes by hand is put right, and the way back stays the first.
	h.sh(t, "echo other >/etc/old; echo data >/var/lib/etcd/member")
	changed, err = apply(t, h, planOf("node01", items...))
	if diff := cmp.Diff([]string{"file /etc/old"}, changed); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.sh(t, state)); diff != "" {
		t.Error(diff)
	}
	if undone, err := Undo(t.Context(), h); err != nil || len(undone) != 0 {
		t.Errorf("a second undo: %v, %v", undone, err)
	}
}

func TestFailureNamesTheItem(t *testing.T) {
	h := newSandbox(t, "node01")
	p := planOf("node01",
		File{Path: "/etc/first", Mode: 0o644, Content: []byte("1")},
		Action{Name: "break", Check: "false", Do: "echo no such luck >&2; exit 7"},
		File{Path: "/etc/last", Mode: 0o644, Content: []byte("2")})
	p.Phases[0].Steps = append(p.Phases[0].Steps, Step{Name: "never", Work: []Work{{"node01", []Item{File{Path: "/etc/never", Mode: 0o644}}}}})
	_, err := apply(t, h, p)
	var failed *StepError
	if !errors.As(err, &failed) {
		t.Fatal(err)
	}
	if diff := cmp.Diff(StepError{Phase: "01-base", Step: "test", Host: "node01", Item: "action break", Code: 7, Stderr: "no such luck\n"}, *failed); diff != "" {
		t.Error(diff)
	}
	if got := h.sh(t, "ls -I passwd -I group /etc"); got != "first\n" {
		t.Errorf("left: %q", got)
	}
	// Run again without what failed, it goes on.
	p.Phases[0].Steps[0].Work[0].Items[1] = Action{Name: "break", Check: "true"}
	changed, err := apply(t, h, p)
	if diff := cmp.Diff([]string{"file /etc/last", "file /etc/never"}, changed); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Error(err)
	}
	if got := h.sh(t, "ls -I passwd -I group /etc"); got != "" {
		t.Errorf("left: %q", got)
	}
}

func TestChangeThatDoesNotHelp(t *testing.T) {
	h := newSandbox(t, "node01")
	_, err := apply(t, h, planOf("node01", Action{Name: "vain", Check: "false", Do: "true"}))
	if err == nil || err.Error() != `node01: 01-base, test: action vain: it was changed and is "open" still, not "done"` {
		t.Error(err)
	}
	_, err = apply(t, h, planOf("node01", Wait{Name: "godot", Check: "echo not here; false", Until: time.Second}))
	if err == nil || !strings.Contains(err.Error(), "wait godot: exit code 1\n  not within 1s: not here") {
		t.Error(err)
	}
	h.sh(t, "mkdir /etc/dir; touch /etc/dir/precious")
	_, err = apply(t, h, planOf("node01", File{Path: "/etc/dir", Mode: 0o644}))
	if err == nil || !strings.Contains(err.Error(), "/etc/dir is a directory") || h.sh(t, "ls /etc/dir") != "precious\n" {
		t.Error(err)
	}
}

func TestRequirement(t *testing.T) {
	h := newSandbox(t, "node01")
	_, err := apply(t, h, planOf("node01", File{Path: "/etc/first", Mode: 0o644}, Require{Name: "ground", Check: "true"},
		Require{Name: "moon", Check: "test -e /moon", Hint: "fetch the moon"}, Require{Name: "sun", Check: "false", Why: "echo it is night; exit 1", Hint: "wait for $day"}))
	if err == nil || err.Error() != "node01: 01-base, test: requirement moon, requirement sun: exit code 1\n  fetch the moon\n  it is night\n  wait for $day" {
		t.Error(err)
	}
	if got := h.sh(t, "ls -d /etc/first /var/lib/slipway 2>/dev/null || true"); got != "" {
		t.Errorf("there is a trace of it: %s", got)
	}
}

// A block is replaced where it stands, and others' lines stay as they are.
func TestBlock(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "printf 'a\n' >/etc/x; chmod 600 /etc/x")
	for _, content := range []string{"1\n", "2\n3\n"} {
		if _, err := apply(t, h, planOf("node01", Block{Path: "/etc/x", Name: "b", Content: content})); err != nil {
			t.Fatal(err)
		}
		h.sh(t, "printf 'later\n' >>/etc/x")
	}
	if got := h.sh(t, "cat /etc/x; stat -c %a /etc/x"); got != "a\nlater\n# BEGIN b\n2\n3\n# END b\nlater\n600\n" {
		t.Errorf("%q", got)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if got := h.sh(t, "cat /etc/x"); got != "a\nlater\nlater\n" {
		t.Errorf("%q", got)
	}
}

func TestDifferencesChangeNothing(t *testing.T) {
	h := newSandbox(t, "node01")
	p := planOf("node01", File{Path: "/etc/a", Mode: 0o644, Content: []byte("a")}, Directory{Path: "/opt/x", Mode: 0o755})
	e := &Engine{Hosts: map[string]Host{"node01": h}}
	d, err := e.Differences(t.Context(), p)
	if err != nil || len(d) != 2 || d[0].Before != absent || d[0].Item.ID() != "file /etc/a" {
		t.Errorf("%v, %v", d, err)
	}
	if got := h.sh(t, "ls -I passwd -I group /etc /var/lib"); strings.Contains(got, "slipway") || strings.Contains(got, "a\n\n") {
		t.Errorf("left: %q", got)
	}
	if err := e.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if d, err = e.Differences(t.Context(), p); err != nil || len(d) != 0 {
		t.Errorf("%v, %v", d, err)
	}
	if _, err := e.Differences(t.Context(), planOf("stranger", p.Phases[0].Steps[0].Work[0].Items...)); err == nil || !strings.Contains(err.Error(), "stranger") {
		t.Error(err)
	}
}

func TestHostsOfAStepAreIndependent(t *testing.T) {
	a, b := newSandbox(t, "a"), newSandbox(t, "b")
	bad := Action{Name: "bad", Check: "false", Do: "exit 3"}
	good := File{Path: "/etc/good", Mode: 0o644, Content: []byte("x")}
	p := Plan{Phases: []Phase{{ID: "01-base", Steps: []Step{{Name: "s", Work: []Work{{"a", []Item{bad}}, {"b", []Item{good}}}}}}}}
	err := (&Engine{Hosts: map[string]Host{"a": a, "b": b}}).Apply(t.Context(), p)
	if err == nil || !strings.HasPrefix(err.Error(), "a: ") {
		t.Error(err)
	}
	if got := b.sh(t, "cat /etc/good"); got != "x" {
		t.Errorf("b was not finished: %q", got)
	}
}

// stubborn is never as wanted, and says why.
type stubborn struct{ Action }

func (stubborn) Words() string { return "echo I would prefer not to" }

func TestItemsSayWhyTheyAreNotAsWanted(t *testing.T) {
	h := newSandbox(t, "node01")
	_, err := apply(t, h, planOf("node01", stubborn{Action{Name: "copy", Check: "false", Do: ":"}}))
	if err == nil || err.Error() != "node01: 01-base, test: action copy: it was changed and is \"open\" still, not \"done\"\n  I would prefer not to" {
		t.Error(err)
	}
}
