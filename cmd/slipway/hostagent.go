package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"slipway/datapath/hostview"
	"slipway/lab/capture"
	"slipway/lab/remote"
)

// hostAgentCmd is what runs on hosts for `trace --site` and `capture --site`.
func (a *app) hostAgentCmd() *cobra.Command {
	c := &cobra.Command{Use: remote.Command, Hidden: true, Args: noCommand, Short: "Look at packets for an operator elsewhere"}
	c.AddCommand(&cobra.Command{
		Use: remote.StateJob, Hidden: true, Args: cobra.NoArgs, Short: "Print all that decides a packet's way on this machine",
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := hostview.Collect(cmd.Context())
			if err != nil {
				return err
			}
			return json.NewEncoder(a.out).Encode(h)
		},
	})
	c.AddCommand(&cobra.Command{
		Use: remote.CaptureJob, Hidden: true, Args: cobra.NoArgs, Short: "Print packets of this machine",
		RunE: func(cmd *cobra.Command, _ []string) error { return capture.Serve(cmd.Context(), a.in, a.out) },
	})
	c.AddCommand(&cobra.Command{
		Use: remote.ObserveJob, Hidden: true, Args: cobra.NoArgs, Short: "Watch a packet's way through this machine",
		RunE: func(cmd *cobra.Command, _ []string) error { return remote.Observe(cmd.Context(), a.in, a.out) },
	})
	return c
}
