package ssh

import (
	"context"
	"fmt"
	"io/fs"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
)

// A plan goes through SSH as it goes anywhere else: what differs is changed, the
// second time nothing does, and undoing leaves what was before. One host lets root
// in, the other a user who has a password for sudo.
func TestAPlanThroughSSH(t *testing.T) {
	o := newOperator(t)
	targets := []Target{
		newMachine(t, o, "node01", "printf 'theirs\\n' >/etc/shared", "").target("root"),
		newMachine(t, o, "node02", asks+"printf 'theirs\\n' >/etc/shared", "").target("ops"),
	}
	opts := o.options()
	opts.Sudo = func(_ context.Context, host string) (string, error) {
		if host != "node02" {
			return "", fmt.Errorf("asked for %s", host)
		}
		return password, nil
	}
	hosts, err := OpenAll(t.Context(), targets, opts)
	defer CloseAll(hosts)
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	e := &installer.Engine{Hosts: map[string]installer.Host{}}
	for name, h := range hosts {
		e.Hosts[name] = h
		before[name] = filesOf(t, h)
	}
	blob, _ := newBlob(t, 2<<20)
	var work []installer.Work
	for _, name := range []string{"node01", "node02"} {
		work = append(work, installer.Work{Host: name, Items: []installer.Item{
			installer.Directory{Path: "/etc/cluster", Mode: fs.ModeDir | 0o750},
			installer.File{Path: "/etc/cluster/config", Mode: 0o600, Content: []byte("it's " + name + "\\n\n"), Secret: true},
			installer.Block{Path: "/etc/shared", Name: "cluster", Content: "ours\n"},
			installer.Program{Path: "/opt/cluster/program", Blob: blob},
			installer.Action{Name: "made", Check: "test -e /etc/cluster/made", Do: "touch /etc/cluster/made", Back: "rm /etc/cluster/made"},
		}})
	}
	plan := installer.Plan{Phases: []installer.Phase{{ID: "01-base", Steps: []installer.Step{{Name: "everything", Work: work}}}}}
	for round, want := range []int{10, 0} {
		var changed []string
		e.Tell = func(ev installer.Event) {
			if ev.Changed {
				changed = append(changed, ev.Host+" "+ev.Item)
			}
		}
		if err := e.Apply(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if len(changed) != want {
			t.Errorf("round %d changed %d: %q", round, len(changed), changed)
		}
	}
	for _, name := range []string{"node01", "node02"} {
		r, err := hosts[name].Run(t.Context(), sh("cat /etc/cluster/config /etc/shared; sha256sum </opt/cluster/program"))
		if want := fmt.Sprintf("it's %s\\n\ntheirs\n# BEGIN", name); err != nil || !cmp.Equal(want, string(r.Stdout[:min(len(want), len(r.Stdout))])) {
			t.Errorf("%s: %q, %v", name, r.Stdout, err)
		}
		if undone, err := installer.Undo(t.Context(), hosts[name]); err != nil || len(undone) != 6 {
			t.Errorf("%s: undone %q, %v", name, undone, err)
		}
		if diff := cmp.Diff(before[name], filesOf(t, hosts[name])); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// filesOf lists what a plan may touch.
func filesOf(t *testing.T, h *Host) string {
	t.Helper()
	r, err := h.Run(t.Context(), sh(`cd /
	{ find etc opt/slipway opt/cluster var/lib/slipway -printf '%p %M %u %g %l\n'; find etc opt/slipway opt/cluster var/lib/slipway -type f -exec sha256sum {} +; } 2>/dev/null | sort`))
	if err != nil || r.Code != 0 {
		t.Fatalf("%v %s", err, r.Stderr)
	}
	return string(r.Stdout)
}
