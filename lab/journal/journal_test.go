package journal

import (
	"os"
	"path/filepath"
	"testing"
)

// A crash may tear the last line; what was announced before it must survive,
// and the journal must go on from there.
func TestTornLastLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lab", "journal")
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"a", "b"} {
		if err := j.Before(NetNS, n); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Undone(NetNS, "a"); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"kind":"netns","na`); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()

	for round := range 2 { // the second time reads what the first one appended
		j, err = Open(path)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if j.Has(NetNS, "a") || !j.Has(NetNS, "b") {
			t.Fatalf("round %d: live = %v, want only b", round, j.Live(NetNS))
		}
		if err := j.Before(Daemon, "x"); err != nil {
			t.Fatal(err)
		}
		_ = j.Close()
	}
}

func TestGarbageInTheMiddleIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	if err := os.WriteFile(path, []byte("not json\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil {
		t.Fatal("a journal that cannot be read must not be taken for an empty one")
	}
}
