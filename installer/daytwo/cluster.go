package daytwo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/topology"
)

// Cluster is an installed cluster, and the means to change it.
type Cluster struct {
	// Inputs are what it was installed with.
	Inputs cluster.Inputs
	// Hosts are its machines, by name. One that cannot be reached is missing.
	Hosts map[string]installer.Host
	// Tell is told what becomes of each item; it may be nil.
	Tell func(installer.Event)
}

func (c *Cluster) engine() *installer.Engine {
	return &installer.Engine{Hosts: c.Hosts, Tell: c.Tell}
}

// UnreachableError names machines of the cluster that are not there.
type UnreachableError struct {
	Hosts []string
	Err   error
}

// Error names them.
func (e *UnreachableError) Error() string {
	return fmt.Sprintf("cannot be reached: %s: %v", strings.Join(e.Hosts, ", "), e.Err)
}

// Unwrap returns what was in the way.
func (e *UnreachableError) Unwrap() error { return e.Err }

// RefusedError says that something was not begun: nothing was changed.
type RefusedError struct{ Err error }

// Error is the reason.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// errNoHost says that nobody knows the way to a machine.
var errNoHost = errors.New("no way to it is known")

// reachable fails with an [UnreachableError] unless all of some nodes answer.
func (c *Cluster) reachable(ctx context.Context, nodes []topology.NodeState) error {
	errs := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() {
			h := c.Hosts[n.Name]
			if h == nil {
				errs[i] = errNoHost
				return
			}
			_, errs[i] = run(ctx, h, "true")
		})
	}
	wg.Wait()
	missing := &UnreachableError{}
	for i, n := range nodes {
		if errs[i] != nil {
			missing.Hosts, missing.Err = append(missing.Hosts, n.Name), errors.Join(missing.Err, errs[i])
		}
	}
	if len(missing.Hosts) > 0 {
		return missing
	}
	return nil
}

// nodes are those that have any role.
func nodes(in cluster.Inputs) []topology.NodeState {
	return slices.DeleteFunc(slices.Clone(in.Snapshot.Nodes), func(n topology.NodeState) bool { return len(n.Roles) == 0 })
}

// run runs a script on a host; an exit code other than 0 is an error.
func run(ctx context.Context, h installer.Host, script string) ([]byte, error) {
	r, err := h.Run(ctx, installer.Command{Argv: []string{"sh", "-s"}, Stdin: []byte("set -eu\numask 077\n" + script)})
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, &ExitError{Host: h.Name(), Code: r.Code, Stderr: string(bytes.TrimSpace(r.Stderr))}
	}
	return r.Stdout, nil
}

// ExitError says that something that was run on a host failed.
type ExitError struct {
	Host   string
	Code   int
	Stderr string
}

// Error ends with what the program said.
func (e *ExitError) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", e.Host, e.Code, strings.ReplaceAll(e.Stderr, "\n", "\n  "))
}
