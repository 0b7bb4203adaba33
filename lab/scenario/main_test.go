package scenario

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab"
)

// statePrefix is followed by the test's process id. The path is short, as those
// of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-sc-"

// program is the program under test.
var program string

// atOnce is how many scenarios are played together: most of their time they wait,
// for packets that do not arrive and for routers to agree, and take no processor.
const atOnce = 4

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) { // nobody chose
		_ = f.Value.Set(strconv.Itoa(max(atOnce, runtime.GOMAXPROCS(0))))
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // every test that needs root says why it is skipped
	}
	dir, err := os.MkdirTemp("", "slipway-sc")
	if err != nil {
		return complain(err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a scratch directory
	program = filepath.Join(dir, "slipway")
	if err := testnet.Build(program, "slipway/cmd/slipway"); err != nil {
		return complain(err)
	}
	sweep()
	state := statePrefix + strconv.Itoa(os.Getpid())
	if err := os.Setenv(lab.StateDirEnv, state); err != nil {
		return complain(err)
	}
	code := m.Run()
	if err := downAll(state); err != nil {
		return complain(err)
	}
	if _, err := os.Stat(state); err == nil && code == 0 {
		return complain(fmt.Errorf("%s is left", state))
	}
	_ = os.RemoveAll(state)
	return code
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, "scenario:", err)
	return 1
}

// sweep takes down what a run of these tests left that was killed.
func sweep() {
	dirs, _ := filepath.Glob(statePrefix + "*")
	for _, d := range dirs {
		if _, err := os.Stat("/proc/" + strings.TrimPrefix(d, statePrefix)); err == nil {
			continue
		}
		_ = downAll(d)
		_ = os.RemoveAll(d)
	}
}

func downAll(state string) error {
	cmd := exec.Command(program, "down", "--all")
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+state)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("down --all in %s: %w\n%s", state, err, out)
	}
	return nil
}
