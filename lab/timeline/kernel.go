package timeline

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/lab"
)

// monitorLine is what `ip -ts -o monitor label` prints:
// "[2026-01-02T15:04:05.000000] [ROUTE]10.244.1.0/24 via …".
var monitorLine = regexp.MustCompile(`^\[([0-9T:.-]+)\] \[([A-Z]+)\](.*)$`)

// monitorTime is the layout of its times, which are of the machine's zone.
const monitorTime = "2006-01-02T15:04:05.000000"

// objects are what is listened for, and how it is called.
var objects = map[string]string{"LINK": "link", "ADDR": "address", "ROUTE": "route", "NEIGH": "neighbour"}

// kernel listens to the netlink messages of a node.
func (w *watch) kernel(ctx context.Context, node string, ready func()) error {
	ns, err := netns.Open(lab.NSOfMachine(w.st.Lab, node))
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // a handle
	cmd := exec.CommandContext(ctx, "ip", "-ts", "-o", "monitor", "label", "link", "address", "route", "neigh")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := ns.Do(cmd.Start); err != nil {
		return fmt.Errorf("listen to the kernel of %s: %w", node, err)
	}
	if err := subscribed(ctx, cmd.Process.Pid); err != nil {
		return fmt.Errorf("listen to the kernel of %s: %w", node, err)
	}
	ready()
	last := map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		at, kind, text := parseMonitor(lines.Text())
		if kind == "" {
			continue
		}
		subject, _, _ := strings.Cut(strings.TrimPrefix(text, "Deleted "), " ")
		if last[kind+subject] == text {
			continue // the kernel says some things more than once
		}
		last[kind+subject] = text
		w.say(at, node, kind, "%s", text)
	}
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("listen to the kernel of %s: ip monitor ended: %w", node, err)
}

// subscribed waits until a process has a netlink socket that takes messages
// (/proc/PID/net/netlink: protocol 0 is NETLINK_ROUTE, the port is the process, and
// there are groups).
func subscribed(ctx context.Context, pid int) error {
	for {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", pid))
		if err != nil {
			return err
		}
		for l := range strings.Lines(string(raw)) {
			if f := strings.Fields(l); len(f) > 3 && f[1] == "0" && f[2] == fmt.Sprint(pid) && strings.Trim(f[3], "0") != "" {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// noise are the parts of a line that say nothing here, and IPv6's own housekeeping.
var (
	noise = regexp.MustCompile(`^\d+: |\\.*$| (qdisc|group|qlen|mode|valid_lft|preferred_lft|link-netns|link-netnsid|scope) \S+|<[A-Z_,]*>|@\S+`)
	ipv6  = regexp.MustCompile(`inet6|fe80::|ff00::|multicast|table local|^local |^broadcast `)
)

// parseMonitor reads a line; kind is empty if there is nothing to say.
func parseMonitor(line string) (at time.Time, kind, text string) {
	m := monitorLine.FindStringSubmatch(line)
	if m == nil || objects[m[2]] == "" || ipv6.MatchString(m[3]) || m[2] == "NEIGH" && !strings.Contains(m[3], "PERMANENT") {
		return at, "", ""
	}
	at, err := time.ParseInLocation(monitorTime, m[1], time.Local)
	if err != nil {
		return at, "", ""
	}
	text = m[3]
	deleted := strings.HasPrefix(text, "Deleted ")
	text = strings.TrimPrefix(text, "Deleted ")
	text = strings.Join(strings.Fields(noise.ReplaceAllString(text, "")), " ")
	if deleted {
		text = "Deleted " + text
	}
	return at, objects[m[2]], text
}

// rulesEvery is how often a node's rules are looked at: iptables tells nobody that
// they change.
const rulesEvery = 150 * time.Millisecond

// rules compares a node's service rules with those of before.
func (w *watch) rules(ctx context.Context, node string, ready func()) error {
	ns, err := netns.Open(lab.NSOfMachine(w.st.Lab, node))
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // a handle
	cmd := run.Cmd{NS: ns, Name: "iptables-legacy-save", Args: []string{"-t", "nat"}}
	if _, err := exec.LookPath(cmd.Name); err != nil {
		cmd.Name = "iptables-save"
	}
	var before []string
	for first := true; ; first = false {
		out, err := cmd.Output(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the rules of %s: %w", node, err)
		}
		now := appended(string(out))
		if first {
			ready()
		} else {
			at := time.Now()
			w.changed(at, node, "- ", before, now)
			w.changed(at, node, "+ ", now, before)
		}
		before = now
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(rulesEvery):
		}
	}
}

// changed says which of these lines are not among those.
func (w *watch) changed(at time.Time, node, sign string, these, those []string) {
	for _, l := range these {
		if _, ok := slices.BinarySearch(those, l); !ok {
			w.say(at, node, "nat", "%s%s", sign, l)
		}
	}
}

// appended are the rules of a save, sorted.
func appended(save string) []string {
	var out []string
	for l := range strings.Lines(save) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(l), "-A "); ok {
			out = append(out, rule)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
