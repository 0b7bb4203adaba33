// Command slipway builds a Kubernetes cluster's network on one box, node by
// node as network namespaces, so that it can be looked at from below.
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"slipway/datapath/cni"
)

func main() {
	if cni.Invoked() {
		cni.PluginMain()
		return
	}
	base, gone := context.WithCancelCause(context.Background())
	ctx, stop := signal.NotifyContext(base, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if code, ok := playSystemd(ctx, os.Args); ok {
		os.Exit(code) //nolint:gocritic // what is deferred ends with the process
	}
	// A write whose reader is gone must be an error and not the end of the
	// program, so that `slipway demo | head` leaves no lab behind. The signal
	// itself says nothing: it comes of any socket, that of a daemon that ended too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: &output{os.Stdout, gone}, err: &output{os.Stderr, gone}}))
}

// errReaderGone is why a command ends whose output nobody reads any more.
var errReaderGone = errors.New("the reader of the output is gone")

// output ends the command when its reader is gone.
type output struct {
	*os.File
	gone context.CancelCauseFunc
}

// Write writes to the file.
func (o *output) Write(b []byte) (int, error) {
	n, err := o.File.Write(b)
	if errors.Is(err, syscall.EPIPE) {
		o.gone(errReaderGone)
	}
	return n, err
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(interface{ Fd() uintptr })
	return ok && term.IsTerminal(int(f.Fd()))
}
