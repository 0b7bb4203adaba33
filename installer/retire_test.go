package installer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a plan no longer has goes and what was there before comes back; the rest
// stays, and can still be undone as a whole.
func TestRetire(t *testing.T) {
	h := newSandbox(t, "node01")
	h.sh(t, "printf 'theirs\n' >/etc/old")
	state := "cd /etc; ls; cat old"
	before := h.sh(t, state)
	old := File{Path: "/etc/old", Mode: 0o644, Content: []byte("ours\n")}
	items := []Item{File{Path: "/etc/a", Mode: 0o644}, old, File{Path: "/etc/b", Mode: 0o644}}
	if _, err := apply(t, h, planOf("node01", items...)); err != nil {
		t.Fatal(err)
	}
	done, err := Retire(t.Context(), h, []string{"file /etc/a", old.ID(), "file /etc/never"})
	if diff := cmp.Diff([]string{old.ID(), "file /etc/a"}, done); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if got := h.sh(t, "cat /etc/old; ls /etc/a /etc/b 2>&1 | grep -c '^/etc/b$'"); got != "theirs\n1\n" {
		t.Errorf("%q", got)
	}
	if changed, err := apply(t, h, planOf("node01", items...)); err != nil || len(changed) != 2 { // it comes again
		t.Errorf("%q, %v", changed, err)
	}
	if _, err := Undo(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, h.sh(t, state)); diff != "" {
		t.Error(diff)
	}
}
