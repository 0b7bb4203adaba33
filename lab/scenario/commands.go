package scenario

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"rsc.io/script"
)

// command is one command of a script.
type command struct {
	usage script.CmdUsage
	// check refuses wrong arguments, before anything runs.
	check func(args []string) error
	// run returns what it would print. Its error is what kept it from succeeding.
	run func(args []string) (stdout, stderr string, err error)
}

// commands are those of a script that runs; with x nil, only check may be called.
func (x *run) commands() map[string]command {
	out := map[string]command{
		"slipway": {usage: script.CmdUsage{Summary: "run this program on the scenario's lab", Args: "COMMAND [ARG…]"}, check: atLeast(1), run: func(a []string) (string, string, error) { return x.slipway(a) }},
		"node":    x.inside("node"),
		"pod":     x.inside("pod"),
		"probe": {
			usage: script.CmdUsage{Summary: "send real packets, and wait for their answer", Args: "SRC DST[:PORT] [--proto P] [--count N] [--size N] [--df]"},
			check: func(a []string) error { _, err := parseProbe(a); return err },
			run:   func(a []string) (string, string, error) { return x.probe(a) },
		},
		"trace": {
			usage: script.CmdUsage{Summary: "trace one packet, and compare its fate", Args: "SRC DST[:PORT] [--verdict V] [--place P] [--table T] [--reason R] [--proto P] [--size N] [--df]"},
			check: func(a []string) error { _, err := parseTrace(a); return err },
			run:   func(a []string) (string, string, error) { return x.trace(a) },
		},
		"signal": {
			usage: script.CmdUsage{Summary: "send a signal to what serves the lab", Args: "KILL|STOP|CONT daemon|speaker/NODE"},
			check: checkSignal,
			run:   func(a []string) (string, string, error) { return x.signal(a) },
		},
		"stdout": x.output("stdout", func() string { return x.lastOut }),
		"stderr": x.output("stderr", func() string { return x.lastErr }),
	}
	out["wait"] = x.wait(out)
	return out
}

func atLeast(n int) func([]string) error {
	return func(a []string) error {
		if len(a) < n {
			return fmt.Errorf("%w: too few arguments", script.ErrUsage)
		}
		return nil
	}
}

// inside is a command that runs another one in a node or a pod.
func (x *run) inside(what string) command {
	return command{
		usage: script.CmdUsage{Summary: "run a command in a " + what, Args: "NAME COMMAND [ARG…]"}, check: atLeast(2),
		run: func(a []string) (string, string, error) {
			return x.slipway(append([]string{"exec", a[0], "--"}, a[1:]...))
		},
	}
}

// output is a command that looks for something in what the one before it printed.
func (x *run) output(name string, of func() string) command {
	return command{
		usage: script.CmdUsage{Summary: "look for a pattern in what the last command printed", Args: "REGEXP", RegexpArgs: func(...string) []int { return []int{0} }},
		check: func(a []string) error {
			if len(a) != 1 {
				return fmt.Errorf("%w: one regular expression", script.ErrUsage)
			}
			_, err := regexp.Compile(a[0])
			return err
		},
		run: func(a []string) (string, string, error) {
			re, err := regexp.Compile("(?m)" + a[0])
			if err != nil {
				return "", "", err
			}
			x.outcome = outcome{want: phrase(wantMatch, a[0]), wantNot: phrase(wantNoMatch, a[0]), got: same(strings.TrimSpace(of()))}
			if !re.MatchString(of()) {
				return x.lastOut, x.lastErr, fmt.Errorf("%s has no match for %s:\n%s", name, a[0], of())
			}
			return x.lastOut, x.lastErr, nil
		},
	}
}

// waitPatience is how long `wait` waits unless told.
const waitPatience = time.Minute

// wait is a command that runs another one until it succeeds, or fails with "!".
func (x *run) wait(others map[string]command) command {
	parse := func(args []string) (patience time.Duration, not bool, c command, rest []string, err error) {
		f := pflag.NewFlagSet("wait", pflag.ContinueOnError)
		f.SetInterspersed(false)
		f.DurationVar(&patience, "for", waitPatience, "")
		if err = f.Parse(args); err != nil {
			return
		}
		rest = f.Args()
		if len(rest) > 0 && rest[0] == "!" {
			not, rest = true, rest[1:]
		}
		if len(rest) == 0 {
			err = fmt.Errorf("%w: wait for which command?", script.ErrUsage)
			return
		}
		c, ok := others[rest[0]]
		if !ok || rest[0] == "wait" {
			err = fmt.Errorf("%w: there is no command %q to wait for", script.ErrUsage, rest[0])
			return
		}
		return patience, not, c, rest[1:], c.check(rest[1:])
	}
	return command{
		usage: script.CmdUsage{Summary: "run a command until it succeeds, or with ! fails", Args: "[--for 60s] [!] COMMAND [ARG…]"},
		check: func(a []string) error { _, _, _, _, err := parse(a); return err },
		run: func(a []string) (string, string, error) {
			patience, not, c, rest, err := parse(a)
			if err != nil {
				return "", "", err
			}
			return x.until(patience, not, func() (string, string, error) { return c.run(rest) })
		},
	}
}

// waitEvery is how often `wait` tries.
const waitEvery = 100 * time.Millisecond

// until runs fn until it ends as is wanted, or the time is over.
func (x *run) until(patience time.Duration, not bool, fn func() (string, string, error)) (string, string, error) {
	give := time.NewTimer(patience)
	defer give.Stop()
	for {
		out, errs, err := fn()
		if (err != nil) == not {
			return out, errs, nil
		}
		if not {
			err = errors.New("it still succeeds")
		}
		select {
		case <-x.ctx.Done():
			return out, errs, x.ctx.Err()
		case <-give.C:
			return out, errs, fmt.Errorf("after %s: %w", patience, err)
		case <-time.After(waitEvery):
		}
	}
}

// signals are those that a script may send.
var signals = map[string]syscall.Signal{"KILL": syscall.SIGKILL, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}

// speakerPrefix begins the name of a node's BGP speaker.
const speakerPrefix = "speaker/"

func checkSignal(a []string) error {
	if len(a) != 2 || signals[a[0]] == 0 || a[1] != "daemon" && !strings.HasPrefix(a[1], speakerPrefix) {
		return fmt.Errorf("%w: KILL, STOP or CONT, and daemon or speaker/NODE", script.ErrUsage)
	}
	return nil
}

// engine is the script language with the commands of a run.
func (x *run) engine() *script.Engine {
	e := &script.Engine{Cmds: map[string]script.Cmd{}, Conds: map[string]script.Cond{}}
	for name, c := range x.commands() {
		e.Cmds[name] = script.Command(c.usage, func(st *script.State, args ...string) (script.WaitFunc, error) {
			if err := c.check(args); err != nil {
				return nil, err
			}
			out, errs, err := c.run(args)
			x.lastOut, x.lastErr = out, errs
			if !slices.Contains(quiet, name) {
				x.note(Ran{Command: x.typed(append([]string{name}, args...)), Stdout: out, Stderr: errs})
			}
			return func(*script.State) (string, string, error) { return out, errs, err }, nil
		})
	}
	return e
}
