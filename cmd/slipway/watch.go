package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/timeline"
)

// watchFlags are what `slipway watch` was told.
type watchFlags struct {
	duration, quiet time.Duration
	until           []string
	command         []string
}

func (a *app) watchCmd() *cobra.Command {
	f := watchFlags{}
	c := &cobra.Command{
		Use: "watch [-- COMMAND...]", Short: "Show what changes in the API and in all nodes' kernels, on one time line",
		Long: `Listen to the API of a lab with real components (deployments, replica sets, pods,
services, endpoint slices) and to the kernel of every node (links, addresses, routes,
permanent neighbours, the rules of iptables' table nat), and print every change in
one sequence, with the seconds since the first.

A command after -- is run as soon as everything listens, with its output on stderr.
Then it ends when nothing has changed for --quiet; or, with --until, when each of these
patterns was found in a line. Rules are looked at several
times a second; all else comes as it happens.`,
		Example: `  slipway watch -- slipway kubectl scale deployment web --replicas=3
  slipway watch -- slipway apply -f web.yaml
  slipway watch --until 'node02 .*default/web cluster IP' -- slipway kubectl apply -f web.yaml
  slipway watch --duration 1m`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n != 0 && len(args) > 0 {
				return usageError("write -- before the command")
			}
			f.command = args
			return a.watch(cmd.Context(), f)
		},
	}
	c.Flags().DurationVar(&f.duration, "duration", 0, "end after this time at the latest; 0: at Ctrl-C")
	c.Flags().DurationVar(&f.quiet, "quiet", 2*time.Second, "after the command, end when nothing changed for so long")
	c.Flags().StringArrayVar(&f.until, "until", nil, "end when a line matches; several: when each was matched by one")
	return c
}

// watch prints changes until it is enough.
func (a *app) watch(ctx context.Context, f watchFlags) error {
	end, err := newAwaited(f.until)
	if err != nil {
		return err
	}
	st, err := a.state(nil)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	if f.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.duration)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ran sync.WaitGroup
	var failed error
	changed := make(chan struct{}, 1)
	var began time.Time // the first change
	started := func() {
		fmt.Fprintf(a.err, "slipway: listening to %s\n", plural(len(st.Snapshot.Nodes), "node"))
		if len(f.command) == 0 {
			return
		}
		ran.Go(func() {
			failed = a.runCommand(ctx, f.command, st.Lab)
			if failed == nil && len(f.until) > 0 {
				return // what it brings about ends this
			}
			untilQuiet(ctx, changed, f.quiet)
			cancel()
		})
	}
	err = timeline.Watch(ctx, st, started, func(e timeline.Event) {
		select {
		case changed <- struct{}{}:
		default:
		}
		if began.IsZero() {
			began = e.Time
		}
		if err := a.printChange(e, began); err != nil || end.with(e) {
			cancel()
		}
	})
	ran.Wait()
	if err == nil {
		err = failed
	}
	return err
}

// awaited are the patterns that no line has matched yet.
type awaited []*regexp.Regexp

func newAwaited(patterns []string) (*awaited, error) {
	var w awaited
	for _, p := range patterns {
		re, err := regexp.Compile(p)
		if err != nil {
			return nil, usageError("--until: %v", err)
		}
		w = append(w, re)
	}
	return &w, nil
}

// with reports whether a change is the last that was awaited.
func (w *awaited) with(e timeline.Event) bool {
	if len(*w) == 0 {
		return false
	}
	line := fmt.Sprintf("%s %s %s", e.Place, e.Kind, e.Text)
	*w = slices.DeleteFunc(*w, func(re *regexp.Regexp) bool { return re.MatchString(line) })
	return len(*w) == 0
}

// untilQuiet waits until nothing came for a while.
func untilQuiet(ctx context.Context, changed <-chan struct{}, quiet time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(quiet):
			return
		}
	}
}

func (a *app) printChange(e timeline.Event, began time.Time) error {
	if !a.forReading() {
		return json.NewEncoder(a.out).Encode(e)
	}
	_, err := fmt.Fprintf(a.out, "%8.3f  %-10s %-14s %s\n", e.Time.Sub(began).Seconds(), e.Place, e.Kind, e.Text)
	return err
}
