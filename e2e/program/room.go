package program

import (
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// roomPatience is longer than another package's tests keep their labs.
const roomPatience = 20 * time.Minute

// WhenRoom runs a command that makes a lab until there is room for one, and
// returns how it ended then. The kernel's inotify instances are for all labs of
// the machine together: those of other packages' tests, which may run at the same
// time, are waited for.
func WhenRoom(t testing.TB, run func() (out string, code int)) (out string, code int) {
	t.Helper()
	testnet.Eventually(t, roomPatience, "room for a lab", func() (bool, string) {
		out, code = run()
		return code == 0 || !strings.Contains(out, "inotify instances"), out
	})
	return out, code
}
