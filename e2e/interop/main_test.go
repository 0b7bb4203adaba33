package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/bench/peers"
)

// stateDirPrefix is followed by the test's process id. The path is short, as
// those of UNIX sockets below it must fit 107 bytes (unix(7)).
const stateDirPrefix = "/run/slipway-interop-"

// The bounds of what the tests wait for, on a busy machine too.
const (
	buildPatience = 15 * time.Minute
	patience      = time.Minute
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getenv(holdEnv) != "" {
		return complain(hold(os.Args[1], os.Args[2]))
	}
	if os.Geteuid() != 0 {
		return m.Run() // every test says why it is skipped
	}
	dir, err := os.MkdirTemp("", "slipway-interop")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	binary = filepath.Join(dir, "slipway")
	if err := testnet.Build(binary, "slipway/cmd/slipway"); err != nil {
		return complain(err)
	}
	if err := sweep(); err != nil {
		return complain(err)
	}
	state := stateDirPrefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		return complain(err)
	}
	code := m.Run()
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		return complain(fmt.Errorf("%s is still there after the last lab went down", state))
	}
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "interop:", err)
	return 1
}

// sweep takes down what a run of these tests left that was killed.
func sweep() error {
	dirs, err := filepath.Glob(stateDirPrefix + "*")
	if err != nil {
		return err
	}
	for _, d := range dirs {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(d, stateDirPrefix)); err == nil {
			continue
		}
		if err := os.Setenv(lab.StateDirEnv, d); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(peers.Sweep(ctx), os.RemoveAll(d)); err != nil {
			return err
		}
	}
	return nil
}

// program builds a component, once for all tests, and returns where its
// program is.
func program(t *testing.T, component, name string) string {
	t.Helper()
	testnet.Need(t, testnet.Flanneld)
	built, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range built {
		if b.Component == component {
			return b.Path(name)
		}
	}
	t.Fatalf("component %s is not built", component)
	return ""
}

var programs = sync.OnceValues(func() ([]*components.Built, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildPatience)
	defer cancel()
	return components.BuildAll(ctx, []string{"etcd", "flannel", "cni-plugins"}, nil)
})
