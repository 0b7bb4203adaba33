package main

import (
	"os"
	"slices"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/graph"
	"slipway/topology"
)

func (a *app) graphCmd() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "graph", Short: "Draw a lab's topology: mermaid, dot, svg or html",
		Long:    "Draw the topology of a lab, or with -f of a cluster file without building it.",
		Example: "  slipway graph > lab.mmd\n  slipway graph -o svg > lab.svg\n  slipway graph -f examples/two-racks.yaml -o dot | dot -Tpng > lab.png",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.snapshot(file)
			if err != nil {
				return err
			}
			format := graph.Format(a.output)
			if !cmd.Flags().Changed("output") || checkOutput(os.Getenv("SLIPWAY_OUTPUT")) == nil && a.output == os.Getenv("SLIPWAY_OUTPUT") {
				format = graph.Mermaid // a variable that is set for the other commands says nothing here
			}
			if !slices.Contains(graph.Formats(), format) {
				return usageError("output %q is not one of %s", a.output, join(graph.Formats()))
			}
			return graph.Write(a.out, format, s)
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "cluster file instead of a running lab; - reads stdin")
	return c
}

// snapshot is a running lab's, or what a cluster file would become.
func (a *app) snapshot(file string) (*topology.Snapshot, error) {
	if file == "" {
		st, err := a.state(nil)
		if err != nil {
			return nil, err
		}
		return st.Snapshot, nil
	}
	c, objects, err := a.loadCluster(file)
	if err != nil {
		return nil, err
	}
	return lab.Preview(c, objects)
}
