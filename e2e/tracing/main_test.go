package tracing

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"slipway/e2e/program"
)

// statePrefix is followed by the test's process id. The path is short, as those
// of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-tr-"

// patience bounds any one command, on a busy machine too.
const patience = 3 * time.Minute

// underTest is the program under test: "binary" is taken by an import.
var underTest string

func TestMain(m *testing.M) { os.Exit(program.MainIn(m, statePrefix, &underTest)) }

// said is what a command printed and how it ended.
type said = program.Said

// slipway runs a command of the program to its end.
func slipway(t testing.TB, args ...string) said {
	t.Helper()
	return program.Run(t, patience, exec.Command(underTest, args...))
}

// decode reads a command's JSON.
func decode[T any](t testing.TB, s said) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s.Out), &v); err != nil {
		t.Fatalf("%v in the output of %s", err, s)
	}
	return v
}
