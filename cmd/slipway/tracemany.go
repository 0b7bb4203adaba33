package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/lab/tracer"
	"slipway/lab/traceview"
)

// traceList is what `slipway trace --count N -o json` prints.
type traceList struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"` // TraceList
	Verdicts   map[string]int `json:"verdicts"`
	// Endpoints counts where the packets ended: it shows how a service shares
	// its connections out.
	Endpoints map[string]int `json:"endpoints"`
	Disagree  int            `json:"disagree"`
	Items     []*trace.Trace `json:"items"`
}

// traceMany sends one packet after the other.
func (a *app) traceMany(ctx context.Context, one func(context.Context) (*tracer.Bundle, error), f *traceFlags) error {
	list := traceList{APIVersion: tracer.APIVersion, Kind: "TraceList", Verdicts: map[string]int{}, Endpoints: map[string]int{}}
	p := a.progress()
	p.Phase("packets", f.count)
	for range f.count {
		b, err := one(ctx)
		if err != nil {
			p.clear()
			return traceError(err)
		}
		list.add(b.Trace)
		p.Step()
	}
	p.clear()
	err := a.print(list, func(w io.Writer) error {
		if err := traceview.Text(w, list.Items[0], a.textOptions()); err != nil {
			return err
		}
		return list.sum(w)
	})
	if err != nil {
		return err
	}
	return list.worst()
}

func (l *traceList) add(t *trace.Trace) {
	l.Items = append(l.Items, t)
	l.Verdicts[t.Verdict.String()]++
	if t.Agree != nil && !*t.Agree {
		l.Disagree++
	}
	if end := endOf(t); end != "" {
		l.Endpoints[end]++
	}
}

// endOf is where a packet was delivered.
func endOf(t *trace.Trace) string {
	hops := t.Observed
	if t.ObservedVerdict == nil {
		hops = t.Predicted
	}
	for _, h := range slices.Backward(hops) {
		if h.Stage == trace.Deliver {
			return h.Place
		}
	}
	return ""
}

// sum adds up what became of all packets; the first one's way stands above.
func (l *traceList) sum(w io.Writer) error {
	fmt.Fprintf(w, "\n%s, of which the first is shown:\n", plural(len(l.Items), "packet"))
	for _, v := range ordered.Keys(l.Verdicts) {
		fmt.Fprintf(w, "  %-10s %d\n", v, l.Verdicts[v])
	}
	for _, e := range ordered.Keys(l.Endpoints) {
		fmt.Fprintf(w, "  at %s: %d (%.0f %%)\n", e, l.Endpoints[e], 100*float64(l.Endpoints[e])/float64(len(l.Items)))
	}
	_, err := fmt.Fprintf(w, "  not as predicted: %d\n", l.Disagree)
	return err
}

// worst is the exit code of the trace that went worst.
func (l *traceList) worst() error {
	if l.Disagree > 0 {
		return &silentError{exitDisagree}
	}
	for _, t := range l.Items {
		if err := verdictError(t); err != nil {
			return err
		}
	}
	return nil
}

// follow prints live packets as they come: as text, or one JSON document per
// line.
func (a *app) follow(ctx context.Context, t *tracer.Tracer, req tracer.Request, f *traceFlags) error {
	a.logger().Debug("following", "from", req.From, "to", req.To, "for", f.duration)
	fmt.Fprintf(a.err, "following packets from %s to %s for %s; Ctrl-C ends it earlier\n", req.From, req.To, f.duration)
	n := 0
	err := t.Follow(ctx, req, f.duration, func(tr *trace.Trace) error {
		n++
		if a.output == "json" {
			return json.NewEncoder(a.out).Encode(tr)
		}
		if n > 1 {
			fmt.Fprintln(a.out)
		}
		return a.print(tr, func(w io.Writer) error { return traceview.Text(w, tr, a.textOptions()) })
	})
	if err != nil {
		return traceError(err)
	}
	fmt.Fprintf(a.err, "%s followed\n", plural(n, "packet"))
	if n == 0 {
		return &silentError{exitNo}
	}
	return nil
}

func (a *app) traceDiffCmd() *cobra.Command {
	return &cobra.Command{
		Use: "diff A B", Short: "Compare two recorded traces hop by hop",
		Long: `Compare two traces that --record wrote: where the packet went, what the headers
were, which rules and routes decided. Exit code 1 means that they differ.`,
		Example: "  slipway trace client nginx-svc --record before\n  slipway exec node02 -- ip route del 10.244.1.0/24\n  slipway trace client nginx-svc --record after\n  slipway trace diff before after",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			var traces [2]*trace.Trace
			for i, dir := range args {
				b, err := tracer.ReadBundle(dir)
				if err != nil {
					return traceError(err)
				}
				traces[i] = b.Trace
			}
			diff := tracer.Diff(traces[0], traces[1])
			err := a.print(map[string]any{"a": args[0], "b": args[1], "differences": append([]tracer.Difference{}, diff...)}, func(w io.Writer) error {
				return printTraceDiff(w, args, diff)
			})
			if err == nil && len(diff) > 0 {
				err = &silentError{exitNo}
			}
			return err
		},
	}
}

func printTraceDiff(w io.Writer, names []string, diff []tracer.Difference) error {
	if len(diff) == 0 {
		_, err := fmt.Fprintln(w, "no differences")
		return err
	}
	fmt.Fprintf(w, "A: %s\nB: %s\n", names[0], names[1])
	reply := false
	for _, d := range diff {
		if d.Reply && !reply {
			reply = true
			fmt.Fprintln(w, "in the reply:")
		}
		fmt.Fprintf(w, "  %s\n", d.Text)
	}
	_, err := fmt.Fprintln(w, plural(len(diff), "difference"))
	return err
}

// completeTraceEnds completes places, and services as destination.
func (a *app) completeTraceEnds(cmd *cobra.Command, args []string, part string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, directive := a.completeTargets(cmd, nil, part)
	st, err := a.state(nil)
	if err != nil || len(args) == 0 {
		return names, directive
	}
	return append(names, serviceNames(st)...), directive
}

func serviceNames(st *lab.State) []string {
	var out []string
	for _, v := range st.Snapshot.Services {
		for _, p := range v.Ports {
			out = append(out, fmt.Sprintf("%s.%s:%d", v.Name, v.Namespace, p.Port))
		}
	}
	return out
}
