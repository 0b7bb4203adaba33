package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/bench/curve"
)

const benchCurveLong = `Measure how figures grow with a size, line beside line:

  services  kube-proxy's rules by iptables-legacy, iptables-nft and nftables: the time to
            load them, that of one endpoint more, and how long connecting to the last
            service takes
  pods      a node of more and more pods in flannel-host-gw and calico-bgp: the time of a
            pod, memory, latency on the node and to another
  bgp       speakers in a full mesh and with two route reflectors: convergence, checked in
            the kernels of all nodes, sessions, memory
  delay     a TCP stream over a segment of growing delay (ms one way) with buffers of 64 KiB
            to 4 MiB, against what window and round trip allow
  size      datagrams of growing size (bytes of IP packet) by mode: packets, throughput

Every point of every line is measured once in each round, in an order that is shuffled
anew. --points and --lines measure less, or something else; --budget bounds the time, and
what was measured by then is printed. Reports are those of ` + "`bench`" + `: ` + "`bench render`" + ` draws
them again, html with curves, and ` + "`bench compare`" + ` compares two of the same curve.`

func (a *app) benchCurveCmd() *cobra.Command {
	var o curve.Options
	var file, save string
	c := &cobra.Command{
		Use: "curve " + strings.Join(curve.Names(), "|"), Short: "How figures grow with services, pods, BGP speakers, delay or packets",
		Long:        benchCurveLong,
		Example:     "  slipway bench curve services --save services.json -o html -w services.html\n  slipway bench curve services --points 1000,10000 --lines iptables-legacy,nftables\n  slipway bench curve bgp --points 20,50 --rounds 3\n  slipway bench curve size --lines flannel-udp,calico-ipip",
		Args:        cobra.ExactArgs(1),
		ValidArgs:   curve.Names(),
		Annotations: map[string]string{formatsOf: "table,csv,html,markdown,json"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Name = args[0]
			return a.benchCurve(cmd, o, file, save)
		},
	}
	f := c.Flags()
	f.IntSliceVar(&o.Points, "points", nil, "only these sizes; the default depends on the curve")
	f.StringSliceVar(&o.Lines, "lines", nil, "only these lines: backends, modes, BGP topologies or buffers")
	f.IntVar(&o.Rounds, "rounds", 7, "at least so many rounds; six are the fewest that give a 95 % interval")
	f.IntVar(&o.MaxRounds, "max-rounds", 15, "at most so many, while intervals are wide")
	f.DurationVar(&o.Duration, "duration", 500*time.Millisecond, "of one measurement of traffic")
	f.DurationVar(&o.WarmUp, "warm-up", 100*time.Millisecond, "traffic before each measurement, which is not counted")
	f.DurationVar(&o.Budget, "budget", 10*time.Minute, "for the rounds: what has been measured by then is the report")
	f.StringVarP(&file, "write", "w", "", "write the report to this file instead of stdout")
	f.StringVar(&save, "save", "", "also write the report as JSON to this file")
	return c
}

func (a *app) benchCurve(cmd *cobra.Command, o curve.Options, file, save string) error {
	o.Seed, o.Version = 1, version()
	switch {
	case o.Rounds < 1 || max(o.Rounds, o.MaxRounds) > maxBenchRounds:
		return usageError("rounds are 1 to %d", maxBenchRounds)
	case o.Duration < 50*time.Millisecond || o.Duration > time.Minute || o.WarmUp < 0 || o.WarmUp > time.Minute:
		return usageError("--duration is 50ms to 1m, --warm-up at most 1m")
	case o.Budget <= 0:
		return usageError("--budget %s is not a time in which anything could be measured", o.Budget)
	}
	if err := o.Fill(); err != nil {
		return curveError(err)
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	fmt.Fprintln(a.err, o.Plan())
	p := a.progress()
	o.Progress = p
	r, err := curve.Run(cmd.Context(), o)
	p.clear()
	if r == nil || len(r.Series) == 0 {
		return curveError(err)
	}
	return errors.Join(err, a.keepReport(r, save), a.writeReport(r, file))
}

// curveError tells what is wrong with the command line from what went wrong.
func curveError(err error) error {
	var option *curve.OptionError
	if errors.As(err, &option) {
		return &coded{exitUsage, err}
	}
	return err
}
