package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/lab"
	"slipway/lab/tracer"
	"slipway/lab/traceview"
)

// traceFlags are the flags of `slipway trace`.
type traceFlags struct {
	proto    string
	size     int
	ttl      int
	df       bool
	count    int
	predict  bool
	whatIf   []string
	follow   bool
	duration time.Duration
	timeout  time.Duration
	observer string
	record   string
	replay   string
	file     string
	on       siteFlags // real hosts
}

const traceLong = `Follow a packet from SRC to DST through every namespace, device, table and rule:
the way that the kernels' state predicts, and the way that one real packet took.
Where they differ is the headline.

SRC is a node, a router, a pod or "external" (a client on the underlay).
DST is one of those, an address, or a service: NAME, svc/NAME, NAMESPACE/NAME,
NAME.NAMESPACE.svc.cluster.local; a NodePort is NODE:PORT. PORT is a number or a
name; a service or pod with a port needs none, and what has none is pinged.

With -f or --site the hosts are real: this program is sent to them, reads their state,
sends the packet from where it comes from, watches it on all of them, and is taken
away again.

With --predict nothing is sent. --what-if predicts on an edited copy of the state,
and may be repeated:
  'node node02 down'                       'link node01 eth0 down'
  'delete route node01 10.244.2.0/24'      'add route node01 blackhole 10.244.2.0/24'
  'delete endpoint default/nginx-0'        'delete service nginx-svc'
  'rule node01 -I FORWARD 1 -p tcp -j DROP'
  'sysctl node01 net.ipv4.ip_forward=0'    'delete fdb node01 MAC'

Exit codes: 0 delivered, as predicted · 1 not delivered, as predicted · 3 a needed
kernel feature or privilege is missing · 4 prediction and observation differ.`

const traceExample = `  slipway trace client nginx-svc:8080
  slipway trace client nginx-svc:8080 -v               # explain every step
  slipway trace external node01:30080
  slipway trace client node02 --proto icmp --size 1400 --df
  slipway trace client nginx-svc --predict --what-if 'delete endpoint 10.244.1.3'
  slipway trace client nginx-svc -o html -w trace.html
  slipway trace client nginx-svc --record /tmp/t1 && slipway trace --replay /tmp/t1 -v
  slipway trace --follow client nginx-svc --duration 5s
  slipway trace diff /tmp/t1 /tmp/t2`

// traceFormats are how a trace can be printed.
var traceFormats = []string{"text", "table", "json", "yaml", "mermaid", "dot", "svg", "html", "pcapng"}

func (a *app) traceCmd() *cobra.Command {
	var f traceFlags
	c := &cobra.Command{
		Use: "trace SRC DST[:PORT]", Short: "Follow a packet hop by hop: predicted, observed, and why",
		Long: traceLong, Example: traceExample,
		Annotations:       map[string]string{formatsOf: strings.Join(traceFormats, ",")},
		Args:              func(_ *cobra.Command, args []string) error { return f.checkArgs(args) },
		ValidArgsFunction: a.completeTraceEnds,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.trace(cmd, &f, args) },
	}
	fl := c.Flags()
	fl.StringVar(&f.proto, "proto", "", "tcp, udp, icmp or sctp; default: what the port is declared as")
	fl.IntVar(&f.size, "size", 0, "payload in bytes (udp, icmp)")
	fl.IntVar(&f.ttl, "ttl", 0, "time to live, 1 to 255; default: the sender's")
	fl.BoolVar(&f.df, "df", false, "set the don't-fragment bit whatever is known of the path; --df=false clears it")
	fl.IntVar(&f.count, "count", 1, "how many packets, each traced by itself")
	fl.BoolVar(&f.predict, "predict", false, "send nothing: only predict")
	fl.StringArrayVar(&f.whatIf, "what-if", nil, "predict on an edited copy of the state; may be repeated")
	fl.BoolVar(&f.follow, "follow", false, "send nothing: follow live packets from SRC to DST")
	fl.DurationVar(&f.duration, "duration", 10*time.Second, "how long to follow")
	fl.DurationVar(&f.timeout, "timeout", 4*time.Second, "how long to wait for an answer")
	fl.StringVar(&f.observer, "observer", tracer.Auto, "how to observe: "+strings.Join(tracer.Observers, ", "))
	fl.StringVar(&f.record, "record", "", "also write topology, state, rules, packets and trace to this directory")
	fl.StringVar(&f.replay, "replay", "", "show a recorded trace; needs no lab and no privilege")
	fl.StringVarP(&f.file, "write", "w", "", "write the result to this file instead of stdout")
	f.on.add(c, false)
	c.AddCommand(a.traceDiffCmd())
	return c
}

