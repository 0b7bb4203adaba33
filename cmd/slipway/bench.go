package main

import (
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"slipway/examples"
	"slipway/lab/bench"
	"slipway/topology"
)

// The sizes of `bench scale`; --big adds the second ones.
const (
	somePods, manyPods         = 1_000, 10_000
	someServices, manyServices = 1_000, 10_000
	traceServices              = 5_000
)

func (a *app) benchScaleCmd() *cobra.Command {
	o := bench.ScaleOptions{}
	var modes, parts []string
	var big bool
	var pods, services int
	c := &cobra.Command{
		Use: "scale", Short: "Time, CPU and memory of labs, beside the targets",
		Long: `Bring labs up, up again and down with this very program, and print what that
took beside the project's targets and the machine's facts: the demo's three nodes
in each mode, many pods on many nodes (each of them has to answer), many
services, and how long traces take. Labs are named bench-…, and taken down also when it is interrupted.
Every figure is of real labs; on a busy machine they say so.`,
		Example: "  slipway bench scale\n  slipway bench scale --big -o markdown\n  slipway bench scale --parts labs --modes calico-bgp --rounds 15",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Pods, o.Services = []int{pods}, []int{services}
			if big {
				o.Pods, o.Services = append(o.Pods, manyPods), append(o.Services, manyServices)
			}
			if err := scaleOptions(&o, modes, parts); err != nil {
				return err
			}
			p := a.progress()
			o.Progress = p
			r, err := bench.Scale(cmd.Context(), o)
			p.clear()
			if len(r.Groups) > 0 {
				if e := a.printScale(r); err == nil {
					err = e
				}
			}
			return err
		},
	}
	f := c.Flags()
	f.StringSliceVar(&parts, "parts", nil, "only these: labs, pods, services, traces")
	f.StringSliceVar(&modes, "modes", nil, "only these modes; default all for the small labs, flannel-vxlan for many pods")
	f.IntVar(&o.Rounds, "rounds", 7, "of everything that is cheap; six are the fewest that give a 95 % interval")
	f.IntVar(&o.Nodes, "nodes", 100, "nodes of the labs of many pods")
	f.IntVar(&pods, "pods", somePods, "pods of the lab of many pods")
	f.IntVar(&services, "services", someServices, "services, of three endpoints each")
	f.BoolVar(&big, "big", false, "also 10,000 pods and 10,000 services: some minutes, and 4 GB of memory")
	return c
}

// scaleOptions checks the flags and adds what does not come from them.
func scaleOptions(o *bench.ScaleOptions, modes, parts []string) error {
	o.TraceServices = traceServices
	o.LabModes, o.PodModes, o.Parts = topology.ModeNames(), []topology.ModeName{topology.FlannelVXLAN}, bench.Parts()
	if len(modes) > 0 {
		o.LabModes = nil
	}
	for _, m := range modes {
		if !slices.Contains(topology.ModeNames(), topology.ModeName(m)) {
			return usageError("mode %q is not one of %s", m, join(topology.ModeNames()))
		}
		o.LabModes = append(o.LabModes, topology.ModeName(m))
		o.PodModes = o.LabModes
	}
	if len(parts) > 0 {
		o.Parts = nil
	}
	for _, p := range parts {
		if !slices.Contains(bench.Parts(), bench.Part(p)) {
			return usageError("part %q is not one of %s", p, join(bench.Parts()))
		}
		o.Parts = append(o.Parts, bench.Part(p))
	}
	if o.Rounds < 1 || o.Nodes < 1 || slices.Min(o.Pods) < 1 || slices.Min(o.Services) < 1 {
		return usageError("rounds, nodes, pods and services are at least 1")
	}
	var err error
	if o.Exe, err = os.Executable(); err != nil {
		return err
	}
	o.Files, err = exampleFiles()
	return err
}

// exampleFiles are the embedded examples by name.
func exampleFiles() (map[string][]byte, error) {
	names, err := fs.Glob(examples.Files, "*.yaml")
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, n := range names {
		if out[n], err = examples.Files.ReadFile(n); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (a *app) printScale(r *bench.ScaleReport) error {
	if a.output == "markdown" {
		return r.WriteMarkdown(a.out)
	}
	return a.print(r, func(w io.Writer) error { return r.WriteTable(w) })
}
