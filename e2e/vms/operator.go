package vms

import (
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"slipway/e2e/program"
	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
)

// operator is who has an account on the machines, and runs slipway where the
// segment's switch is.
type operator struct {
	Home string

	t       testing.TB
	r       *Rig
	program string
}

// buildSlipway builds slipway.
func buildSlipway(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "slipway")
	if err := testnet.Build(path, "slipway/cmd/slipway"); err != nil {
		t.Fatal(err)
	}
	return path
}

// newOperator gives the operator the machines' key.
func newOperator(t testing.TB, r *Rig, program string) *operator {
	t.Helper()
	o := &operator{t: t, r: r, Home: filepath.Join(r.dir, "home"), program: program}
	if err := os.MkdirAll(filepath.Join(o.Home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(r.key, "")
	if err == nil {
		err = os.WriteFile(filepath.Join(o.Home, ".ssh", "id_ed25519"), pem.EncodeToMemory(block), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// longest is what a command of the operator's may take, where every instruction
// of three machines is emulated.
const longest = time.Hour

// slipway runs a command of the program under test to its end.
func (o *operator) slipway(args ...string) (out string, code int) {
	o.t.Helper()
	cache, err := components.CacheDir()
	if err != nil {
		o.t.Fatal(err)
	}
	cmd := exec.Command(o.program, args...)
	cmd.Dir = o.Home
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + o.Home, "USER=operator", "LANG=C.UTF-8",
		lab.StateDirEnv + "=" + filepath.Join(o.r.dir, "s"), components.CacheDirEnv + "=" + cache,
	}
	said := program.RunIn(o.t, longest, cmd, func(start func() error) error { return o.r.NS.Do(start) })
	return said.Both, said.Code
}

// must runs a command that has to succeed.
func (o *operator) must(args ...string) string {
	o.t.Helper()
	out, code := o.slipway(args...)
	if code != 0 {
		o.t.Fatalf("slipway %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// clusterFile writes a cluster file of the rig's machines: for each its roles,
// with commas between them, and lines of the file's spec.
func (o *operator) clusterFile(spec string, roles ...string) string {
	o.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: site}\nspec:\n  components: full\n%s", spec)
	fmt.Fprintf(&b, "  underlay: {segments: [{name: lan, subnet: %s}]}\n  nodes:\n", network)
	for i, m := range o.r.Machines {
		fmt.Fprintf(&b, "  - {name: %s, roles: [%s], address: %s, ssh: {user: %s}}\n", m.name, roles[i], m.Address, User)
	}
	path := filepath.Join(o.Home, "cluster.yaml")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}
