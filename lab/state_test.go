package lab

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A lab's name stays good while other commands make and remove the lab.
func TestClaimedWhileOthersComeAndGo(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	ended := make(chan error)
	go func() {
		for range 3000 {
			l, err := lock(t.Context(), filesOf("x").lock())
			if err != nil {
				ended <- err
				return
			}
			if err := os.RemoveAll(filesOf("x").dir); err != nil {
				ended <- err
				return
			}
			_ = l.release()
		}
		close(ended)
	}()
	for {
		if err := claimDir("x"); err != nil {
			t.Fatal(errors.Join(err, <-ended))
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

// A directory that somebody else made is left to them.
func TestForeignDirectoryIsNotClaimed(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	if err := os.MkdirAll(filepath.Join(filesOf("x").dir, "precious"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := claimDir("x"); err == nil {
		t.Error("claimed")
	}
}
