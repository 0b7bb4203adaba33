package hosts

import (
	_ "embed"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"slipway/installer"
	"slipway/internal/digest"
)

// stateScript prints what a machine is.
//
//go:embed testdata/state.sh
var stateScript string

// states are what all machines are, by lines.
func (r *Rig) states(t *testing.T) map[string][]string {
	t.Helper()
	all := make([]installer.Result, len(r.Machines))
	errs := make([]error, len(r.Machines))
	var wg sync.WaitGroup
	for i, m := range r.Machines {
		wg.Go(func() {
			all[i], errs[i] = m.Run(t.Context(), installer.Command{Argv: []string{"bash", "-s", r.began}, Stdin: []byte(stateScript)})
		})
	}
	wg.Wait()
	out := map[string][]string{}
	for i, m := range r.Machines {
		if errs[i] != nil || all[i].Code != 0 {
			t.Fatalf("%s: %v: %s", m.Name(), errs[i], all[i].Stderr)
		}
		lines := strings.Split(strings.TrimSpace(string(all[i].Stdout)), "\n")
		for i, l := range lines {
			if path, old := strings.CutPrefix(l, "old "); old {
				lines[i] = "sum " + path + " " + m.common(t, path)
			}
		}
		out[m.Name()] = lines
	}
	return out
}

// sums are those of files that all machines have, by path.
var sums = map[string]string{}

// common is the sum of a file that all machines have.
func (m *Machine) common(t *testing.T, path string) string {
	t.Helper()
	if sums[path] == "" {
		sum, _, err := digest.File(filepath.Join(m.lower, path))
		if err != nil {
			t.Fatal(err)
		}
		sums[path] = sum
	}
	return sums[path]
}

// same checks that the machines are what they were, but for lines that match a
// pattern.
func (r *Rig) same(t *testing.T, before map[string][]string, but *regexp.Regexp) {
	t.Helper()
	after := r.states(t)
	for _, m := range r.Machines {
		sameState(t, m.Name(), before[m.Name()], after[m.Name()], but)
	}
}

// different are the lines that only one of two states has, but for those that
// match a pattern.
func different(before, after []string, but *regexp.Regexp) []string {
	in := func(lines []string) map[string]bool {
		out := map[string]bool{}
		for _, l := range lines {
			out[l] = true
		}
		return out
	}
	var out []string
	was, is := in(before), in(after)
	for l := range was {
		if !is[l] {
			out = append(out, l+" (gone)")
		}
	}
	for l := range is {
		if !was[l] {
			out = append(out, l+" (new)")
		}
	}
	slices.Sort(out)
	return slices.DeleteFunc(out, func(l string) bool { return but != nil && but.MatchString(l) })
}

// mostShown bounds what a failure prints.
const mostShown = 60

func sameState(t *testing.T, name string, before, after []string, but *regexp.Regexp) {
	t.Helper()
	d := different(before, after, but)
	if len(d) == 0 {
		return
	}
	more := ""
	if len(d) > mostShown {
		d, more = d[:mostShown], "\n…"
	}
	t.Errorf("%s is another than it was:\n%s%s", name, strings.Join(d, "\n"), more)
}
