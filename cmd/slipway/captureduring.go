package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"slipway/lab/capture"
)

// afterCommand is how long a capture goes on after its command: answers that are
// under way come within it.
const afterCommand = 300 * time.Millisecond

// during runs a command while a capture listens, and ends the capture after it.
func (a *app) during(argv []string, labName string, run func(context.Context, capture.Options) (*capture.Summary, error)) func(context.Context, capture.Options) (*capture.Summary, error) {
	return func(ctx context.Context, o capture.Options) (*capture.Summary, error) {
		listening, cancel := context.WithCancel(ctx)
		defer cancel()
		var ended chan error
		started := o.Started
		o.Started = func(s *capture.Summary) {
			started(s)
			ended = make(chan error, 1)
			go func() {
				ended <- a.runCommand(ctx, argv, labName)
				select {
				case <-listening.Done():
				case <-time.After(afterCommand):
					cancel()
				}
			}()
		}
		s, err := run(listening, o)
		if ended == nil { // it never listened
			return s, err
		}
		return s, errors.Join(err, <-ended)
	}
}

// runCommand runs a command on the lab, to its end. That it says no is no error of
// the capture.
func (a *app) runCommand(ctx context.Context, argv []string, labName string) error {
	program := argv[0]
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if program == filepath.Base(exe) || program == "slipway" {
		program = exe
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Env = append(os.Environ(), "SLIPWAY_LAB="+labName)
	cmd.Stdout, cmd.Stderr = a.err, a.err
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = afterCommand
	err = cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || errors.As(err, &exit) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", argv[0], err)
	}
	return nil
}
