package initd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Exit codes of systemctl for units that do not run, and for ones that do not
// exist (systemctl(1), "Exit status").
const (
	codeNotActive = 3
	codeNoUnit    = 4
)

// Systemctl plays systemctl in a node and returns its exit code.
func Systemctl(ctx context.Context, argv []string, out, errs io.Writer) int {
	c := shim{NewClient(innerSocket), out, errs}
	code, err := c.systemctl(ctx, argv)
	if err == nil {
		return code
	}
	fmt.Fprintln(errs, err)
	var none *NoUnitError
	switch {
	case errors.As(err, &none):
		return codeNoUnit
	case code != 0:
		return code
	}
	return 1
}

type shim struct {
	client    *Client
	out, errs io.Writer
}

func (c shim) systemctl(ctx context.Context, argv []string) (int, error) {
	var words, flags []string
	for i := 0; i < len(argv); i++ {
		switch a := argv[i]; {
		case a == "-p" && i+1 < len(argv):
			flags = append(flags, "--property="+argv[i+1])
			i++
		case strings.HasPrefix(a, "-"):
			flags = append(flags, a)
		default:
			words = append(words, a)
		}
	}
	if len(words) == 0 {
		words = []string{"list-units"}
	}
	names := words[1:]
	switch words[0] {
	case "start", "stop", "restart", "reload", "reset-failed":
		return 0, c.each(ctx, words[0], names)
	case "try-restart":
		return 0, c.tryRestart(ctx, names)
	case "enable", "disable":
		err := c.each(ctx, words[0], names)
		if err == nil && slices.Contains(flags, "--now") {
			err = c.each(ctx, map[string]string{"enable": "start", "disable": "stop"}[words[0]], names)
		}
		return 0, err
	case "daemon-reload":
		_, err := c.client.ask(ctx, request{Do: "daemon-reload"})
		return 0, err
	case "is-active", "is-enabled", "is-failed":
		return c.is(ctx, words[0], names, slices.Contains(flags, "--quiet") || slices.Contains(flags, "-q"))
	case "status":
		return c.status(ctx, names)
	case "show":
		return 0, c.show(ctx, names, flags)
	case "list-units":
		return 0, c.list(ctx)
	}
	return 1, fmt.Errorf("systemctl %s: a lab's node does not know this", words[0])
}

