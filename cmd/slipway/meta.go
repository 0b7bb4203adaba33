package main

import (
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"slipway/topology"
)

func (a *app) schemaCmd() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "Print the JSON Schema of the cluster file", Args: cobra.NoArgs,
		Long:    "Print the JSON Schema of the cluster file, for editors that complete and check YAML.",
		Example: "  slipway schema > cluster.schema.json\n  # first line of a cluster file:\n  # yaml-language-server: $schema=cluster.schema.json",
		RunE: func(*cobra.Command, []string) error {
			s, err := topology.Schema()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, string(s))
			return err
		},
	}
}

func (a *app) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Example: "  slipway version\n  slipway version -o json",
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version(), "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH, "apiVersion": topology.APIVersion}
			return a.print(v, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "slipway %s (%s, %s, %s)\n", v["version"], v["apiVersion"], v["go"], v["platform"])
				return err
			})
		},
	}
}

func (a *app) manCmd() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write manual pages into a directory", Args: cobra.ExactArgs(1),
		Example: "  slipway man /usr/local/share/man/man1",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "SLIPWAY", Section: "1", Source: "slipway " + version()}, args[0])
		},
	}
}
