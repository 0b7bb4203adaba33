package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"slipway/installer"
)

// blobOf writes a file and describes it.
func blobOf(t *testing.T, text string) installer.Blob {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(text))
	return installer.Blob{Sum: hex.EncodeToString(sum[:]), Size: int64(len(text)), Path: path}
}

func newStore(t *testing.T) store {
	t.Helper()
	t.Setenv("SLIPWAY_CACHE_DIR", t.TempDir())
	s, err := openStore()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantStored looks for the blob and for anything that does not belong there.
func wantStored(t *testing.T, s store, b installer.Blob, text string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(s.dir, b.Sum))
	if err != nil || string(got) != text {
		t.Errorf("stored %q, %v", got, err)
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil || len(entries) != 2 { // the blob, and when it was seen
		t.Errorf("the store holds %v (%v)", entries, err)
	}
}

func TestStore(t *testing.T) {
	s, b := newStore(t), blobOf(t, "a program")
	var g sync.WaitGroup
	for range 8 { // as the nodes of a lab do
		g.Go(func() {
			if err := s.put(t.Context(), b); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	wantStored(t, s, b, "a program")
	st, err := os.Stat(filepath.Join(s.dir, b.Sum))
	if err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// What is there is not asked for again.
	if err := os.Remove(b.Path); err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), b); err != nil {
		t.Error(err)
	}
}

// A damaged file is named, and nothing of it is stored.
func TestStoreRefusesAnotherFile(t *testing.T) {
	s, b := newStore(t), blobOf(t, "a program")
	if err := os.WriteFile(b.Path, []byte("another"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := s.put(t.Context(), b)
	var bad *SumError
	if !errors.As(err, &bad) || bad.Path != b.Path || bad.Want != b.Sum {
		t.Errorf("said %v", err)
	}
	if entries, err := os.ReadDir(s.dir); err != nil || len(entries) > 0 {
		t.Errorf("the store holds %v (%v)", entries, err)
	}
	b.Sum = "../../etc/passwd"
	if err := s.put(t.Context(), b); err == nil {
		t.Error("a path was taken for a checksum")
	}
}

// What was damaged in the store is put there again; what a crash left of a copy
// is no obstacle.
func TestStoreRepairs(t *testing.T) {
	s, b := newStore(t), blobOf(t, "a program")
	if err := os.WriteFile(filepath.Join(s.dir, b.Sum+".part"), []byte("a pro"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, b, "a program")
	if err := os.Remove(filepath.Join(s.dir, b.Sum)); err != nil { // not the file that it is a name of
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.dir, b.Sum), []byte("a pr0gram"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	wantStored(t, s, b, "a program")
}
