package components

import (
	"testing"
	"time"
)

// The guess at what is left goes by bytes of source, at the pace so far, and is
// not made before a twentieth is done.
func TestTimeLeft(t *testing.T) {
	var last Event
	tr := newTracker("c", func(e Event) { last = e })
	now := tr.begun
	tr.now = func() time.Time { return now }
	tr.compile(map[string]int64{"tiny": 1, "small": 9, "big": 50, "other": 40})
	for _, step := range []struct {
		line  string
		after time.Duration
		stage Stage
		share float64
		left  time.Duration
	}{
		{"tiny", time.Second, Compiling, 0.01, 0},                     // too early to say
		{"# warning: of cgo", 0, Compiling, 0.01, 0},                  // not a package
		{"small", 9 * time.Second, Compiling, 0.10, 90 * time.Second}, // 10 s for a tenth
		{"big", 20 * time.Second, Compiling, 0.60, 20 * time.Second},  // 30 s for six tenths
		{"big", 0, Compiling, 0.60, 20 * time.Second},                 // said again when the next program is built
		{"other", 30 * time.Second, Linking, 0, 0},                    // nobody knows how long
		{"go: downloading x v1", 30 * time.Second, Linking, 0, 0},     // not counted any more
	} {
		now = now.Add(step.after)
		tr.line(step.line)
		if last.Stage != step.stage || last.Share != step.share || last.Left != step.left {
			t.Errorf("after %q: %s, %.2f, %s left; want %s, %.2f, %s", step.line, last.Stage, last.Share, last.Left, step.stage, step.share, step.left)
		}
	}
}
