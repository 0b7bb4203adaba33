package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab"
)

// binDir holds the program under test: the real one, as it starts others of itself.
var binDir string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "slipway-cmd")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)                      //nolint:errcheck // a scratch directory
	if err := os.Chmod(dir, 0o755); err != nil { // nobody has to reach it
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	binDir = dir
	if err := testnet.Build(filepath.Join(dir, "slipway"), "slipway/cmd/slipway"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

var serial int

// unique returns a state directory and a lab name that nobody else has. The
// directory's path is short, as UNIX sockets below it must fit 107 bytes (unix(7)).
func unique() (state, name string) {
	serial++
	id := strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(serial)
	return filepath.Join(os.TempDir(), "slw-"+id), "cmd" + id
}

// environ is a command's environment with the program first in PATH.
func environ(state string) []string {
	return append(os.Environ(), "PATH="+binDir+":"+os.Getenv("PATH"), lab.StateDirEnv+"="+state)
}

// takeDown ends whatever a script left.
func takeDown(state string) error {
	cmd := exec.Command(filepath.Join(binDir, "slipway"), "down", "--all")
	cmd.Env = environ(state)
	if out, err := cmd.CombinedOutput(); os.Geteuid() == 0 && err != nil {
		return fmt.Errorf("last clean-up: %w\n%s", err, out)
	}
	if _, err := os.Stat(state); err == nil {
		return fmt.Errorf("%s is left", state)
	}
	return nil
}
