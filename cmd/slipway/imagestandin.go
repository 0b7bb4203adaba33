package main

import (
	"github.com/spf13/cobra"

	"slipway/installer/images"
)

// imageStandInCmd is what a node's unit starts; people do not.
func (a *app) imageStandInCmd() *cobra.Command {
	var archive, listen string
	c := &cobra.Command{
		Use: "image-stand-in", Hidden: true, Args: cobra.NoArgs, Short: "Answer pulls of any image with the echo server",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return images.Serve(cmd.Context(), archive, listen)
		},
	}
	c.Flags().StringVar(&archive, "archive", "", "the archive of the echo image")
	c.Flags().StringVar(&listen, "listen", images.StandInAddress, "address and port")
	return c
}
