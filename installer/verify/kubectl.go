package verify

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"slipway/installer"
)

// Kubectl runs kubectl as the cluster's administrator and returns its stdout. A
// kubectl that fails is an error with what it said.
type Kubectl func(ctx context.Context, stdin []byte, args ...string) ([]byte, error)

// Where the installer puts kubectl and the administrator's access on masters.
const (
	masterKubectl = "/usr/local/bin/kubectl"
	masterAccess  = "/etc/kubernetes/admin.conf"
)

// OnMasters runs kubectl on the first of some masters that can be reached.
func OnMasters(masters []installer.Host) Kubectl {
	return func(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
		var errs []error
		for _, h := range masters {
			argv := slices.Concat([]string{masterKubectl, "--cache-dir", installer.CacheDir, "--kubeconfig", masterAccess}, bounds(args), args)
			r, err := h.Run(ctx, installer.Command{Argv: argv, Stdin: stdin})
			if err != nil {
				errs = append(errs, err)
				continue
			}
			if r.Code != 0 {
				return r.Stdout, fmt.Errorf("%s: %w", h.Name(), saidBy(args, r.Stderr))
			}
			return r.Stdout, nil
		}
		return nil, errors.Join(errs...)
	}
}

// requestTimeout is how long the API may take for one answer: a machine that takes
// connections and does not answer would be waited for without end.
const requestTimeout = 20 * time.Second

// bounds are the options that bound a command. One that waits for something to be
// gone is bound by that; what is executed in a pod, by its caller's context.
func bounds(args []string) []string {
	limit := requestTimeout
	switch args[0] {
	case "exec":
		return nil
	case "delete":
		limit += leaveWithin
	}
	return []string{"--request-timeout", limit.String()}
}

// Here runs a kubectl of this machine's with the access of a kubeconfig, in one of
// its contexts; empty is its current one.
func Here(program, kubeconfig, cluster string) Kubectl {
	access := []string{"--kubeconfig", kubeconfig}
	if cluster != "" {
		access = append(access, "--context", cluster)
	}
	return func(ctx context.Context, stdin []byte, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, program, slices.Concat(access, bounds(args), args)...)
		var out, said bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
		if err := cmd.Run(); err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) && ctx.Err() == nil {
				err = saidBy(args, said.Bytes())
			}
			return out.Bytes(), err
		}
		return out.Bytes(), nil
	}
}

// logLine is a line of the library's log, which says to developers what kubectl then
// says to people (k8s.io/klog: severity, month and day).
var logLine = regexp.MustCompile(`(?m)^[EWI]\d{4} .*\n?`)

// saidBy is a kubectl that failed.
func saidBy(args []string, stderr []byte) error {
	said := strings.TrimSpace(string(logLine.ReplaceAll(stderr, nil)))
	if said == "" {
		said = cmp.Or(strings.TrimSpace(string(stderr)), "it failed without a word")
	}
	return fmt.Errorf("kubectl %s: %s", args[0], said)
}

// OnHost runs the echo program, from the host's store, in a machine.
func OnHost(h installer.Host, echo installer.Blob) Runner {
	return func(ctx context.Context, stdin []byte) ([]byte, error) {
		if err := h.Store(ctx, echo); err != nil {
			return nil, err
		}
		r, err := h.Run(ctx, installer.Command{Argv: Argv(installer.StorePath(echo.Sum)), Stdin: stdin})
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("%s: exit code %d: %s", h.Name(), r.Code, strings.TrimSpace(string(r.Stderr)))
		}
		return r.Stdout, err
	}
}

// FromHere runs the echo program on this machine.
func FromHere(program string) Runner {
	return func(ctx context.Context, stdin []byte) ([]byte, error) {
		argv := Argv(program)
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		var out, said bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
		if err := cmd.Run(); err != nil {
			return out.Bytes(), fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
		}
		return out.Bytes(), nil
	}
}
