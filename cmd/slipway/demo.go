package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"slipway/datapath/observe"
	"slipway/examples"
	"slipway/internal/ordered"
	"slipway/lab/demo"
	"slipway/topology"
)

func (a *app) demoCmd() *cobra.Command {
	o := demo.Options{Modes: topology.ModeNames()}
	var modes []string
	c := &cobra.Command{
		Use: "demo", Short: "The main job in one go: five modes, traced and measured side by side",
		Long: `Bring the demo cluster (three nodes, six pods, two services) up once in each of
the five datapath modes, follow one packet from pod to pod and one from pod to
service device by device in each, measure throughput and latency in rounds that
are interleaved over the modes, print the comparison, and take everything down.
About half a minute; the machine's own network is not touched.`,
		Example: "  slipway demo\n  slipway demo --modes flannel-vxlan,calico-bgp --rounds 9\n  slipway demo -o json > demo.json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.Cluster, o.Objects, err = a.demoCluster(); err != nil {
				return err
			}
			if len(modes) > 0 {
				o.Modes = nil
			}
			for _, m := range modes {
				if err := withMode(o.Cluster, m); err != nil {
					return err
				}
				o.Modes = append(o.Modes, topology.ModeName(m))
			}
			show := &demoShow{out: a.out, progress: a.progress(), quiet: a.output != "table", colour: isTerminal(a.out)}
			o.Show = show
			res, err := demo.Run(cmd.Context(), o)
			show.progress.clear()
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) error { return printDemo(w, res) })
		},
	}
	f := c.Flags()
	f.StringSliceVar(&modes, "modes", nil, "only these modes")
	f.IntVar(&o.Rounds, "rounds", 6, "bench rounds per mode; six are the fewest that give a 95 % interval")
	f.DurationVar(&o.Stream, "stream", 400*time.Millisecond, "length of one throughput round")
	f.DurationVar(&o.Request, "requests", 200*time.Millisecond, "length of one latency round")
	f.BoolVar(&o.Keep, "keep", false, "leave the labs up")
	return c
}

// demoCluster loads the embedded example.
func (a *app) demoCluster() (*topology.Cluster, *topology.Objects, error) {
	const file = "demo.yaml"
	data, err := examples.Files.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	c, diags := topology.Parse("examples/"+file, data)
	if err := diags.Err(); err != nil {
		return nil, nil, err
	}
	if a.lab != "" {
		c.Metadata.Name = a.lab
		if err := validName(c); err != nil {
			return nil, nil, err
		}
	}
	objects := &topology.Objects{}
	for _, m := range c.Spec.Manifests {
		data, err := examples.Files.ReadFile(m)
		if err != nil {
			return nil, nil, err
		}
		// That the seed Deployment is of an old API version is no news here.
		o, _, err := topology.LoadManifests("examples/"+m, data)
		if err != nil {
			return nil, nil, err
		}
		objects.Merge(o)
	}
	return c, objects, nil
}

// demoShow prints what the demo does while it does it.
type demoShow struct {
	out           io.Writer
	progress      *progress
	quiet, colour bool
}

// Up says that a mode's lab is there.
func (s *demoShow) Up(m *demo.ModeResult) {
	s.progress.clear()
	if s.quiet {
		return
	}
	fmt.Fprintf(s.out, "━━ %s: %s, %s, %s up in %s, pod MTU %d\n", m.Mode, plural(m.Up.Nodes, "node"), plural(m.Up.Pods, "pod"), plural(m.Up.Services, "service"), ms(m.Up.Took), m.MTU)
	for _, k := range ordered.Keys(m.Up.Implementations) {
		fmt.Fprintf(s.out, "   %s: %s\n", k, m.Up.Implementations[k])
	}
}

// Trace shows one packet's way.
func (s *demoShow) Trace(_ *demo.ModeResult, t *demo.Trace) {
	if s.quiet {
		return
	}
	fmt.Fprintf(s.out, "\n%s → %s, answered after %s\n", t.From, t.To, ms(t.Answer))
	if err := observe.Render(s.out, t.Steps, observe.RenderOptions{Colour: s.colour}); err == nil {
		fmt.Fprintln(s.out)
	}
}

// Bench says which round is on.
func (s *demoShow) Bench(round, rounds int, mode topology.ModeName) {
	s.progress.Phase(fmt.Sprintf("bench round %d of %d: %s", round, rounds, mode), 0)
}

// noisySteal is the share of stolen CPU time above which figures are doubtful.
const noisySteal = 0.05

// interval says what the ranges behind the medians mean.
func interval(r *demo.Result) string {
	if r.Rounds == 0 || len(r.Modes) == 0 {
		return "no interval"
	}
	return fmt.Sprintf("the interval that holds the true median with a probability of %.0f %%", 100*r.Modes[0].Throughput.Confidence)
}

func printDemo(w io.Writer, r *demo.Result) error {
	c := r.Conditions
	fmt.Fprintf(w, "TCP from pod to pod on another node, one connection, %d KB writes; requests of 1 byte, one at a time;\nmedians of %s interleaved over the modes, with %s\n\n", r.WriteSize>>10, plural(r.Rounds, "round"), interval(r))
	var rows [][]string
	for _, m := range r.Modes {
		rows = append(rows, []string{
			string(m.Mode), ms(m.Up.Took), fmt.Sprint(m.MTU), fmt.Sprint(len(m.Traces[0].Hops)),
			m.Throughput.Format(1e9, 1), m.Ratio.Format(1, 2), m.P50.Format(1e-6, 0), m.P99.Format(1e-6, 0),
		})
	}
	if err := printTable(w, []string{"MODE", "UP", "MTU", "HOPS", "GBIT/S", "÷ PLAIN", "P50 µs", "P99 µs"}, rows); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s, Linux %s, %d CPUs, load %.1f before, %.0f %% idle and %.1f %% stolen during the bench\n", c.CPUModel, c.Kernel, c.CPUs, c.LoadAverage, 100*c.Idle, 100*c.Steal)
	if c.LoadAverage > float64(c.CPUs) || c.Steal > noisySteal {
		fmt.Fprintln(w, "This machine was busy with other things: the intervals are wider than they have to be, and figures lower.")
	}
	fmt.Fprintln(w, "HOPS counts sightings of the request at devices. On one box TSO over veth flatters every mode: ratios hold, absolute figures are this machine's.")
	return nil
}
