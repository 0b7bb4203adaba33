package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"slipway/installer"
	"slipway/lab/cgroup"
	"slipway/lab/initd"
)

// Machine is a node of a lab with real components, as the installer sees it.
type Machine struct {
	lab, node string
	client    *initd.Client
}

// OpenMachine returns a lab's node. It need not be there, nor run.
func OpenMachine(lab, node string) *Machine {
	return &Machine{lab: lab, node: node, client: initd.NewClient(filesOf(lab).node(node).socket())}
}

// Name is the node's name.
func (m *Machine) Name() string { return m.node }

// Client reaches the node's first process.
func (m *Machine) Client() *initd.Client { return m.client }

// Run runs a program in the node.
func (m *Machine) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	r, err := m.client.Run(ctx, c.Argv, c.Stdin)
	if err != nil {
		return installer.Result{}, fmt.Errorf("node %s: %w", m.node, err)
	}
	return installer.Result(r), nil
}

// Store puts a blob into the store, which all nodes of all labs share.
func (m *Machine) Store(ctx context.Context, b installer.Blob) error {
	s, err := openStore()
	if err != nil {
		return err
	}
	return s.put(ctx, b)
}

// Fetch writes a file of the node to w.
func (m *Machine) Fetch(ctx context.Context, path string, w io.Writer) error {
	r, err := m.Run(ctx, installer.Command{Argv: []string{"cat", "--", path}})
	if err != nil {
		return fmt.Errorf("fetch %s: %w", path, err)
	}
	if r.Code != 0 {
		return fmt.Errorf("node %s: fetch %s: exit code %d: %s", m.node, path, r.Code, bytes.TrimSpace(r.Stderr))
	}
	if _, err := w.Write(r.Stdout); err != nil {
		return fmt.Errorf("fetch %s: %w", path, err)
	}
	return nil
}

// Log is the file that holds what the node's first process said.
func (m *Machine) Log() string { return filesOf(m.lab).node(m.node).log() }

// CgroupRoot is the node's own control group, from the hierarchies' top; v1 says
// that its controllers are those of version 1.
func (m *Machine) CgroupRoot() (group string, v1 bool, err error) {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return "", false, err
	}
	return "/" + nodeCgroup(m.lab, m.node), !cgroup.OnlyUnified(hs), nil
}
