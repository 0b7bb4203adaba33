package lab

import (
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// Who asks for a lab in the middle of a change is answered when the change is over,
// and at once where a command was cut off.
func TestSettled(t *testing.T) {
	t.Setenv(StateDirEnv, t.TempDir())
	synctest.Test(t, settles)
}

func settles(t *testing.T) {
	if _, err := Settled(t.Context(), "none"); !errors.Is(err, ErrNoLab) {
		t.Errorf("a lab that is not there: %v", err)
	}
	if _, err := os.Stat(filesOf("none").dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("asking for it made it: %v", err)
	}
	held, err := lock(t.Context(), filesOf("x").lock())
	if err != nil {
		t.Fatal(err)
	}
	st := &State{Lab: "x"}
	if err := st.write(); err != nil {
		t.Fatal(err)
	}
	if got, err := SettledSoon(t.Context(), "x"); err != nil || got.Complete {
		t.Fatalf("a change that takes long: %v %+v", err, got)
	}
	done := make(chan error)
	go func() {
		time.Sleep(100 * time.Millisecond) //nolint:forbidigo // the bubble's time: the change is under way
		st.Complete = true
		done <- errors.Join(st.write(), held.release())
	}()
	if got, err := Settled(t.Context(), "x"); err != nil || !got.Complete {
		t.Errorf("after the change: %v %+v", err, got)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	st.Complete = false
	if err := st.write(); err != nil {
		t.Fatal(err)
	}
	if got, err := Settled(t.Context(), "x"); err != nil || got.Complete {
		t.Errorf("a command that was cut off: %v %+v", err, got)
	}
}
