package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"slipway/lab/bench/kubejobs"
)

// benchServerCmd is what runs in a server's pod of `bench --kubeconfig`.
func (a *app) benchServerCmd() *cobra.Command {
	return &cobra.Command{
		Use: kubejobs.ServerCommand, Hidden: true, Args: cobra.NoArgs, Short: "Serve a bench's clients in a cluster",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var c kubejobs.ServerConfig
			node, address, err := podsTask(kubejobs.ServerEnv, &c)
			if err != nil {
				return err
			}
			return kubejobs.Serve(cmd.Context(), c, node, address)
		},
	}
}

// benchClientCmd is what runs in a client's.
func (a *app) benchClientCmd() *cobra.Command {
	return &cobra.Command{
		Use: kubejobs.ClientCommand, Hidden: true, Args: cobra.NoArgs, Short: "Measure in a cluster, and print what came of it",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var t kubejobs.Task
			node, address, err := podsTask(kubejobs.ClientEnv, &t)
			if err != nil {
				return err
			}
			return kubejobs.Measure(cmd.Context(), t, node, address, a.out)
		},
	}
}

// podsTask reads what a pod is told by its environment.
func podsTask(env string, into any) (node string, address netip.Addr, err error) {
	if err := json.Unmarshal([]byte(os.Getenv(env)), into); err != nil {
		return "", address, usageError("%s: %w", env, err)
	}
	if address, err = netip.ParseAddr(os.Getenv(kubejobs.AddressEnv)); err != nil {
		return "", address, usageError("%s: %w", kubejobs.AddressEnv, err)
	}
	if !address.Is4() {
		return "", address, fmt.Errorf("this pod has the address %s: only IPv4 can be measured", address)
	}
	return os.Getenv(kubejobs.NodeEnv), address, nil
}
