package scenario

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
	"rsc.io/script"

	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/lab/tracer"
)

// traceArgs are the arguments of `trace`, and what its packet's fate has to be.
type traceArgs struct {
	request                       tracer.Request
	verdict, place, table, reason string
}

func parseTrace(args []string) (traceArgs, error) {
	var t traceArgs
	var df bool
	f := pflag.NewFlagSet("trace", pflag.ContinueOnError)
	f.StringVar(&t.verdict, "verdict", trace.Delivered.String(), "")
	f.StringVar(&t.place, "place", "", "")
	f.StringVar(&t.table, "table", "", "")
	f.StringVar(&t.reason, "reason", "", "")
	f.StringVar(&t.request.Protocol, "proto", "", "")
	f.IntVar(&t.request.Size, "size", 0, "")
	f.BoolVar(&df, "df", false, "")
	if err := f.Parse(args); err != nil {
		return t, err
	}
	if f.NArg() != 2 {
		return t, fmt.Errorf("%w: trace SRC DST[:PORT] [--verdict V] [--place P] [--table T] [--reason R]", script.ErrUsage)
	}
	var v trace.Verdict
	if err := v.UnmarshalText([]byte(t.verdict)); err != nil || v.String() != t.verdict {
		return t, fmt.Errorf("%w: there is no verdict %q", script.ErrUsage, t.verdict)
	}
	t.request.From, t.request.To = f.Arg(0), f.Arg(1)
	if df {
		t.request.Fragment = observe.FragmentNever
	}
	return t, nil
}

// trace sends one packet, watches it, and compares its fate with what is wanted.
func (x *run) trace(args []string) (string, string, error) {
	t, err := parseTrace(args)
	if err != nil {
		return "", "", err
	}
	st, err := x.state()
	if err != nil {
		return "", "", err
	}
	b, err := tracer.New(st, tracer.Options{}).Trace(x.ctx, t.request)
	if err != nil {
		return "", "", err
	}
	said := fate(b.Trace)
	x.outcome = outcome{
		want:    phrase(wantTrace, t.request.From, t.request.To, t.wanted()),
		wantNot: phrase(wantNoTrace, t.request.From, t.request.To, t.wanted()), got: same(said),
	}
	if wrong := t.wrong(b.Trace); wrong != "" {
		return said + "\n", "", fmt.Errorf("%s: %s", wrong, said)
	}
	return said + "\n", "", nil
}

// wanted is the fate that is wanted, in short.
func (t traceArgs) wanted() string {
	s := t.verdict
	for _, p := range []struct{ what, v string }{{"at", t.place}, {"by", t.table}, {"because of", t.reason}} {
		if p.v != "" {
			s += " " + p.what + " " + p.v
		}
	}
	return s
}

// cause is what the prediction says, which knows tables, else the observation.
func cause(t *trace.Trace) *trace.Cause {
	if t.PredictedCause != nil {
		return t.PredictedCause
	}
	return t.ObservedCause
}

// wrong says what is not as wanted; empty if nothing.
func (t traceArgs) wrong(tr *trace.Trace) string {
	if tr.Verdict.String() != t.verdict {
		return "the packet is " + tr.Verdict.String() + " and not " + t.verdict
	}
	c := cause(tr)
	if c == nil {
		c = &trace.Cause{}
	}
	for _, p := range []struct{ what, got, want string }{{"place", c.Place, t.place}, {"table", c.Table, t.table}, {"reason", string(c.Reason), t.reason}} {
		if p.want != "" && p.got != p.want {
			return fmt.Sprintf("the %s is %q and not %q", p.what, p.got, p.want)
		}
	}
	return ""
}

// fate is how a packet ended, on one line.
func fate(t *trace.Trace) string {
	var b strings.Builder
	b.WriteString(t.Verdict.String())
	if c := cause(t); c != nil && t.Verdict != trace.Delivered {
		fmt.Fprintf(&b, " at %s (%s, %s): %s", c.Place, c.Table, c.Reason, c.Text)
		if c.Rule != "" {
			fmt.Fprintf(&b, " [%s]", c.Rule)
		}
	}
	return b.String()
}
