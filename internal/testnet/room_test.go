package testnet

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// Claims never exceed the room, whoever comes and goes, and all come to an end.
func TestClaimsKeepWithinTheRoom(t *testing.T) {
	const room = 100
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "claim-killed"), []byte("90"), 0o600); err != nil { // by nobody who lives
		t.Fatal(err)
	}
	var taken, most atomic.Int64
	t.Run("all", func(t *testing.T) {
		for i := range 40 {
			n := []int{20, 50, 68}[i%3]
			t.Run("", func(t *testing.T) {
				t.Parallel()
				claim(t, dir, n, room)
				now := taken.Add(int64(n))
				defer taken.Add(int64(-n))
				for was := most.Load(); now > was && !most.CompareAndSwap(was, now); was = most.Load() {
				}
			})
		}
	})
	if most.Load() > room {
		t.Errorf("%d of %d were claimed at once", most.Load(), room)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "claim-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What needs more than there is has it alone.
func TestTooLargeAClaimIsAlone(t *testing.T) {
	claim(t, t.TempDir(), 200, 100)
}
