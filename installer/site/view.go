package site

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/diff"

	"slipway/installer"
	"slipway/internal/ordered"
)

// View is what a plan would do to the hosts, for people and programs to read.
// Secrets are never in it.
type View struct {
	Cluster string         `json:"cluster"`
	Hash    string         `json:"hash"`
	Changes []Change       `json:"changes"` // in the plan's order
	Counts  map[string]int `json:"counts"`  // of changes by kind: "file", "unit", …
	Items   int            `json:"items"`   // of the plan, those that are as wanted among them
	// Rehearsed says whether this plan was rehearsed.
	Rehearsed string `json:"rehearsed"` // "yes", "no", "another plan", "failed"
}

// Change is an item that is not as wanted.
type Change struct {
	Phase  string `json:"phase"`
	Step   string `json:"step"`
	Why    string `json:"why"`
	Host   string `json:"host"`
	Item   string `json:"item"`
	Kind   string `json:"kind"`
	Before string `json:"before"`
	Want   string `json:"want"`
	Secret bool   `json:"secret,omitempty"`
	// Version is a program's that is wanted, Had that of the one that is there; empty
	// if nobody knows.
	Version string `json:"version,omitempty"`
	Had     string `json:"had,omitempty"`
	// Diff is from what a file holds to what it is to hold, Command what is run.
	Diff    string `json:"diff,omitempty"`
	Command string `json:"command,omitempty"`
}

// Kind is an item's, as its name begins.
func Kind(it installer.Item) string {
	kind, _, _ := strings.Cut(it.ID(), " ")
	return kind
}

// Look compares hosts with a plan.
func (s *Site) Look(ctx context.Context, hosts map[string]installer.Host, p *Planned, part installer.Plan) (*View, error) {
	e := &installer.Engine{Hosts: hosts}
	states, err := e.Look(ctx, part)
	if err != nil {
		return nil, err
	}
	v := &View{Cluster: s.Name, Hash: p.Hash, Counts: map[string]int{}, Items: len(states), Changes: []Change{}, Rehearsed: s.rehearsed(p)}
	var open []installer.State
	for _, st := range states {
		if st.Differs() {
			open = append(open, st)
		}
	}
	old, err := contents(ctx, hosts, open)
	if err != nil {
		return nil, err
	}
	for _, st := range open {
		c := change(st, old)
		if it, ok := st.Item.(installer.Program); ok {
			c.Version, c.Had = p.Versions[it.Blob.Sum], p.Versions[strings.TrimPrefix(st.Before, "link "+installer.StoreDir+"/")]
		}
		v.Changes = append(v.Changes, c)
		v.Counts[c.Kind]++
	}
	return v, nil
}

func (s *Site) rehearsed(p *Planned) string {
	r, err := s.Rehearsed()
	switch {
	case err != nil:
		return "no"
	case r.Hash != p.Hash:
		return "another plan"
	case !r.OK:
		return "failed"
	default:
		return "yes"
	}
}

// change words what is to be done.
func change(st installer.State, old map[string][]byte) Change {
	c := Change{Phase: st.Phase, Step: st.Step, Why: st.Why, Host: st.Host, Item: st.Item.ID(), Kind: Kind(st.Item), Before: st.Before, Want: st.Item.Want()}
	switch it := st.Item.(type) {
	case installer.Shower:
		path, content, secret := it.Shown()
		was := old[st.Host+" "+path]
		if b, ok := it.(installer.Block); ok {
			was = b.Of(was)
		}
		if c.Secret = secret; !secret {
			c.Diff = unified(path, was, content)
		}
	case installer.Commander:
		text, secret := it.Command()
		if c.Secret = secret; !secret {
			c.Command = text
		}
	}
	return c
}

// unified is a diff of a file, empty if only mode, owner or state differ. Those of
// certificates say nothing to anybody.
func unified(path string, old, wanted []byte) string {
	if strings.HasSuffix(path, ".crt") {
		return ""
	}
	from := "a" + path
	if old == nil {
		from = "/dev/null"
	}
	_, text, _ := strings.Cut(string(diff.Diff(from, old, "b"+path, wanted)), "\n") // it begins with a command line
	return text
}

// maxShown is how much of a file that is on a host a diff is made of, in bytes.
const maxShown = 256 << 10

// contents are the files that open items are about, as they are, by "host path".
func contents(ctx context.Context, hosts map[string]installer.Host, open []installer.State) (map[string][]byte, error) {
	paths := map[string][]string{}
	for _, st := range open {
		it, ok := st.Item.(installer.Shower)
		if !ok {
			continue
		}
		if path, _, secret := it.Shown(); !secret && !strings.HasPrefix(st.Before, "absent") {
			paths[st.Host] = append(paths[st.Host], path)
		}
	}
	out := map[string][]byte{}
	var mu sync.Mutex
	err := installer.Each(ordered.Keys(paths), func(name string) error {
		found, err := readFiles(ctx, hosts[name], paths[name])
		mu.Lock()
		defer mu.Unlock()
		for path, data := range found {
			out[name+" "+path] = data
		}
		return err
	})
	return out, err
}

// readFiles reads small files of a host; those that are not there are left out.
func readFiles(ctx context.Context, h installer.Host, paths []string) (map[string][]byte, error) {
	var b strings.Builder
	for i, p := range paths {
		fmt.Fprintf(&b, "if [ -f %[1]s ]; then printf '%%d ' %[2]d; head -c %[3]d %[1]s | base64 | tr -d '\\n'; echo; fi\n", installer.Quote(p), i, maxShown)
	}
	r, err := h.Run(ctx, installer.Command{Argv: []string{"sh", "-s"}, Stdin: []byte(b.String())})
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for line := range strings.Lines(string(r.Stdout)) {
		var i int
		var text string
		if n, _ := fmt.Sscanf(line, "%d %s", &i, &text); n < 1 || i < 0 || i >= len(paths) {
			return nil, fmt.Errorf("%s: read %d files: %q is no answer", h.Name(), len(paths), line)
		}
		if out[paths[i]], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("%s: read %s: %w", h.Name(), paths[i], err)
		}
	}
	return out, nil
}
