package robust

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// result is the JSON of `up` (lab.Result).
type result struct {
	Lab      string
	Mode     string
	Created  bool
	Changes  []map[string]any
	Timings  []struct{ Phase string }
	Nodes    int
	Pods     int
	Services int
	TookNs   int64
}

// A second `up` of the same file says "no changes" and changes none: neither
// what the lab remembers nor what is in its kernel's tables.
func TestUpAgain(t *testing.T) {
	for _, mode := range []string{"flannel-udp", "flannel-vxlan", "flannel-host-gw", "calico-bgp", "calico-ipip"} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			first := decode[result](t, w.up(name, mode, "-o", "json").Out)
			if !first.Created || first.Lab != name || first.Mode != mode || first.Nodes != 3 || first.Pods != 6+1 || first.Services != 2+1 {
				t.Errorf("first up said %+v", first)
			}
			memory, tables := w.remembers(name), w.tables(name)
			if s := w.up(name, mode); !strings.Contains(s.Out, "no changes") || strings.Count(s.Out, "\n") > 2 || strings.Contains(s.Err, "\x1b") {
				t.Errorf("second up: %s", s)
			}
			third := decode[map[string]any](t, w.up(name, mode, "-o", "json").Out)
			if changes, ok := third["changes"].([]any); !ok || len(changes) != 0 || third["created"] != false {
				t.Errorf("third up: changes %v (want an empty list), created %v", third["changes"], third["created"])
			}
			if d := cmp.Diff(memory, w.remembers(name)); d != "" {
				t.Errorf("the state changed (-before +after)\n%s", d)
			}
			if d := cmp.Diff(tables, w.tables(name)); d != "" {
				t.Errorf("the kernel's tables changed (-before +after)\n%s", d)
			}
		})
	}
}

// remembers is what the lab remembers.
func (w *world) remembers(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.state, name, "state.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// tables are a node's links with their indexes, addresses, routes, neighbours
// that do not age, FDB and rules.
func (w *world) tables(name string) string {
	w.t.Helper()
	var out strings.Builder
	for _, c := range [][]string{
		{"ip", "-d", "link"}, {"ip", "addr"}, {"ip", "route", "show", "table", "all"},
		{"ip", "neigh", "show", "nud", "permanent"}, {"bridge", "fdb", "show", "permanent"}, {"iptables-save"},
	} {
		out.WriteString(still(w.must(append([]string{"exec", "-L", name, "node01", "--"}, c...)...)))
	}
	return out.String()
}
