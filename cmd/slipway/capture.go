package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"slipway/datapath/observe"
	"slipway/lab"
	"slipway/lab/capture"
)

// captureFlags are what `slipway capture` was told.
type captureFlags struct {
	file, filter string
	all, print   bool
	headers      bool
	command      []string // to run while it listens
	count        int
	duration     time.Duration
	snapLen      int
	on           siteFlags // real hosts
}

func (a *app) captureCmd() *cobra.Command {
	o := captureFlags{}
	c := &cobra.Command{
		Use: "capture [PLACE[/DEVICE]...] [-- COMMAND...]", Short: "Record packets of any places and devices in one pcapng, or show them",
		Long: `Listen at the devices of nodes, pods, routers, "external" and "fabric", all in one
sequence. Places and devices may be patterns. Packets are shown in lines, or go
with -w to a pcapng file that has an interface "place/device" for each device, as
they come: the file can be opened meanwhile, and -w - feeds a pipe. It ends at
-c, at --duration, at Ctrl-C or when nobody reads the output any more.

A filter is in tcpdump's syntax (pcap-filter(7)) and sees packets as they are on
the device, in a tunnel the outer one: 'udp port 8472' is VXLAN here. What the
kernel had no room for is counted and reported.

A command after -- is run as soon as it listens, with its output on stderr. The
capture waits for its end, and takes nothing more soon after. --headers shows packets header
by header, each with its place in the frame.

With -f or --site the places are those of a cluster on real hosts: this program is
sent to the hosts, listens there, and is taken away again.`,
		Example: `  slipway capture client node01 --filter 'tcp port 80'
  slipway capture 'node*/flannel.1' fabric -c 20
  slipway capture node01/eth0 -c 1 --headers -- slipway exec client -- ping -c 1 10.244.2.2
  slipway capture --all -w all.pcapng --duration 10s
  slipway capture --site prod 'node*/eth0' --filter 'udp port 8472' -w prod.pcapng
  slipway capture client 'node*' -w - | wireshark -k -i -`,
		ValidArgsFunction: a.completePlaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n >= 0 {
				args, o.command = args[:n], args[n:]
			}
			return a.capture(cmd.Context(), args, o)
		},
	}
	f := c.Flags()
	f.StringVarP(&o.file, "write", "w", "", "write a pcapng to this file, - for stdout")
	f.StringVar(&o.filter, "filter", "", "take only what this filter takes, in tcpdump's syntax")
	f.BoolVar(&o.all, "all", false, "listen in every place of the lab")
	f.BoolVar(&o.print, "print", false, "show packets in lines also with -w")
	f.BoolVar(&o.headers, "headers", false, "show packets header by header")
	f.IntVarP(&o.count, "count", "c", 0, "end after so many packets")
	f.DurationVar(&o.duration, "duration", 0, "end after this time")
	o.on.add(c, false)
	f.IntVar(&o.snapLen, "snaplen", capture.DefaultSnapLen, "keep at most so many bytes of a packet")
	return c
}

