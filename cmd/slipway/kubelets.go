package main

import (
	"context"

	"github.com/spf13/cobra"

	"slipway/lab/kube"
	"slipway/lab/kubelet"
)

// kubeletsCmd is what `up` starts of a lab with real components; people do not.
func (a *app) kubeletsCmd() *cobra.Command {
	return &cobra.Command{
		Use: kube.KubeletsCommand, Hidden: true, Args: cobra.NoArgs, Short: "Play the kubelets of a light lab, or watch those of a full one",
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := a.logger()
			relay := func(ctx context.Context) error { return kube.Relay(ctx, a.lab, log) }
			return kubelet.Run(cmd.Context(), kubelet.Options{Lab: a.lab, Log: log, Beside: []func(context.Context) error{relay}})
		},
	}
}
