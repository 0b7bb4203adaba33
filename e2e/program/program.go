// Package program builds slipway for tests that run it as people do, and takes
// down what runs of such tests left that were killed themselves.
package program

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab"
)

// Main runs a package's tests with the program at *binary, which is built before.
// State directories of the tests are called prefix, the test's process id, and
// perhaps a dash and more.
func Main(m *testing.M, prefix string, binary *string) int {
	return run(m, prefix, binary, func() error { return nil })
}

// MainIn is [Main] for tests whose labs are all in one state directory, prefix and the
// test's process id, that the environment names: what they left up goes down at the
// end, and nothing may be left of the directory.
func MainIn(m *testing.M, prefix string, binary *string) int {
	state := prefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run(m, prefix, binary, func() error {
		if err := downAll(*binary, state); err != nil {
			return err
		}
		if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there after the last lab went down", state)
		}
		return nil
	})
}

func run(m *testing.M, prefix string, binary *string, after func() error) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", filepath.Base(prefix))
	if err == nil {
		defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
		*binary = filepath.Join(dir, "slipway")
		err = testnet.Build(*binary, "slipway/cmd/slipway")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	sweep(prefix, *binary)
	code := m.Run()
	if err := after(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func downAll(binary, state string) error {
	cmd := exec.Command(binary, "down", "--all")
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("down --all in %s: %w\n%s", state, err, out)
	}
	return nil
}

func sweep(prefix, binary string) {
	dirs, _ := filepath.Glob(prefix + "*")
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(d, prefix), "-")
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue
		}
		if downAll(binary, d) == nil { // what is still up keeps what says so
			_ = os.RemoveAll(d)
		}
	}
}