// capture runs a capture and prints what came of it.
func (a *app) capture(ctx context.Context, names []string, f captureFlags) error {
	if err := a.checkCapture(names, f); err != nil {
		return err
	}
	if f.on.file != "" || f.on.site != "" {
		return a.captureSite(ctx, names, f)
	}
	st, err := a.state(nil)
	if err != nil {
		return err
	}
	choose := func(st *lab.State) ([]capture.Choice, error) { return capture.Select(st, names) }
	if f.all {
		choose = capture.All
	}
	o := capture.Options{Count: f.count, Duration: f.duration}
	if o.Places, err = choose(st); err != nil {
		return captureError(err)
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	run := func(ctx context.Context, o capture.Options) (*capture.Summary, error) { return capture.Run(ctx, st, o) }
	if len(f.command) > 0 {
		run = a.during(f.command, st.Lab, run)
	}
	return a.captureWith(ctx, f, o, run)
}

// captureWith compiles the filter, opens the output, and captures.
func (a *app) captureWith(ctx context.Context, f captureFlags, o capture.Options, run func(context.Context, capture.Options) (*capture.Summary, error)) (err error) {
	if o.Filter, err = capture.Compile(ctx, f.filter, f.snapLen); err != nil {
		return captureError(err)
	}
	if why := o.Filter.RawReason; why != "" {
		fmt.Fprintf(a.err, "slipway: the filter takes nothing of devices without a frame header: %s\n", why)
	}
	ctx, closeFile, err := a.captureOutput(ctx, f, &o)
	if err != nil {
		return err
	}
	s, err := run(ctx, o)
	if err = errors.Join(captureError(err), closeFile()); err != nil {
		return err
	}
	return a.printCapture(f, s)
}

func (a *app) checkCapture(names []string, f captureFlags) error {
	switch {
	case len(names) == 0 && !f.all:
		return usageError("say which places to listen in, or --all (`slipway get nodes` and `slipway get pods` list them)")
	case len(names) > 0 && f.all:
		return usageError("--all is every place: name none beside it")
	case len(f.command) > 0 && (f.on.file != "" || f.on.site != ""):
		return usageError("a command after -- is for labs")
	case f.count < 0 || f.duration < 0 || f.snapLen < 1 || f.snapLen > capture.DefaultSnapLen:
		return usageError("count and duration are not negative, and snaplen is between 1 and %d", capture.DefaultSnapLen)
	case f.file == "-" && f.print:
		return usageError("--print and -w - cannot both have stdout")
	case f.file == "-" && isTerminal(a.out):
		return usageError("a pcapng is not for a terminal: pipe it, as in `slipway capture … -w - | wireshark -k -i -`, or leave -w out to see packets in lines")
	case f.print && !a.forReading():
		return usageError("--print and -o %s cannot both have stdout", a.output)
	}
	return nil
}

// captureError turns what was asked wrongly into a usage error.
func captureError(err error) error {
	var name *capture.NameError
	var filter *capture.FilterError
	var device *capture.DeviceError
	if errors.As(err, &name) || errors.As(err, &filter) || errors.As(err, &device) {
		return &coded{exitUsage, err}
	}
	return err
}

// captureOutput opens where packets go to. The context that it returns ends
// also when nobody reads that any more.
func (a *app) captureOutput(ctx context.Context, f captureFlags, o *capture.Options) (context.Context, func() error, error) {
	closeFile := func() error { return nil }
	if f.print || f.file == "" && a.forReading() {
		o.Print = func(e observe.Event) error { return printEvent(a.out, e, f.headers) }
	}
	out := a.out
	switch f.file {
	case "":
	case "-":
		o.File = a.out
	default:
		file, err := os.Create(f.file)
		if err != nil {
			return nil, nil, &coded{exitUsage, err}
		}
		o.File, out, closeFile = file, file, file.Close
	}
	where := f.file
	o.Started = func(s *capture.Summary) {
		fmt.Fprintf(a.err, "slipway: listening at %s of %s%s\n", plural(devicesOf(s), "device"), plural(len(s.Places), "place"), into(where))
	}
	// With -o json alone nothing is written before the end.
	if fd, ok := out.(interface{ Fd() uintptr }); ok && (o.Print != nil || o.File != nil) {
		return capture.UntilReaderGone(ctx, int(fd.Fd())), closeFile, nil
	}
	return ctx, closeFile, nil
}

// forReading reports whether results are for people.
func (a *app) forReading() bool { return a.output == "table" || a.output == "text" || a.output == "" }

func into(file string) string {
	switch file {
	case "":
		return ""
	case "-":
		return ", into stdout"
	default:
		return ", into " + file
	}
}

func devicesOf(s *capture.Summary) int {
	n := 0
	for _, p := range s.Places {
		n += len(p.Devices)
	}
	return n
}

// printEvent is a line of a packet, and one for each of its headers if these are
// wanted.
func printEvent(w io.Writer, e observe.Event, headers bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s/%s %s ", e.Time.Format("15:04:05.000000"), e.Place.Label, e.Device, e.Direction)
	if !headers {
		fmt.Fprintln(&b, e.Line())
	} else {
		fmt.Fprintf(&b, "%d bytes\n", e.WireLength)
		for _, h := range e.Headers() {
			fmt.Fprintf(&b, "%6d %+4d  %-8s  %s\n", h.Offset, h.Length, h.Name, h.Text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printCapture says what was taken: on stderr, as stdout may have the packets,
// unless it is asked for in a form for programs.
func (a *app) printCapture(f captureFlags, s *capture.Summary) error {
	if !a.forReading() {
		if f.file == "-" {
			a.out = a.err
		}
		return a.print(s, nil)
	}
	var rows [][]string
	for _, p := range s.Places {
		for _, d := range p.Devices {
			if d.Packets > 0 {
				rows = append(rows, []string{p.Place + "/" + d.Device, fmt.Sprint(d.Packets), fmt.Sprint(d.Bytes)})
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s in %s (%s)", plural(s.Packets, "packet"), ms(s.Took), s.Ended)
	if s.Dropped == 0 {
		b.WriteString(", none dropped\n")
	} else {
		fmt.Fprintf(&b, ", %d MORE DROPPED by the kernel for want of room:", s.Dropped)
		for _, p := range s.Places {
			if p.Dropped > 0 {
				fmt.Fprintf(&b, " %d in %s", p.Dropped, p.Place)
			}
		}
		b.WriteString("\n")
	}
	if len(rows) > 0 {
		if err := printTable(&b, []string{"DEVICE", "PACKETS", "BYTES"}, rows); err != nil {
			return err
		}
	}
	_, err := io.WriteString(a.err, b.String())
	if errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// completePlaces completes any number of places.
func (a *app) completePlaces(cmd *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	names, how := a.completeTargets(cmd, nil, toComplete)
	return names, how | cobra.ShellCompDirectiveNoSpace
}
