package main

import (
	"os"

	"github.com/spf13/cobra"

	"slipway/datapath/bgp"
	"slipway/datapath/cni"
	"slipway/lab"
	"slipway/lab/daemon"
)

// daemonCmd is what `up` starts; people do not.
func (a *app) daemonCmd() *cobra.Command {
	return &cobra.Command{
		Use: lab.DaemonCommand, Hidden: true, Args: cobra.NoArgs, Short: "Run a lab's daemon",
		RunE: func(cmd *cobra.Command, _ []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), daemon.Config{
				Lab: a.lab, Socket: lab.SocketPath(a.lab), Speaker: []string{exe, lab.SpeakerCommand}, Log: a.logger(),
			})
		},
	}
}

func (a *app) speakerCmd() *cobra.Command {
	return &cobra.Command{
		Use: lab.SpeakerCommand, Hidden: true, Args: cobra.NoArgs, Short: "Run one node's BGP speaker",
		RunE: func(cmd *cobra.Command, _ []string) error { return bgp.RunSpeaker(cmd.Context(), a.in, a.out) },
	}
}

func (a *app) cniCmd() *cobra.Command {
	return &cobra.Command{
		Use: "cni", Args: cobra.NoArgs, Short: "Run as a CNI plugin (spec 1.1), with CNI_COMMAND in the environment",
		Long: `Run as a CNI plugin: the container runtime sets CNI_COMMAND and friends and sends
the network configuration on stdin. Any name that ends in "slipway" in a CNI bin
directory may link to this program; CNI_COMMAND alone makes it a plugin.`,
		Example: `  CNI_COMMAND=VERSION slipway cni </dev/null`,
		Run:     func(*cobra.Command, []string) { cni.PluginMain() },
	}
}
