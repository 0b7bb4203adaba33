package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/outage"
)

func (a *app) outageCmd() *cobra.Command {
	o := outage.Defaults
	c := &cobra.Command{
		Use: "outage SRC URL [-- COMMAND...]", Short: "Ask a server all the time, and say for how long nobody answered",
		Long: `Ask a URL from a node or pod of a lab, a request every 20 ms over a connection of its own,
and count which were answered, which late, and which not at all. URL is
https://HOST[:PORT][/PATH], http://… or tcp://HOST:PORT; HOST an address, or what
` + "`slipway trace`" + ` takes. Certificates are not verified.

A command after -- is run once requests are answered; its output goes to stderr. It ends
when all was answered at once for --settle, or after --most. The gap is the longest time
between the beginnings of two requests that were answered at once, with others between
them that were not. Exit code 1 says that in the end there was no steady answer.`,
		Example: `  slipway outage node01 https://192.168.233.100:6443/livez -- slipway exec lb01 -- systemctl stop api-vip
  slipway outage client http://svc/web:80/ --settle 10s -o json`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); len(args) > 2 && n != 2 || n >= 0 && n != 2 {
				return usageError("SRC and URL, and -- before a command")
			}
			if o.Every < time.Millisecond || o.Patience < o.Slow || o.Settle <= 0 || o.Most < o.Settle {
				return usageError("--every is at least 1ms, --slow not more than --patience, --settle not more than --most")
			}
			return a.outage(cmd.Context(), o, args)
		},
	}
	f := c.Flags()
	f.DurationVar(&o.Every, "every", o.Every, "between the beginnings of two requests")
	f.DurationVar(&o.Patience, "patience", o.Patience, "how long a request waits for its answer")
	f.DurationVar(&o.Slow, "slow", o.Slow, "an answer that takes longer is a stalled one")
	f.DurationVar(&o.Settle, "settle", o.Settle, "end when all was answered at once for so long")
	f.DurationVar(&o.Most, "most", o.Most, "end after this time at the latest")
	return c
}

func (a *app) outage(ctx context.Context, o outage.Options, args []string) error {
	st, err := a.state(nil)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	ask, end, err := outage.Asker(st, args[0], args[1])
	if err != nil {
		return &coded{exitUsage, err}
	}
	defer end()
	var during func(context.Context) error
	if command := args[2:]; len(command) > 0 {
		during = func(ctx context.Context) error { return a.runCommand(ctx, command, st.Lab) }
	}
	r, err := outage.Measure(ctx, o, ask, during)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) error { return printOutage(w, r) }); err != nil {
		return err
	}
	if !r.Settled {
		return &silentError{exitNo}
	}
	return nil
}

func printOutage(w io.Writer, r *outage.Report) error {
	row := func(name string, s outage.Stats) []string {
		return []string{name, fmt.Sprint(s.Asked), fmt.Sprint(s.Answered - s.Stalled), fmt.Sprint(s.Stalled), fmt.Sprint(s.Failed), ms(s.P50), ms(s.P99)}
	}
	var rows [][]string
	name := "all"
	if r.Before != nil {
		name = "from then on"
		rows = append(rows, row("before", *r.Before))
	}
	rows = append(rows, row(name, r.Stats))
	if err := printTable(w, []string{"REQUESTS", "ASKED", "AT ONCE", "STALLED", "FAILED", "P50", "P99"}, rows); err != nil {
		return err
	}
	gap := "none"
	if r.Gap > 0 {
		gap = ms(r.Gap)
	}
	fmt.Fprintf(w, "gap: %s\n", gap)
	if len(r.Failures) > 0 {
		var why []string
		for _, f := range slices.Sorted(maps.Keys(r.Failures)) {
			why = append(why, fmt.Sprintf("%s (%d)", f, r.Failures[f]))
		}
		fmt.Fprintf(w, "failures: %s\n", strings.Join(why, ", "))
	}
	if !r.Settled {
		_, err := fmt.Fprintln(w, "in the end there was no steady answer")
		return err
	}
	return nil
}
