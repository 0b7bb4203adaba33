package curve

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"

	"slipway/datapath/bgp"
	"slipway/lab"
	"slipway/lab/daemon"
)

// TestMain lets the test program be what a lab starts of itself: its daemon and
// its BGP speakers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case lab.DaemonCommand: // slipwayd --lab NAME
			exit(runDaemon(os.Args[3]))
		case lab.SpeakerCommand:
			exit(bgp.RunSpeaker(context.Background(), os.Stdin, os.Stdout))
		}
	}
	os.Exit(m.Run())
}

func runDaemon(name string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return daemon.Run(context.Background(), daemon.Config{
		Lab: name, Socket: lab.SocketPath(name), Speaker: []string{exe, lab.SpeakerCommand}, Log: slog.New(slog.DiscardHandler),
	})
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
