// Command slipway builds a Kubernetes cluster's network on one box, node by
// node as network namespaces, so that it can be looked at from below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"slipway/datapath/cni"
)

func main() {
	if cni.Invoked() {
		cni.PluginMain()
		return
	}
	// SIGPIPE too: `slipway demo | head` must not leave labs behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}))
}
