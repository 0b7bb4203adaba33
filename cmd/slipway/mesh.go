package main

import (
	"github.com/spf13/cobra"

	"slipway/installer/mesh"
)

// meshCmd is what `install preflight` runs on hosts; people do not.
func (a *app) meshCmd() *cobra.Command {
	return &cobra.Command{
		Use: mesh.Command, Hidden: true, Args: cobra.NoArgs, Short: "Take part in trying the ports between machines",
		RunE: func(cmd *cobra.Command, _ []string) error { return mesh.Main(cmd.Context(), a.in, a.out) },
	}
}
