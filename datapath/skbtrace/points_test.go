package skbtrace

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What stands behind a point is what iptables' own order says
// (Netfilter hooks of the packet flow diagram: raw, conntrack, mangle, nat, filter, security).
func TestBehind(t *testing.T) {
	for _, tt := range []struct {
		hook     string
		priority int
		tables   bool
		want     []string
	}{
		{"prerouting", -450, true, []string{"defragmentation", "raw"}},
		{"prerouting", -299, true, []string{"conntrack"}},
		{"prerouting", -199, true, []string{"mangle"}},
		{"prerouting", -149, true, []string{"nat"}},
		{"prerouting", 450, true, nil},
		{"input", -149, true, []string{"filter"}},
		{"input", 450, true, []string{"conntrack"}},
		{"forward", -450, true, []string{"mangle"}},
		{"forward", 1, true, []string{"security"}},
		{"output", -99, true, []string{"filter"}},
		{"postrouting", -149, true, []string{"nat"}},
		{"postrouting", -450, false, []string{"mangle", "nat"}},
	} {
		if diff := cmp.Diff(tt.want, Behind(tt.hook, tt.priority, tt.tables)); diff != "" {
			t.Errorf("%s behind %d: %s", tt.hook, tt.priority, diff)
		}
	}
}
