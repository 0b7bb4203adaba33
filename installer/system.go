package installer

import (
	"fmt"
	"strings"
	"time"
)

// Sysctl is a kernel setting as it is now; a [File] in /etc/sysctl.d makes it last.
type Sysctl struct{ Key, Value string } // "net.ipv4.ip_forward", "1"

// ID names the setting.
func (s Sysctl) ID() string { return "sysctl " + s.Key }

func (s Sysctl) path() string { return quote("/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/")) }

// Probe prints its value, fields apart by one space.
func (s Sysctl) Probe() string {
	return fmt.Sprintf("if [ -e %[1]s ]; then tr '\\t' ' ' <%[1]s; else echo absent; fi", s.path())
}

// Want is the value.
func (s Sysctl) Want() string { return s.Value }

// Command is what an administrator would type.
func (s Sysctl) Command() (string, bool) { return "sysctl -w " + s.Key + "=" + quote(s.Value), false }

// Change sets it.
func (s Sysctl) Change() string {
	return fmt.Sprintf("if [ ! -e %[1]s ]; then echo 'this kernel has no setting %[2]s' >&2; exit 1; fi\nprintf '%%s\\n' %[3]s >%[1]s", s.path(), s.Key, quote(s.Value))
}

// Undo sets what it was.
func (s Sysctl) Undo(before string) string {
	if before == absent || before == "unknown" {
		return ":"
	}
	return fmt.Sprintf("printf '%%s\\n' %s >%s", quote(before), s.path())
}

// Action is something that is done, where a check says that it is not yet.
type Action struct {
	Name  string
	Check string // exit code 0: done
	Do    string
	Back  string // undoes it; empty where there is nothing to undo
	// Secret: what is done holds a secret, and is never shown.
	Secret bool
}

// ID names the action.
func (a Action) ID() string { return "action " + a.Name }

// Probe runs the check.
func (a Action) Probe() string {
	return fmt.Sprintf("if ( %s\n) >/dev/null 2>&1; then echo done; else echo open; fi", a.Check)
}

// Want is done.
func (a Action) Want() string { return "done" }

// Change does it.
func (a Action) Change() string { return a.Do }

// Command is what is done.
func (a Action) Command() (string, bool) { return a.Do, a.Secret }

// Undo goes back, unless it was done before.
func (a Action) Undo(before string) string {
	if a.Back == "" || before == "done" {
		return ":"
	}
	return a.Back
}

// Wait is a condition that comes about by itself, if everything is well.
type Wait struct {
	Name  string // "the API server is ready"
	Check string // exit code 0: it has come about; what it prints is why not
	Until time.Duration
	Unit  string // whose last words say more, if it has not; may be empty
}

// ID names the condition.
func (w Wait) ID() string { return "wait " + w.Name }

// Probe runs the check.
func (w Wait) Probe() string { return Action{Check: w.Check}.Probe() }

// Want is that it has come about.
func (w Wait) Want() string { return "done" }

// waitEvery is how long to sleep between two looks, in seconds.
const waitEvery = "0.1"

// Change waits.
func (w Wait) Change() string {
	words := ""
	if w.Unit != "" {
		words = Unit{Name: w.Unit}.Words() + " >&2 || true; "
	}
	return fmt.Sprintf("end=$(($(date +%%s) + %d))\nuntil said=$( ( %s\n) 2>&1 ); do\n\tif [ \"$(date +%%s)\" -ge \"$end\" ]; then printf 'not within %v: %%s\\n' \"$said\" >&2; %sexit 1; fi\n\tsleep %s\ndone",
		max(1, int(w.Until.Seconds())), w.Check, w.Until, words, waitEvery)
}

// Undo has nothing to do.
func (w Wait) Undo(string) string { return ":" }

// Require is something that must be so, and that nobody brings about.
type Require struct {
	Name  string // "memory"
	Check string // exit code 0: it is so
	Why   string // prints what is in the way; may be empty
	Hint  string // what to do if not
}

// ID names the requirement.
func (r Require) ID() string { return "requirement " + r.Name }

// Probe runs the check.
func (r Require) Probe() string { return Action{Check: r.Check}.Probe() }

// Want is that it is so.
func (r Require) Want() string { return "done" }

// Change fails with the hint, after what is in the way.
func (r Require) Change() string {
	why := ""
	if r.Why != "" {
		why = fmt.Sprintf("( %s\n) >&2 || true\n", r.Why)
	}
	return why + "printf '%s\\n' " + quote(r.Hint) + " >&2\nexit 1"
}

// Undo has nothing to do.
func (r Require) Undo(string) string { return ":" }
