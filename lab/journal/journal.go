// Package journal keeps the record of what a lab is about to do to the machine.
// An entry is on disk before the mutation it announces, so that `slipway down`
// finds everything that any crash may have left, and nothing else.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Kind says what an entry is about.
type Kind string

// The kinds of objects that exist outside the lab's own namespaces.
const (
	NetNS  Kind = "netns"  // Name: a named network namespace
	Daemon Kind = "daemon" // Name: the lab's daemon is about to be started
	// Pin: the network namespace of that name is a container runtime's, which the
	// lab has only named.
	Pin Kind = "pin"
	// Machine: the first process of a node with real components is about to be
	// started. Name: the node.
	Machine Kind = "machine"
	// Cgroup: a control group in each hierarchy, and all below it. Name: its path
	// from the hierarchies' top.
	Cgroup Kind = "cgroup"
	// Controller: the one of that name was switched on at the top of the unified
	// hierarchy.
	Controller Kind = "controller"
)

// Entry announces one mutation, or with Done records that it was undone.
type Entry struct {
	Time time.Time `json:"time"`
	Kind Kind      `json:"kind"`
	Name string    `json:"name"`
	Done bool      `json:"done,omitempty"`
}

// Journal is an append-only file of entries.
type Journal struct {
	mu   sync.Mutex
	path string
	f    *os.File
	live map[Kind]map[string]bool
}

// Open opens or creates the journal and reads what it says. A torn last line,
// as a crash leaves it, is ignored: its mutation never began.
func Open(path string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	live, size, err := read(path)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("cut torn line off journal: %w", err), f.Close())
	}
	return &Journal{path: path, f: f, live: live}, nil
}

// read returns the live names and the length of the part that is whole.
func read(path string) (map[Kind]map[string]bool, int64, error) {
	live := map[Kind]map[string]bool{}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return live, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read journal: %w", err)
	}
	defer f.Close() //nolint:errcheck // read-only
	var size int64
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return live, size, nil // end, or a torn line
		}
		size += int64(len(line))
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, 0, fmt.Errorf("read journal %s: %w", path, err)
		}
		note(live, e)
	}
}

func note(live map[Kind]map[string]bool, e Entry) {
	if live[e.Kind] == nil {
		live[e.Kind] = map[string]bool{}
	}
	if e.Done {
		delete(live[e.Kind], e.Name)
		return
	}
	live[e.Kind][e.Name] = true
}

// Before writes the entry that announces a mutation. The mutation must not
// happen when Before fails.
func (j *Journal) Before(k Kind, name string) error { return j.write(Entry{Kind: k, Name: name}) }

// Undone records that the object is gone.
func (j *Journal) Undone(k Kind, name string) error {
	return j.write(Entry{Kind: k, Name: name, Done: true})
}

func (j *Journal) write(e Entry) error {
	e.Time = time.Now().UTC()
	b, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	note(j.live, e)
	return nil
}

// Has reports whether the object was announced and not undone.
func (j *Journal) Has(k Kind, name string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.live[k][name]
}

// Live lists the names of a kind that were announced and not undone.
func (j *Journal) Live(k Kind) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]string, 0, len(j.live[k]))
	for n := range j.live[k] {
		out = append(out, n)
	}
	return out
}

// Close closes the file.
func (j *Journal) Close() error { return j.f.Close() }
