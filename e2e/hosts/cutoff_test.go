package hosts

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/installer/site"
)

// endSessions ends the connections of who is logged in to a machine. What they run
// there may go on for a while, as after a cut cable.
const endSessions = `for p in $(ps -eo pid=,args= | awk '$2 == "sshd:" && $3 !~ /^\// { print $1 }'); do kill -KILL "$p" 2>/dev/null; done; true`

// phaseOf is a phase, and how many lines a journal has of it.
type phaseOf struct {
	id    string
	lines int
}

// rehearsedPhases are those of the rehearsal, in their order.
func (r *Rig) rehearsedPhases(t *testing.T) (out []phaseOf) {
	t.Helper()
	var rehearsal site.Rehearsal
	r.read(t, "rehearsal.json", &rehearsal)
	for _, e := range rehearsal.Journal {
		if e.Phase == "" || e.Item == "" {
			continue
		}
		i := slices.IndexFunc(out, func(p phaseOf) bool { return p.id == e.Phase })
		if i < 0 {
			out, i = append(out, phaseOf{id: e.Phase}), len(out)
		}
		out[i].lines++
	}
	return out
}

// cutOff installs phase by phase, and each time ends all connections as soon as
// something on a machine begins to change; with the next command the phase is
// finished, and the next is cut.
func (r *Rig) cutOff(t *testing.T, file string) {
	t.Helper()
	phases, cut := r.rehearsedPhases(t), 0
	before := phaseOf{}
	for _, ph := range phases {
		began := time.Now()
		if r.cut(t, file, before, ph.id) {
			cut++
		}
		t.Logf("%s: %v", ph.id, time.Since(began).Round(time.Second/10))
		before = ph
	}
	// What only looks may be over before anybody can cut it.
	if cut < len(phases)-4 {
		t.Errorf("of %d phases %d were cut off", len(phases), cut)
	}
	r.apply(t, file, "--no-mesh", "--phase", before.id)
	if n := r.apply(t, file).Changed; n != 0 {
		t.Errorf("%d items were not as wanted", n)
	}
}

// cut applies what is left of the phase before, and then a phase until something
// changes, and reports whether apply has noticed that it was cut off: by exit code
// 5, or 1 if nothing was changed yet. It may have been between two commands, and
// gone on by another connection.
func (r *Rig) cut(t *testing.T, file string, before phaseOf, phase string) bool {
	t.Helper()
	args := []string{"install", "apply", "-f", file, "--no-mesh", "--phase", phase}
	if before.id != "" {
		args = append(args, "--phase", before.id)
	}
	cmd := r.Command(Binary(), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	w := r.watch(before, phase)
	r.Begin(cmd)
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its exit code says it
		close(ended)
	}()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-ended:
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("%s, not cut off: exit code %d\n%s", phase, code, out.Bytes())
			}
			return false
		case <-look.C:
			if !w.atWork() {
				continue
			}
		}
		break
	}
	for _, m := range r.Machines {
		m.Must(endSessions)
	}
	<-ended
	code := cmd.ProcessState.ExitCode()
	if code != 0 && !strings.Contains(out.String(), "connection was lost") || code != 0 && code != 1 && code != 5 {
		t.Errorf("%s, cut off: exit code %d\n%s", phase, code, out.Bytes())
	}
	return code != 0
}

// watch tells when a phase is at work.
type watch struct {
	r       *Rig
	before  phaseOf
	phase   string
	journal string
	at      int64 // how far that has been read
	seen    int   // lines of the phase before
	records int   // of changes on machines, when that was over; -1: it is not
}

func (r *Rig) watch(before phaseOf, phase string) *watch {
	w := &watch{r: r, before: before, phase: phase, journal: filepath.Join(r.State, "sites", "site", "journal.jsonl"), records: -1}
	if info, err := os.Stat(w.journal); err == nil {
		w.at = info.Size()
	}
	return w
}

// atWork reports whether the journal has a line of the phase, or the machines have
// noted a change since the phase before was over.
func (w *watch) atWork() bool {
	for _, l := range bytes.SplitAfter(w.more(), []byte("\n")) {
		switch {
		case !bytes.Contains(l, []byte(`"item":`)):
		case bytes.Contains(l, []byte(`"phase":"`+w.phase+`"`)):
			return true
		case bytes.Contains(l, []byte(`"phase":"`+w.before.id+`"`)):
			w.seen++
		}
	}
	switch {
	case w.seen < w.before.lines:
		return false
	case w.records < 0:
		w.records = w.r.records()
	}
	return w.r.records() > w.records
}

// more are the whole lines that have come to the journal.
func (w *watch) more() []byte {
	f, err := os.Open(w.journal)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // only read
	buf := make([]byte, 64<<10)
	n, _ := f.ReadAt(buf, w.at)
	end := bytes.LastIndexByte(buf[:n], '\n') + 1
	w.at += int64(end)
	return buf[:end]
}

// records counts what machines have noted of changes.
func (r *Rig) records() (n int) {
	for _, m := range r.Machines {
		found, _ := os.ReadDir(filepath.Join(m.dir, "lib", "slipway", "undo"))
		n += len(found)
	}
	return n
}
