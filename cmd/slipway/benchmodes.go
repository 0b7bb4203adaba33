package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
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
	modes, workloads, paths, targets []string
	streams                          []int
	rounds, maxRounds                int
	duration, warmUp, budget         time.Duration
	control, tool                    string
	quick, controls, here            bool
	file, save                       string
	kube                             kubeFlags
}

const benchLong = `Measure the modes side by side: a lab of each variant is brought up, and rounds go
through all of them in turn, so that a disturbance meets all alike. Every figure comes
with the interval that holds its true median, and with the ratio to the control in the
same rounds; CPU time, MTU and offloads stand beside it; the machine and what else it did
are written down.

Variants are the modes, flannel-udp in each implementation. Workloads: tcp-stream,
udp-stream (200 Mbit/s), udp-pps (small datagrams as fast as they go), tcp-rr and udp-rr
(request and answer, one at a time), tcp-rr-open (2000 requests a second, late answers
counted from when the request was due), tcp-crr (connect, request, answer, close), http,
and idle (what the labs cost at rest). Between pods of two nodes all of them are measured;
on one node, over a router, and from a pod to itself by its service, and in the controls
(loopback, a veth pair, from node to node) the main ones; --paths measures every workload
where it says. --controls adds write sizes of tcp-stream from 1 KiB to 1 MiB, and variants
with the same MTU for all and without offloads, and takes up to 20 minutes.

After --rounds, further rounds follow of what still varies, until the intervals are within
5 % of the medians, or --max-rounds or the --budget is reached. The plan is printed first.
--here measures in the lab that runs (or -L LAB), of whatever kind, instead of in labs of its
own: pods of the bench's come into it, in the namespace slipway-bench, and are taken out
again, also when it is interrupted; nothing else of the lab is touched.
--kubeconfig measures in the cluster of that file, of whatever making: a server's pod on one
node and Jobs on another (--nodes), in the namespace slipway-bench, which is made and removed
again; from pod to pod, by ClusterIP, and from node to node as the control.
--save keeps everything as JSON, for ` + "`bench render`" + ` and ` + "`bench compare`" + `; -v prints all
metrics, not just a summary.`

// Budgets of whole commands.
const (
	defaultBudget  = 9*time.Minute + 30*time.Second
	controlsBudget = 20 * time.Minute
)

