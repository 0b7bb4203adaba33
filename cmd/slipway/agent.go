package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"slipway/datapath/agent"
	"slipway/lab"
)

// agentCmd is what runs on nodes, as a unit of systemd.
func (a *app) agentCmd() *cobra.Command {
	var config string
	var once bool
	c := &cobra.Command{
		Use: "agent", Args: cobra.NoArgs, Short: "Keep this machine in its cluster's network",
		Long: `Run on a node of a cluster, as flanneld or calico-node do: make the node known in
the registry (Node objects, or an etcd with flannel's layout), follow the other
nodes, program the kernel of the network namespace that it runs in, and write the
container runtime's CNI configuration. It tells systemd when the node is programmed
(Type=notify). What it programmed stays when it ends; the next one takes it over.`,
		Example: `  slipway agent --config /etc/slipway/agent.yaml
  SLIPWAY_CONFIG=/etc/slipway/agent.yaml slipway agent
  slipway agent cleanup`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, o, err := a.agentOptions(config)
			if err != nil {
				return err
			}
			o.Once = once
			o.Ready = func() { a.notify(o.Log, daemon.SdNotifyReady) }
			err = agent.Run(cmd.Context(), cfg, o)
			a.notify(o.Log, daemon.SdNotifyStopping)
			return err
		},
	}
	c.PersistentFlags().StringVar(&config, "config", agent.DefaultConfig, "the agent's configuration")
	c.Flags().BoolVar(&once, "once", false, "program the node once and end")
	var local bool
	cleanup := &cobra.Command{
		Use: "cleanup", Args: cobra.NoArgs, Short: "Remove what the agent made on this machine",
		Long: `Remove the CNI configuration, the node's lease and what was programmed into the
kernel. Pods that are still plugged in lose their network: drain the node first.`,
		Example: `  systemctl stop slipway-agent && slipway agent cleanup
  slipway agent cleanup --local`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, o, err := a.agentOptions(config)
			if err != nil {
				return err
			}
			o.Local = local
			diff, err := agent.Cleanup(cmd.Context(), cfg, o)
			for _, d := range diff {
				fmt.Fprintln(a.out, d.Command)
			}
			return err
		},
	}
	cleanup.Flags().BoolVar(&local, "local", false, "leave the lease in the registry, which goes as well")
	c.AddCommand(cleanup)
	return c
}

// agentOptions reads the configuration, whose log settings hold unless flags say
// otherwise.
func (a *app) agentOptions(path string) (*agent.Config, agent.Options, error) {
	cfg, err := agent.LoadConfig(path)
	var bad *agent.ConfigError
	if errors.As(err, &bad) || errors.Is(err, os.ErrNotExist) {
		return nil, agent.Options{}, &coded{exitUsage, err}
	}
	if err != nil {
		return nil, agent.Options{}, err
	}
	if os.Geteuid() != 0 {
		return nil, agent.Options{}, &lab.PrivilegeError{}
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, agent.Options{}, err
	}
	level := cfg.LogLevel()
	if a.verbose {
		level = slog.LevelDebug
	}
	h := &slog.HandlerOptions{Level: level}
	o := agent.Options{Speaker: []string{exe, lab.SpeakerCommand}, Log: slog.New(slog.NewTextHandler(a.err, h))}
	if cfg.Log.Format == "json" || a.logFormat == "json" {
		o.Log = slog.New(slog.NewJSONHandler(a.err, h))
	}
	return cfg, o, nil
}

// notify tells systemd, if it started us.
func (a *app) notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("tell systemd", "state", state, "err", err)
	}
}
