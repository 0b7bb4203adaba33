package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"slipway/lab/initd"
	"slipway/lab/podexec"
)

// Exec turns the calling process into a command of the node's, with the node's
// files, processes, name and control groups. It returns only when that fails. Of
// the environment TERM alone is taken along.
func (m *Machine) Exec(ctx context.Context, argv []string) error {
	pid, err := m.client.Pid(ctx)
	if err != nil {
		return fmt.Errorf("node %s: %w", m.node, err)
	}
	var c initd.Config
	raw, err := os.ReadFile(filesOf(m.lab).node(m.node).config())
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil {
		return fmt.Errorf("read what node %s was started with: %w", m.node, err)
	}
	for _, g := range c.Cgroups {
		if err := os.WriteFile(filepath.Join(g, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter control group: %w", err)
		}
	}
	const setpriv = "/usr/bin/setpriv"
	full := append([]string{setpriv}, initd.Bounds...)
	full = append(full, "--", "nsenter", "--target", strconv.Itoa(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--")
	env := append(initd.Environment(), c.Env...)
	if term := os.Getenv("TERM"); term != "" {
		env = append(env, "TERM="+term)
	}
	err = syscall.Exec(setpriv, append(full, argv...), env)
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w (of the package util-linux)", err)
	}
	return &podexec.NotRunError{Command: setpriv, Code: podexec.CodeNotExecutable, Err: err}
}

// MachineOf returns the node that a target is, if it has a first process of its
// own; nil for pods, routers and all of a lab without real components.
func MachineOf(st *State, t *Target) *Machine {
	if t.Pod != nil || !st.Snapshot.Components.Real() {
		return nil
	}
	if _, ok := st.Snapshot.NodeByName(t.Label); !ok {
		return nil
	}
	return OpenMachine(st.Lab, t.Label)
}