func (a *app) benchCmd() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use: "bench", Short: "Measure the modes side by side; how fast and how big labs are",
		Long:        benchLong,
		Example:     "  slipway bench --quick\n  slipway bench --save bench.json -o html -w bench.html\n  slipway bench --modes flannel-vxlan,flannel-udp/ebpf --workloads tcp-stream --controls\n  slipway bench --here --workloads tcp-rr,tcp-crr --save mine.json   # in the lab that is up\n  slipway bench --kubeconfig ~/.kube/config --image registry.example/slipway:v1\n  slipway bench compare before.json after.json\n  slipway bench scale",
		Args:        noCommand,
		Annotations: map[string]string{formatsOf: "table,csv,html,markdown,json"},
		RunE:        func(cmd *cobra.Command, _ []string) error { return a.benchModes(cmd, &f) },
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.modes, "modes", nil, "only these, as flannel-vxlan or flannel-udp/simple; default all")
	fl.BoolVar(&f.here, "here", false, "in the lab that runs (-L LAB), as it is, and in no other")
	fl.StringSliceVar(&f.workloads, "workloads", nil, "only these: "+strings.Join(bench.Workloads(), ", "))
	fl.StringSliceVar(&f.paths, "paths", nil, "all workloads on these: "+strings.Join(bench.Paths(), ", "))
	fl.StringSliceVar(&f.targets, "targets", nil, "all workloads by these: "+strings.Join(bench.Targets(), ", ")+"; default pod, and all for tcp-crr")
	fl.IntSliceVar(&f.streams, "streams", []int{1, 4}, "connections of tcp-stream")
	fl.BoolVar(&f.controls, "controls", false, "also write sizes, variants of equal MTU and without offloads")
	fl.StringVar(&f.tool, "tool", toolSlipway, "the generator: slipway, or iperf3, which must be installed and runs "+strings.Join(load.Iperf3{}.Workloads(), ", "))
	fl.IntVar(&f.rounds, "rounds", 6, "at least so many rounds; six are the fewest that give a 95 % interval")
	fl.IntVar(&f.maxRounds, "max-rounds", 15, "at most so many, while intervals are wide")
	fl.DurationVar(&f.duration, "duration", 400*time.Millisecond, "of one measurement")
	fl.DurationVar(&f.warmUp, "warm-up", 50*time.Millisecond, "traffic before each measurement, which is not counted")
	fl.DurationVar(&f.budget, "budget", defaultBudget, "for everything: no round is begun that would end later; 0 is none")
	fl.StringVar(&f.control, "control", "", "the variant that ratios are to; default flannel-host-gw, or without it the first")
	fl.BoolVar(&f.quick, "quick", false, "all five modes by tcp-stream, tcp-rr and tcp-crr in under a minute: 3 rounds of 0.5 s")
	f.kube.add(c)
	fl.StringVarP(&f.file, "write", "w", "", "write the report to this file instead of stdout")
	fl.StringVar(&f.save, "save", "", "also write the report as JSON to this file")
	for _, sub := range []*cobra.Command{a.benchScaleCmd(), a.benchCurveCmd(), a.benchPeersCmd(), a.benchCompareCmd(), a.benchRenderCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

// The generators.
const (
	toolSlipway = "slipway"
	toolIperf3  = "iperf3"
)

// quicken sets what --quick stands for, where nothing else is asked for.
func (f *benchFlags) quicken(given func(string) bool) {
	set := func(flag string, to func()) {
		if !given(flag) {
			to()
		}
	}
	set("workloads", func() { f.workloads = []string{load.TCPStream, load.TCPRequests, load.TCPConnects} })
	set("paths", func() { f.paths = []string{"other-node"} })
	set("targets", func() { f.targets = []string{"pod"} })
	set("streams", func() { f.streams = []int{1} })
	set("duration", func() { f.duration = 500 * time.Millisecond })
	set("warm-up", func() { f.warmUp = 100 * time.Millisecond })
	set("rounds", func() { f.rounds = 3 })
	set("max-rounds", func() { f.maxRounds = f.rounds })
	set("budget", func() { f.budget = time.Minute })
}

// plan checks the flags and decides what will be done, in a lab that runs if there
// is one.
func (f *benchFlags) plan(given func(string) bool, here *bench.Running) (bench.ModesPlan, error) {
	if f.quick {
		f.quicken(given)
	}
	if f.controls && !given("budget") {
		f.budget = controlsBudget
	}
	o := bench.ModesOptions{
		Workloads: f.workloads, Paths: f.paths, Targets: f.targets, Streams: f.streams, Controls: f.controls,
		Rounds: f.rounds, MaxRounds: max(f.rounds, f.maxRounds), Duration: f.duration, WarmUp: f.warmUp, Budget: f.budget,
		Control: f.control, Seed: 1, Version: version(), Runner: load.Native{}, Generator: toolSlipway, Here: here,
	}
	if here != nil {
		o.Control = here.Name()
	} else if err := f.variants(&o); err != nil {
		return bench.ModesPlan{}, err
	}
	if err := f.useTool(&o, given); err != nil {
		return bench.ModesPlan{}, err
	}
	if len(o.Workloads) == 0 {
		o.Workloads = bench.Workloads()
		if len(o.Paths) > 0 { // at rest there is none
			o.Workloads = slices.DeleteFunc(o.Workloads, func(w string) bool { return w == load.Idle })
		}
	}
	if err := f.check(o); err != nil {
		return bench.ModesPlan{}, err
	}
	p := o.Plan()
	switch least := p.Overhead() + p.Round; {
	case p.Measurements == 0 && here != nil:
		return p, usageError("lab %s has only the paths %s", here.Lab, strings.Join(here.Paths(), ", "))
	case p.Measurements == 0:
		return p, usageError("none of these modes has the path %s", strings.Join(o.Paths, ", "))
	case p.Budget > 0 && least > p.Budget:
		return p, usageError("one round of this takes about %s, more than the --budget of %s", least.Round(time.Second), p.Budget)
	}
	return p, nil
}

// variants reads --modes and --control.
func (f *benchFlags) variants(o *bench.ModesOptions) error {
	o.Variants = bench.Variants()
	if f.quick {
		o.Variants = bench.ModeVariants()
	}
	if len(f.modes) > 0 {
		o.Variants = nil
	}
	for _, m := range f.modes {
		v, err := bench.ParseVariant(m)
		if err != nil {
			return usageError("mode %v", err)
		}
		if slices.Contains(o.Variants, v) {
			return usageError("mode %s is given twice", v.Name())
		}
		o.Variants = append(o.Variants, v)
	}
	var names []string
	for _, v := range o.Variants {
		names = append(names, v.Name())
	}
	if o.Control == "" {
		o.Control = names[0]
		if slices.Contains(names, string(topology.FlannelHostGW)) {
			o.Control = string(topology.FlannelHostGW)
		}
	}
	if v, err := bench.ParseVariant(o.Control); err == nil {
		o.Control = v.Name()
	}
	if !slices.Contains(names, o.Control) {
		return usageError("the control %s is not among %s", o.Control, strings.Join(names, ", "))
	}
	return nil
}

// useTool sets the generator, and what it can do.
func (f *benchFlags) useTool(o *bench.ModesOptions, given func(string) bool) error {
	switch f.tool {
	case toolSlipway:
		return nil
	case toolIperf3:
	default:
		return usageError("--tool %q is not one of %s, %s", f.tool, toolSlipway, toolIperf3)
	}
	can := load.Iperf3{}.Workloads()
	if len(o.Workloads) == 0 {
		o.Workloads = can
	}
	if cannot := slices.DeleteFunc(slices.Clone(o.Workloads), func(w string) bool { return slices.Contains(can, w) }); len(cannot) > 0 {
		return usageError("iperf3 cannot run %s, only %s", strings.Join(cannot, ", "), strings.Join(can, ", "))
	}
	if !given("duration") {
		o.Duration = time.Second
	}
	if !given("warm-up") {
		o.WarmUp = 0
	}
	if o.Duration%time.Second != 0 || o.WarmUp%time.Second != 0 {
		return usageError("iperf3 measures whole seconds: --duration %s and --warm-up %s are none", o.Duration, o.WarmUp)
	}
	o.Runner, o.Generator = load.Iperf3{}, toolIperf3
	return nil
}

func (f *benchFlags) check(o bench.ModesOptions) error {
	for _, of := range []struct {
		what         string
		given, known []string
	}{{"workload", o.Workloads, bench.Workloads()}, {"path", o.Paths, bench.Paths()}, {"target", o.Targets, bench.Targets()}} {
		for i, name := range of.given {
			if !slices.Contains(of.known, name) {
				return usageError("%s %q is not one of %s", of.what, name, strings.Join(of.known, ", "))
			}
			if slices.Contains(of.given[:i], name) {
				return usageError("%s %s is given twice", of.what, name)
			}
		}
	}
	for i, n := range o.Streams {
		if n < 1 || n > maxBenchStreams || slices.Contains(o.Streams[:i], n) {
			return usageError("--streams are different numbers from 1 to %d", maxBenchStreams)
		}
	}
	switch {
	case len(o.Streams) == 0:
		return usageError("--streams are different numbers from 1 to %d", maxBenchStreams)
	case o.Rounds < 1 || o.MaxRounds > maxBenchRounds:
		return usageError("rounds are 1 to %d", maxBenchRounds)
	case o.Duration < 50*time.Millisecond || o.Duration > time.Minute || o.WarmUp < 0 || o.WarmUp > time.Minute:
		return usageError("--duration is 50ms to 1m, --warm-up at most 1m")
	case o.Budget < 0:
		return usageError("--budget is not negative")
	}
	return nil
}

const (
	maxBenchRounds  = 1000
	maxBenchStreams = 256
)

func (a *app) benchModes(cmd *cobra.Command, f *benchFlags) error {
	if err := f.checkKube(cmd.Flags().Changed); err != nil {
		return err
	}
	if f.kube.file != "" {
		return a.benchKube(cmd, f)
	}
	here, err := a.benchHere(cmd.Context(), f)
	if err != nil {
		return err
	}
	p, err := f.plan(cmd.Flags().Changed, here)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	if f.tool == toolIperf3 {
		if p.Generator, err = iperfVersion(cmd); err != nil {
			return err
		}
	}
	if p.Exe, err = os.Executable(); err != nil {
		return err
	}
	if err := printPlan(a.err, p); err != nil {
		return err
	}
	progress := a.progress()
	p.Progress = progress
	r, err := bench.Modes(cmd.Context(), p)
	progress.clear()
	if r == nil || len(r.Series) == 0 {
		return err
	}
	return errors.Join(err, a.keepReport(r, f.save), a.writeReport(r, f.file))
}

// iperfVersion is what the report calls the generator: "iperf3 3.12".
func iperfVersion(cmd *cobra.Command) (string, error) {
	out, err := exec.CommandContext(cmd.Context(), toolIperf3, "--version").Output()
	if err != nil {
		return "", &coded{exitMissing, fmt.Errorf("iperf3 is not there: %w", err)}
	}
	fields := strings.Fields(string(out))
	if len(fields) < 2 {
		return toolIperf3, nil
	}
	return toolIperf3 + " " + fields[1], nil
}

// printPlan says what will be done and how long it takes, and what is already
// known to spoil it.
func printPlan(w io.Writer, p bench.ModesPlan) error {
	where := planned(p)
	rounds := fmt.Sprint(p.Rounds)
	if p.MaxRounds > p.Rounds {
		rounds += fmt.Sprintf(" to %d", p.MaxRounds)
	}
	fmt.Fprintf(w, "plan: %s, %d cases, %d measurements of %s a round\n", where, len(p.Cases), p.Measurements, p.Duration)
	fmt.Fprintf(w, "      %s rounds of about %s: ", rounds, p.Round.Round(time.Second))
	switch expected := p.Expected(); {
	case p.Budget == 0:
		fmt.Fprintf(w, "about %s in all", expected.Round(time.Second))
	case expected < p.Budget:
		fmt.Fprintf(w, "about %s, at most %s in all", expected.Round(time.Second), p.Budget)
	default:
		fmt.Fprintf(w, "at most %s in all", p.Budget)
	}
	if fit := p.Fit(); fit < p.Rounds {
		fmt.Fprintf(w, ", enough for about %d rounds", fit)
	}
	fmt.Fprintln(w)
	now, err := bench.ReadConditions()
	if err != nil {
		return err
	}
	for _, doubt := range (report.Conditions{CPUs: now.CPUs, LoadBefore: now.LoadAverage, IdlePercent: 100}).Warnings() {
		fmt.Fprintln(w, "warning: "+doubt)
	}
	return nil
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
