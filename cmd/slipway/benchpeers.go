package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer/components"
	"slipway/lab"
	"slipway/lab/bench/peers"
)

func (a *app) benchPeersCmd() *cobra.Command {
	o := peers.Options{Seed: 1}
	var file, save string
	var sections []string
	about := ""
	for _, s := range peers.Sections() {
		sections = append(sections, s.Name)
		about += fmt.Sprintf("\n  %-11s %s", s.Name, s.About)
	}
	c := &cobra.Command{
		Use: "peers [SECTION...]", Short: "Measure others' programs beside ours: flanneld, kube-proxy, bird, Mininet",
		Long: `Measure the programs of others beside ours, in rounds that take turns, with the ratio
to theirs in the same round. What has to be built is built first (see ` + "`slipway components`" + `).
Everything runs in labs named peers-…, which are taken down also when it is interrupted;
what a killed run left is taken down by the next. Without a section: all that this machine
has the programs for.

Sections:` + about,
		Example:     "  slipway bench peers\n  slipway bench peers flanneld --parts udp --rounds 9 -o markdown\n  slipway bench peers --save peers.json",
		Annotations: map[string]string{formatsOf: "table,csv,html,markdown,json"},
		ValidArgs:   sections,
		Args:        cobra.OnlyValidArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.benchPeers(cmd.Context(), o, args, file, save)
		},
	}
	f := c.Flags()
	f.StringSliceVar(&o.Only, "parts", nil, "only these parts of a section, such as flanneld's udp, vxlan, host-gw")
	f.IntVar(&o.Rounds, "rounds", 7, "at least so many rounds; six are the fewest that give a 95 % interval")
	f.IntVar(&o.MaxRounds, "max-rounds", 11, "at most so many, while intervals are wide")
	f.DurationVar(&o.Duration, "duration", 500*time.Millisecond, "of one measurement")
	f.DurationVar(&o.WarmUp, "warm-up", 100*time.Millisecond, "traffic before each measurement, which is not counted")
	f.DurationVar(&o.Budget, "budget", 5*time.Minute, "for each part of flanneld and byhand, and each other section: no round is begun that would end later; 0 is none")
	f.StringVarP(&file, "write", "w", "", "write the report to this file instead of stdout")
	f.StringVar(&save, "save", "", "also write the report as JSON to this file")
	return c
}

func (a *app) benchPeers(ctx context.Context, o peers.Options, names []string, file, save string) (err error) {
	if o.Rounds < 1 || o.MaxRounds > maxBenchRounds || o.Duration < 50*time.Millisecond || o.WarmUp < 0 || o.Budget < 0 {
		return usageError("rounds are 1 to %d, --duration is at least 50ms, --warm-up and --budget are not negative", maxBenchRounds)
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	sections, err := a.possible(names)
	if err != nil {
		return err
	}
	if o.Exe, err = os.Executable(); err != nil {
		return err
	}
	if o.Binary, err = a.peerPrograms(ctx, sections); err != nil {
		return err
	}
	o.Version = version()
	if err := peers.Sweep(ctx); err != nil {
		return err
	}
	p := a.progress()
	o.Progress = p
	r, err := peers.Run(ctx, sections, o)
	p.clear()
	if r == nil || len(r.Series) == 0 {
		if err == nil && len(o.Only) > 0 {
			err = usageError("no section has a part called %s", strings.Join(o.Only, " or "))
		}
		return err
	}
	return errors.Join(err, a.keepReport(r, save), a.writeReport(r, file))
}

// possible are the sections asked for, or all that this machine can run.
func (a *app) possible(names []string) ([]peers.Section, error) {
	var out []peers.Section
	for _, s := range peers.Sections() {
		named := slices.Contains(names, s.Name)
		if len(names) > 0 && !named {
			continue
		}
		var missing []peers.Missing
		if s.Missing != nil {
			missing = s.Missing()
		}
		if len(missing) == 0 {
			out = append(out, s)
			continue
		}
		var said []string
		for _, m := range missing {
			said = append(said, m.What+" is missing: "+m.Hint)
		}
		err := fmt.Errorf("%s: %s", s.Name, strings.Join(said, "; "))
		if named {
			return nil, &coded{exitMissing, err}
		}
		fmt.Fprintf(a.err, "slipway: left out: %v\n", err)
	}
	if len(out) == 0 {
		return nil, &coded{exitMissing, errors.New("this machine lacks what every section needs")}
	}
	return out, nil
}

// peerPrograms builds what the sections run, and says where each program is.
func (a *app) peerPrograms(ctx context.Context, sections []peers.Section) (func(component, program string) string, error) {
	var names []string
	for _, s := range sections {
		names = append(names, s.Components...)
	}
	slices.Sort(names)
	built, err := a.buildComponents(ctx, "", slices.Compact(names))
	if err != nil {
		return nil, err
	}
	by := map[string]*components.Built{}
	for _, b := range built {
		by[b.Component] = b
	}
	return func(component, program string) string { return by[component].Path(program) }, nil
}