func (f *traceFlags) checkArgs(args []string) error {
	switch {
	case f.replay != "" && len(args) > 0:
		return fmt.Errorf("--replay shows what was recorded and takes no SRC and DST")
	case f.replay == "" && len(args) != 2:
		return fmt.Errorf("wants SRC and DST, got %d arguments", len(args))
	}
	return nil
}

// check refuses values that no trace can have, before anything is done.
func (f *traceFlags) check() error {
	switch {
	case f.proto != "" && !slices.Contains([]string{"tcp", "udp", "icmp", "sctp"}, f.proto):
		return usageError("--proto %q is not one of tcp, udp, icmp, sctp", f.proto)
	case f.ttl < 0 || f.ttl > 255:
		return usageError("--ttl %d is not within 1 to 255", f.ttl)
	case f.size < 0 || f.size > observe.MaxPayload:
		return usageError("--size %d is not within 0 to %d", f.size, observe.MaxPayload)
	case f.count < 1 || f.count > maxCount:
		return usageError("--count %d is not within 1 to %d", f.count, maxCount)
	case !slices.Contains(tracer.Observers, f.observer):
		return usageError("--observer %q is not one of %s", f.observer, strings.Join(tracer.Observers, ", "))
	case f.follow && (f.predict || len(f.whatIf) > 0 || f.count > 1 || f.replay != ""):
		return usageError("--follow watches live packets: it goes with none of --predict, --what-if, --count, --replay")
	case f.count > 1 && f.record != "":
		return usageError("--record keeps one trace: leave --count out")
	case f.timeout <= 0 || f.duration <= 0:
		return usageError("--timeout and --duration are more than zero")
	}
	return nil
}

// maxCount bounds a run of traces at a few minutes.
const maxCount = 1000

func (a *app) trace(cmd *cobra.Command, f *traceFlags, args []string) error {
	if err := f.check(); err != nil {
		return err
	}
	if err := a.checkTraceOutput(f); err != nil {
		return err
	}
	if f.replay != "" {
		return a.replay(f)
	}
	if f.on.file != "" || f.on.site != "" {
		return a.traceSite(cmd, f, args)
	}
	st, err := a.state(nil)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	t := tracer.New(st, tracer.Options{Observer: f.observer})
	req := f.request(cmd, args, a.output)
	switch {
	case f.follow:
		return a.follow(cmd.Context(), t, req, f)
	case f.count > 1:
		return a.traceMany(cmd.Context(), func(ctx context.Context) (*tracer.Bundle, error) { return t.Trace(ctx, req) }, f)
	}
	b, err := t.Trace(cmd.Context(), req)
	if err != nil {
		return traceError(err)
	}
	return a.finish(f, b)
}

// finish keeps and prints a trace, and ends with what it says.
func (a *app) finish(f *traceFlags, b *tracer.Bundle) error {
	if f.record != "" {
		if err := b.Write(f.record); err != nil {
			return traceError(err)
		}
		fmt.Fprintf(a.err, "recorded in %s: `slipway trace --replay %s` shows it\n", f.record, f.record)
	}
	if err := a.writeTrace(f, b); err != nil {
		return err
	}
	return verdictError(b.Trace)
}

