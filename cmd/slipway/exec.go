package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/podexec"
)

func (a *app) execCmd() *cobra.Command {
	return &cobra.Command{
		Use: "exec NODE|POD -- COMMAND [ARG...]", Short: "Run a command inside a node or a pod",
		Long: `Run a command in the network of a node, a pod, a router, "external" (a client on
the underlay outside the cluster) or "fabric". It sees that place's interfaces,
host name, /etc/hosts and DNS; everything else is the machine's. A node with real
components has files and processes of its own too. The exit code is the command's.`,
		Example: `  slipway exec client -- curl -s http://nginx-svc:8080/
  slipway exec node01 -- ip route
  slipway exec master01 -- systemctl status etcd   # with real components
  slipway exec deploy/nginx-deployment -- ip -br addr
  slipway exec external -- curl -s http://172.16.8.101:30000/`,
		Args: cobra.MinimumNArgs(2), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error { return a.enter(cmd.Context(), args[0], args[1:]) },
	}
}

func (a *app) shellCmd() *cobra.Command {
	return &cobra.Command{
		Use: "shell NODE|POD", Short: "Open a shell inside a node or a pod",
		Example: "  slipway shell node01\n  slipway shell client", Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			shell := os.Getenv("SHELL")
			if shell == "" {
				shell = "/bin/sh"
			}
			return a.enter(cmd.Context(), args[0], []string{shell})
		},
	}
}

// enter becomes argv inside a target: it returns only when that fails.
func (a *app) enter(ctx context.Context, name string, argv []string) error {
	st, err := a.state(nil)
	if err != nil {
		return err
	}
	t, err := lab.Resolve(st, name)
	if err != nil {
		return &coded{exitUsage, err}
	}
	if os.Geteuid() != 0 {
		return &lab.PrivilegeError{}
	}
	if m := lab.MachineOf(st, t); m != nil {
		return notRun(m.Exec(ctx, argv))
	}
	return notRun(podexec.Exec(podexec.Spec{
		NetNS: t.NetNS, Hostname: t.Hostname, Scratch: lab.StateDir(), Argv: argv,
		Files: map[string][]byte{"/etc/resolv.conf": lab.ResolvConf(st, t), "/etc/hosts": lab.Hosts(st, t)},
		Env:   append(os.Environ(), lab.Mark(st)),
	}))
}

// notRun gives a command that could not be run the exit code of a shell.
func notRun(err error) error {
	var e *podexec.NotRunError
	if errors.As(err, &e) {
		return &coded{e.Code, err}
	}
	return err
}

// completeTargets completes nodes and pods of the lab.
func (a *app) completeTargets(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	st, err := a.state(nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, t := range targets {
		names = append(names, t.Label)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
