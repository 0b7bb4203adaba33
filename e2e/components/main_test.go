package components

import (
	"os"
	"testing"

	"slipway/e2e/program"
)

// statePrefix is followed by the test's process id and a number. It is short,
// as paths of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-co-"

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(program.Main(m, statePrefix, &binary)) }