func (c shim) each(ctx context.Context, do string, names []string) error {
	if len(names) == 0 {
		return errors.New("which unit?")
	}
	var errs []error
	for _, n := range names {
		_, err := c.client.ask(ctx, request{Do: do, Name: n})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c shim) tryRestart(ctx context.Context, names []string) error {
	var running []string
	for _, n := range names {
		s, err := c.of(ctx, n)
		if err != nil {
			return err
		}
		if s.State == active {
			running = append(running, n)
		}
	}
	if len(running) == 0 {
		return nil
	}
	return c.each(ctx, "restart", running)
}

func (c shim) of(ctx context.Context, name string) (Status, error) {
	a, err := c.client.ask(ctx, request{Do: "status", Name: name})
	if err != nil {
		return Status{}, err
	}
	return a.Statuses[0], nil
}

// is answers for several units: the exit code is 0 if it holds for one of them,
// and for is-active and is-enabled for all.
func (c shim) is(ctx context.Context, what string, names []string, quiet bool) (int, error) {
	holds := 0
	for _, n := range names {
		s, err := c.of(ctx, n)
		var none *NoUnitError
		if err != nil && !errors.As(err, &none) {
			return 1, err
		}
		word, ok := inactive, false
		switch {
		case what == "is-enabled" && none != nil:
			word = "not-found"
		case what == "is-enabled":
			word, ok = map[bool]string{true: "enabled", false: "disabled"}[s.Enabled], s.Enabled
		case none == nil:
			word = s.State
			ok = word == map[string]string{"is-active": active, "is-failed": failed}[what]
		}
		if ok {
			holds++
		}
		if !quiet {
			fmt.Fprintln(c.out, word)
		}
	}
	switch {
	case holds > 0 && (holds == len(names) || what == "is-failed"):
		return 0, nil
	case what == "is-active":
		return codeNotActive, nil
	}
	return 1, nil
}

func (c shim) status(ctx context.Context, names []string) (int, error) {
	if len(names) == 0 {
		return 0, c.list(ctx)
	}
	code := 0
	for _, n := range names {
		s, err := c.of(ctx, n)
		if err != nil {
			return 0, err
		}
		fmt.Fprintf(c.out, "%s - %s\n     Active: %s since %s\n    Enabled: %v\n", s.Name, s.Description, s.State, s.Since.Format(time.RFC3339), s.Enabled)
		if s.PID != 0 {
			fmt.Fprintf(c.out, "   Main PID: %d\n", s.PID)
		}
		if s.Said != "" {
			fmt.Fprintf(c.out, "     Status: %s\n", s.Said)
		}
		if s.Restarts > 0 {
			fmt.Fprintf(c.out, "   Restarts: %d, last exit code %d\n", s.Restarts, s.ExitCode)
		}
		if len(s.Ignored) > 0 {
			fmt.Fprintf(c.out, "    Ignored: %s (without effect in a lab)\n", strings.Join(s.Ignored, " "))
		}
		lines, _ := tail(LogFile(s.Name), 10)
		fmt.Fprintf(c.out, "\n%s\n", lines)
		if s.State != active {
			code = codeNotActive
		}
	}
	return code, nil
}

// show prints properties; those that scripts ask for.
func (c shim) show(ctx context.Context, names, flags []string) error {
	for _, n := range names {
		s, err := c.of(ctx, n)
		var none *NoUnitError
		loaded := "loaded"
		if errors.As(err, &none) {
			loaded = "not-found"
			s.State = inactive
		} else if err != nil {
			return err
		}
		properties := []struct{ name, value string }{
			{"Id", fullName(n)}, {"LoadState", loaded}, {"ActiveState", s.State}, {"MainPID", strconv.Itoa(s.PID)}, {"NRestarts", strconv.Itoa(s.Restarts)},
			{"ExecMainStatus", strconv.Itoa(s.ExitCode)}, {"UnitFileState", map[bool]string{true: "enabled", false: "disabled"}[s.Enabled]},
		}
		value := slices.Contains(flags, "--value")
		for _, p := range properties {
			if wanted(flags, p.name) {
				fmt.Fprintln(c.out, map[bool]string{true: p.value, false: p.name + "=" + p.value}[value])
			}
		}
	}
	return nil
}

func wanted(flags []string, property string) bool {
	asked := false
	for _, f := range flags {
		if list, ok := strings.CutPrefix(f, "--property="); ok {
			asked = true
			if slices.Contains(strings.Split(list, ","), property) {
				return true
			}
		}
	}
	return !asked
}

func (c shim) list(ctx context.Context) error {
	all, err := c.client.Services(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		fmt.Fprintf(c.out, "%-40s %-12s %s\n", s.Name, s.State, s.Description)
	}
	return nil
}

// Journalctl plays journalctl -u UNIT [-n LINES] [-f] in a node.
func Journalctl(_ context.Context, argv []string, out, errs io.Writer) int {
	unit, lines, follow := "", "+1", false
	for i := 0; i < len(argv); i++ {
		switch a := argv[i]; {
		case (a == "-u" || a == "-n") && i+1 < len(argv):
			i++
			if a == "-u" {
				unit = fullName(argv[i])
			} else {
				lines = argv[i]
			}
		case strings.HasPrefix(a, "--unit="):
			unit = fullName(a[len("--unit="):])
		case a == "-f", a == "--follow":
			follow = true
		}
	}
	if unit == "" {
		fmt.Fprintln(errs, "journalctl: which unit? A lab's node has the output of services: journalctl -u UNIT [-n LINES] [-f]")
		return 1
	}
	args := []string{"-n", lines}
	if follow {
		args = append(args, "-F")
	}
	cmd := exec.Command("tail", append(args, LogFile(unit))...)
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Run(); err != nil {
		return 1
	}
	return 0
}

// tail is the last lines of a file.
func tail(path string, lines int) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n"), nil
}
