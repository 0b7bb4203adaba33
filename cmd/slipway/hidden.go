package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"slipway/datapath/bgp"
	"slipway/datapath/cni"
	"slipway/lab"
	"slipway/lab/daemon"
	"slipway/lab/initd"
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

// nodeCmd is the first process of a node with real components.
func (a *app) nodeCmd() *cobra.Command {
	return &cobra.Command{
		Use: lab.NodeCommand + " CONFIG", Hidden: true, Args: cobra.ExactArgs(1), Short: "Run as a node's first process",
		RunE: func(cmd *cobra.Command, args []string) error {
			raw, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			var c initd.Config
			if err := json.Unmarshal(raw, &c); err != nil {
				return fmt.Errorf("read %s: %w", args[0], err)
			}
			return initd.Run(cmd.Context(), c)
		},
	}
}

// playSystemd runs as systemctl or journalctl of a node, if called so, and returns
// the exit code.
func playSystemd(ctx context.Context, argv []string) (code int, played bool) {
	switch filepath.Base(argv[0]) {
	case "systemctl":
		return initd.Systemctl(ctx, argv[1:], os.Stdout, os.Stderr), true
	case "journalctl":
		return initd.Journalctl(ctx, argv[1:], os.Stdout, os.Stderr), true
	}
	return 0, false
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