func (f *traceFlags) request(cmd *cobra.Command, args []string, output string) tracer.Request {
	r := tracer.Request{
		From: args[0], To: args[1], Protocol: f.proto, Size: f.size, TTL: uint8(f.ttl), Timeout: f.timeout, //nolint:gosec // checked
		Predict: f.predict || len(f.whatIf) > 0, WhatIf: f.whatIf, Packets: f.record != "" || output == "pcapng",
	}
	if cmd.Flags().Changed("df") {
		r.Fragment = observe.FragmentAllowed
		if f.df {
			r.Fragment = observe.FragmentNever
		}
	}
	return r
}

// traceError gives the errors of a trace their exit codes.
func traceError(err error) error {
	var name *tracer.NameError
	var target *lab.TargetError
	var bundle *tracer.BundleError
	var edit *trace.EditError
	var missing *tracer.MissingError
	switch {
	case errors.As(err, &name), errors.As(err, &target), errors.As(err, &bundle), errors.As(err, &edit):
		return &coded{exitUsage, err}
	case errors.As(err, &missing):
		return &coded{exitMissing, err}
	}
	return err
}

// verdictError is the exit code that a trace stands for.
func verdictError(t *trace.Trace) error {
	switch {
	case t.Agree != nil && !*t.Agree:
		return &silentError{exitDisagree}
	case t.Verdict != trace.Delivered:
		return &silentError{exitNo}
	}
	return nil
}

// replay shows a recorded trace; with edits it is predicted anew.
func (a *app) replay(f *traceFlags) error {
	b, err := tracer.ReadBundle(f.replay)
	if err != nil {
		return traceError(err)
	}
	if len(f.whatIf) > 0 || f.predict {
		if b, err = tracer.Repredict(b, f.whatIf); err != nil {
			return traceError(err)
		}
	}
	return a.finish(f, b)
}

// checkTraceOutput refuses to write what a terminal cannot show.
func (a *app) checkTraceOutput(f *traceFlags) error {
	if (f.follow || f.count > 1) && !slices.Contains([]string{"text", "table", "json", "yaml"}, a.output) {
		return usageError("-o %s shows one packet: leave --follow and --count out", a.output)
	}
	if a.output != "pcapng" {
		return nil
	}
	if f.predict || len(f.whatIf) > 0 {
		return usageError("-o pcapng needs one packet that was really sent")
	}
	if file, ok := a.out.(*os.File); ok && f.file == "" && term.IsTerminal(int(file.Fd())) {
		return usageError("pcapng is binary: write it to a file with -w FILE, or pipe it to `wireshark -k -i -`")
	}
	return nil
}

// writeTrace prints to stdout or into a file.
func (a *app) writeTrace(f *traceFlags, b *tracer.Bundle) (err error) {
	if f.file == "" {
		return a.printTrace(b)
	}
	out, err := os.Create(f.file)
	if err != nil {
		return &coded{exitUsage, fmt.Errorf("write the trace: %w", err)}
	}
	to := *a
	to.out = out
	return errors.Join(to.printTrace(b), out.Close())
}

func (a *app) printTrace(b *tracer.Bundle) error {
	sub := traceview.SubtitlesOf(b.Snapshot)
	switch a.output {
	case "mermaid":
		return traceview.Mermaid(a.out, b.Trace)
	case "dot":
		return traceview.DOT(a.out, b.Trace, sub)
	case "svg":
		return traceview.SVG(a.out, b.Trace, sub)
	case "html":
		return traceview.HTML(a.out, b.Trace, sub)
	case "pcapng":
		return b.WritePcapng(a.out)
	}
	return a.print(b.Trace, func(w io.Writer) error { return traceview.Text(w, b.Trace, a.textOptions()) })
}

func (a *app) textOptions() traceview.TextOptions {
	return traceview.TextOptions{Colour: isTerminal(a.out) && os.Getenv("NO_COLOR") == "", Verbose: a.verbose}
}
