package components

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/digest"
)

// A program of the user's is kept as it was, whatever becomes of its file.
func TestGiven(t *testing.T) {
	t.Setenv(CacheDirEnv, t.TempDir())
	file := filepath.Join(t.TempDir(), "etcd")
	write := func(content string) string {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		sum, _, err := digest.File(file)
		if err != nil {
			t.Fatal(err)
		}
		return sum
	}
	first := write("one")
	kept, err := Given("etcd", file, first)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("it can be run: %v %v", info, err)
	}
	second := write("two")
	if again, err := Given("etcd", file, first); err != nil || again != kept {
		t.Errorf("the file is another now: %q %v", again, err)
	}
	if err := os.WriteFile(kept, []byte("damaged"), 0o755); err != nil {
		t.Fatal(err)
	}
	var changed *GivenError
	if _, err := Given("etcd", file, first); !errors.As(err, &changed) || changed.Have != second {
		t.Errorf("neither is what is wanted: %v", err)
	}
	if _, err := os.Stat(kept); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not wanted was kept: %v", err)
	}
	if _, err := Given("etcd", filepath.Join(filepath.Dir(file), "none"), first); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
