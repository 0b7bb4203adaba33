package e2e

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"slipway/e2e/program"
)

// stateDirPrefix is followed by the test's process id. The path is short, as
// those of UNIX sockets below it must fit 107 bytes (unix(7)).
const stateDirPrefix = "/run/slipway-e2e-"

// commandPatience is how long any one command may take, on a busy machine too.
const commandPatience = 3 * time.Minute

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(program.MainIn(m, stateDirPrefix, &binary)) }

// said is what a command printed and how it ended.
type said = program.Said

// slipway runs a command of the program to its end.
func slipway(t testing.TB, args ...string) said {
	t.Helper()
	return program.Run(t, commandPatience, exec.Command(binary, args...))
}

// must runs a command that has to succeed and returns what it printed.
func must(t testing.TB, args ...string) string {
	t.Helper()
	s := slipway(t, args...)
	if s.Code != 0 {
		t.Fatalf("%s: exit code %d, want 0\nstdout: %s\nstderr: %s", s.Argv, s.Code, s.Out, s.Err)
	}
	return s.Out
}
