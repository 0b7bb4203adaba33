package hosts

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Output is what a program printed and how it ended.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// String is all of it.
func (o Output) String() string { return fmt.Sprintf("exit code %d\n%s%s", o.Code, o.Stdout, o.Stderr) }

// Command is a program of the operator's. It has to be started by [Rig.Begin].
func (r *Rig) Command(name string, args ...string) *exec.Cmd {
	r.t.Helper()
	env, err := r.environment()
	if err != nil {
		r.t.Fatal(err)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = env, r.Home
	return cmd
}

// Binary is the program under test.
func Binary() string { return binary }

// Begin starts a program where the operator is.
func (r *Rig) Begin(cmd *exec.Cmd) {
	r.t.Helper()
	if err := r.Operator.Do(cmd.Start); err != nil {
		r.t.Fatal(err)
	}
}

// longest is what the longest command may take, on a busy machine.
const longest = 15 * time.Minute

// Slipway runs a command of the program under test to its end.
func (r *Rig) Slipway(args ...string) Output {
	r.t.Helper()
	return r.run(r.Command(binary, args...))
}

// SlipwayMust runs one that has to succeed.
func (r *Rig) SlipwayMust(args ...string) Output {
	r.t.Helper()
	o := r.Slipway(args...)
	if o.Code != 0 {
		r.t.Fatalf("slipway %s: %v", strings.Join(args, " "), o)
	}
	return o
}

func (r *Rig) run(cmd *exec.Cmd) Output {
	r.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	r.Begin(cmd)
	end := time.AfterFunc(longest, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}

// ClusterFile writes a cluster file for all of the machines: a network mode, and
// for each machine its roles with commas between them. Where roles are missing,
// the first machine is the control plane and the others are workers. More lines
// for the file's spec may follow by [Rig.WriteClusterFile].
func (r *Rig) ClusterFile(mode string, roles ...string) string {
	r.t.Helper()
	return r.WriteClusterFile("cluster.yaml", mode, "", roles...)
}

// WriteClusterFile writes one under a name in the operator's home, with more
// lines of its spec, each with two spaces before it.
func (r *Rig) WriteClusterFile(name, mode, more string, roles ...string) string {
	r.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: site}\nspec:\n  components: full\n  network: {mode: %s}\n", mode)
	fmt.Fprintf(&b, "  underlay: {segments: [{name: lan, subnet: %s}]}\n%s  nodes:\n", network, more)
	for i, m := range r.Machines {
		role := "worker"
		switch {
		case i < len(roles):
			role = strings.ReplaceAll(roles[i], ",", ", ")
		case i == 0:
			role = "control-plane, etcd"
		}
		fmt.Fprintf(&b, "  - {name: %s, roles: [%s], address: %s, ssh: {user: %s}}\n", m.name, role, m.Address, User)
	}
	path := filepath.Join(r.Home, name)
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// goEnv asks the toolchain once for each of its settings.
var goEnv = func() func(string) string {
	var mu sync.Mutex
	known := map[string]string{}
	return func(name string) string {
		mu.Lock()
		defer mu.Unlock()
		if v, ok := known[name]; ok {
			return v
		}
		out, _ := exec.Command("go", "env", name).Output()
		known[name] = strings.TrimSpace(string(out))
		return known[name]
	}
}()
