package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/lab/bench/report"
	"slipway/topology"
)

// benchFlags are the flags of `slipway bench`.
type benchFlags struct {
	modes, workloads  []string
	rounds, maxRounds int
	duration, warmUp  time.Duration
	control           string
	quick             bool
	file, save        string
}

const benchLong = `Measure the modes side by side: a lab of two nodes is brought up in each mode, and
rounds go through all of them in turn, so that a disturbance meets all alike. Every
figure comes with the interval that holds its true median, and with the ratio to the
control in the same rounds; the machine and what else it did are written down.

Workloads: tcp-stream (one connection, 128 KiB writes), tcp-rr (requests of one byte over
a standing connection), tcp-crr (connect, request, answer, close; by the ClusterIP),
udp-pps (small datagrams as fast as they go).

After --rounds, further rounds follow until the intervals are within 5 % of the medians, or
--max-rounds is reached. --save keeps everything as JSON, for ` + "`bench render`" + ` and ` + "`bench\ncompare`" + `.`

func (a *app) benchCmd() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "bench", Short: "Measure the modes side by side; how fast and how big labs are",
		Long:        benchLong,
		Example:     "  slipway bench --quick\n  slipway bench --save bench.json -o html -w bench.html\n  slipway bench --modes flannel-vxlan,calico-ipip --workloads tcp-stream --control flannel-vxlan\n  slipway bench compare before.json after.json\n  slipway bench scale",
		Args:        noCommand,
		Annotations: map[string]string{formatsOf: "table,csv,html,markdown,json"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.benchModes(cmd, &f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.modes, "modes", nil, "only these; default all five")
	fl.StringSliceVar(&f.workloads, "workloads", nil, "only these: "+strings.Join(bench.Workloads(), ", "))
	fl.IntVar(&f.rounds, "rounds", 6, "at least so many rounds; six are the fewest that give a 95 % interval")
	fl.IntVar(&f.maxRounds, "max-rounds", 15, "at most so many, while intervals are wide")
	fl.DurationVar(&f.duration, "duration", time.Second, "of one measurement")
	fl.DurationVar(&f.warmUp, "warm-up", 200*time.Millisecond, "traffic before each measurement, which is not counted")
	fl.StringVar(&f.control, "control", string(topology.FlannelHostGW), "the mode that ratios are to")
	fl.BoolVar(&f.quick, "quick", false, "all five modes by tcp-stream, tcp-rr and tcp-crr in under a minute: 3 rounds of 0.5 s")
	fl.StringVarP(&f.file, "write", "w", "", "write the report to this file instead of stdout")
	fl.StringVar(&f.save, "save", "", "also write the report as JSON to this file")
	for _, sub := range []*cobra.Command{a.benchScaleCmd(), a.benchCompareCmd(), a.benchRenderCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// options checks the flags.
func (f *benchFlags) options() (bench.ModesOptions, error) {
	if f.quick {
		f.workloads, f.rounds, f.maxRounds = []string{load.TCPStream, load.TCPRequests, load.TCPConnects}, 3, 3
		f.duration, f.warmUp = 500*time.Millisecond, 100*time.Millisecond
	}
	o := bench.ModesOptions{
		Workloads: f.workloads, Rounds: f.rounds, MaxRounds: max(f.rounds, f.maxRounds), Duration: f.duration, WarmUp: f.warmUp,
		Control: topology.ModeName(f.control), Seed: 1, Version: version(),
	}
	if len(o.Workloads) == 0 {
		o.Workloads = bench.Workloads()
	}
	for _, m := range f.modes {
		o.Modes = append(o.Modes, topology.ModeName(m))
	}
	if len(o.Modes) == 0 {
		o.Modes = topology.ModeNames()
	}
	return o, f.check(o)
}

func (f *benchFlags) check(o bench.ModesOptions) error {
	for _, m := range append(slices.Clone(o.Modes), o.Control) {
		if !slices.Contains(topology.ModeNames(), m) {
			return usageError("mode %q is not one of %s", m, join(topology.ModeNames()))
		}
	}
	for _, w := range o.Workloads {
		if !slices.Contains(bench.Workloads(), w) {
			return usageError("workload %q is not one of %s", w, strings.Join(bench.Workloads(), ", "))
		}
	}
	switch {
	case !slices.Contains(o.Modes, o.Control):
		return usageError("the control %s is not among the modes: choose another with --control", o.Control)
	case o.Rounds < 1 || o.MaxRounds > maxBenchRounds:
		return usageError("rounds are 1 to %d", maxBenchRounds)
	case o.Duration < 50*time.Millisecond || o.Duration > time.Minute || o.WarmUp < 0 || o.WarmUp > time.Minute:
		return usageError("--duration is 50ms to 1m, --warm-up at most 1m")
	}
	return nil
}

const maxBenchRounds = 1000

func (a *app) benchModes(cmd *cobra.Command, f *benchFlags) error {
	o, err := f.options()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	if o.Exe, err = os.Executable(); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "%d modes × %d workloads, %d to %d rounds of %s: at most %s, and the labs\n", len(o.Modes), len(o.Workloads), o.Rounds, o.MaxRounds, o.Duration, o.Longest().Round(time.Second))
	p := a.progress()
	o.Progress = p
	r, err := bench.Modes(cmd.Context(), o)
	p.clear()
	if r == nil || len(r.Series) == 0 {
		return err
	}
	return errors.Join(err, a.keepReport(r, f.save), a.writeReport(r, f.file))
}

// keepReport writes the JSON form beside what is printed.
func (a *app) keepReport(r *report.Report, file string) error {
	if file == "" {
		return nil
	}
	out, err := os.Create(file)
	if err != nil {
		return &coded{exitUsage, fmt.Errorf("save report: %w", err)}
	}
	return errors.Join(report.Write(out, r), out.Close())
}
