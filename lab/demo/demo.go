package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"slipway/datapath/observe"
	"slipway/datapath/trace"
	"slipway/lab"
	"slipway/lab/bench"
	"slipway/lab/bench/load"
	"slipway/topology"
)

// Options of a demo.
type Options struct {
	Cluster *topology.Cluster // in which mode it is does not matter
	Objects *topology.Objects
	Modes   []topology.ModeName
	Rounds  int           // of the bench, per mode
	Stream  time.Duration // of one throughput round
	Request time.Duration // of one latency round
	Keep    bool          // leave the labs up
	Show    Show
}

// Show is told what happens, as it happens.
type Show interface {
	Up(m *ModeResult)
	Trace(m *ModeResult, t *Trace)
	Bench(round, rounds int, mode topology.ModeName)
}

// ModeResult is what the demo found of one mode.
type ModeResult struct {
	Mode   topology.ModeName `json:"mode"`
	Lab    string            `json:"lab"`
	Up     *lab.Result       `json:"up"`
	MTU    int               `json:"mtu"`
	Traces []*Trace          `json:"traces"`
	// Throughput is in bit/s of TCP payload, latency in seconds per request.
	Throughput bench.Summary `json:"throughputBitsPerSecond"`
	P50        bench.Summary `json:"latencyP50Seconds"`
	P99        bench.Summary `json:"latencyP99Seconds"`
	// Ratio is this mode's throughput over the first mode's with no
	// encapsulation, round by round.
	Ratio bench.Summary `json:"throughputRatio"`

	rates, p50s, p99s []float64
}

// Trace is one packet's observed way and its reply's.
type Trace struct {
	From   string         `json:"from"`
	To     string         `json:"to"`
	Hops   []trace.Hop    `json:"observed"`
	Reply  []trace.Hop    `json:"reply"`
	Steps  []observe.Step `json:"-"`
	Answer time.Duration  `json:"answerNs"` // until the answer was there
}

// Result is the whole demo.
type Result struct {
	Modes      []*ModeResult    `json:"modes"`
	Conditions bench.Conditions `json:"conditions"`
	WriteSize  int              `json:"writeSize"`
	Rounds     int              `json:"rounds"`
}

// Run brings the labs up, traces and measures them, and takes them down again,
// also when it fails or is interrupted.
func Run(ctx context.Context, o Options) (res *Result, err error) {
	res = &Result{WriteSize: load.DefaultWrite, Rounds: o.Rounds}
	if !o.Keep {
		defer func() { err = errors.Join(err, takeDown(ctx, res.Modes)) }()
	}
	for _, mode := range o.Modes {
		m := &ModeResult{Mode: mode, Lab: labName(o.Cluster.Metadata.Name, mode)}
		if _, err := lab.ReadState(m.Lab); err == nil {
			return res, fmt.Errorf("a lab %s is already up: take it down first (`slipway down %s`), or give the demo another name with -L", m.Lab, m.Lab)
		}
		res.Modes = append(res.Modes, m) // from here on it is ours to take down
		if err := bringUp(ctx, o, m); err != nil {
			return res, fmt.Errorf("mode %s: %w", mode, err)
		}
		o.Show.Up(m)
		if err := traces(ctx, o, m); err != nil {
			return res, fmt.Errorf("mode %s: %w", mode, err)
		}
	}
	return res, measure(ctx, o, res)
}

// labName is short, as it is part of every namespace's name.
func labName(cluster string, mode topology.ModeName) string {
	short := strings.TrimPrefix(strings.TrimPrefix(string(mode), "flannel-"), "calico-")
	return cluster + "-" + short
}

func bringUp(ctx context.Context, o Options, m *ModeResult) error {
	c := *o.Cluster
	c.Metadata.Name, c.Spec.Network.Mode = m.Lab, m.Mode
	var err error
	if m.Up, err = lab.Up(ctx, lab.UpOptions{Cluster: &c, Objects: o.Objects}); err != nil {
		return err
	}
	st, err := lab.ReadState(m.Lab)
	if err != nil {
		return err
	}
	m.MTU = int(st.Snapshot.Network.MTU)
	return nil
}

// takeDown works although the demo itself was interrupted.
func takeDown(ctx context.Context, modes []*ModeResult) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	var errs []error
	for _, m := range modes {
		if _, err := lab.Down(ctx, m.Lab); err != nil && !errors.Is(err, lab.ErrNoLab) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
