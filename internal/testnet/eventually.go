package testnet

import (
	"testing"
	"time"
)

// pollEvery is how often Eventually looks.
const pollEvery = 2 * time.Millisecond

// Eventually waits until cond holds. cond says what it saw when it does not;
// that is the test's failure when patience runs out.
func Eventually(t testing.TB, patience time.Duration, what string, cond func() (bool, string)) {
	t.Helper()
	give := time.After(patience)
	for {
		ok, saw := cond()
		if ok {
			return
		}
		select {
		case <-give:
			t.Fatalf("%s: not within %s: %s", what, patience, saw)
		case <-time.After(pollEvery):
		}
	}
}
