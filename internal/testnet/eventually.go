package testnet

import (
	"testing"
	"time"
)

// Eventually looks again after as long as it took to look, and between these: what is
// asked of a program is not to keep those from working that are waited for.
const (
	pollAtLeast = 2 * time.Millisecond
	pollAtMost  = 5 * time.Second
)

// Eventually waits until cond holds. cond says what it saw when it does not;
// that is the test's failure when patience runs out.
func Eventually(t testing.TB, patience time.Duration, what string, cond func() (bool, string)) {
	t.Helper()
	give := time.After(patience)
	for {
		began := time.Now()
		ok, saw := cond()
		if ok {
			return
		}
		select {
		case <-give:
			t.Fatalf("%s: not within %s: %s", what, patience, saw)
		case <-time.After(min(max(time.Since(began), pollAtLeast), pollAtMost)):
		}
	}
}
