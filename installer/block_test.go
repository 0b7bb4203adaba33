package installer

import "testing"

func TestBlockOfAFile(t *testing.T) {
	b := Block{Path: "/etc/hosts", Name: "slipway", Content: "10.0.0.1 a\n10.0.0.2 b\n"}
	for name, c := range map[string]struct{ file, want string }{
		"none":         {"127.0.0.1 localhost\n", ""},
		"empty":        {"", ""},
		"in between":   {"127.0.0.1 localhost\n# BEGIN slipway\n10.0.0.1 a\n# END slipway\n::1 x\n", "10.0.0.1 a\n"},
		"all there is": {"# BEGIN slipway\n10.0.0.1 a\n10.0.0.9 c\n# END slipway\n", "10.0.0.1 a\n10.0.0.9 c\n"},
		"with nothing": {"# BEGIN slipway\n# END slipway\n", ""},
		"another's":    {"# BEGIN slipway two\n10.0.0.1 a\n# END slipway two\n", ""},
	} {
		if got := string(b.Of([]byte(c.file))); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
