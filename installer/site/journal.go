package site

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"slipway/installer"
)

// Entry is a line of a journal: what became of an item on a host, or how long a
// step took there. A line with Run begins a command's.
type Entry struct {
	Run     string        `json:"run,omitempty"`  // "apply", "rehearse", "reset"
	Hash    string        `json:"hash,omitempty"` // of the plan, where Run is set
	Phase   string        `json:"phase,omitempty"`
	Step    string        `json:"step,omitempty"`
	Host    string        `json:"host,omitempty"`
	Item    string        `json:"item,omitempty"`
	Before  string        `json:"before,omitempty"`
	Want    string        `json:"want,omitempty"`
	Changed bool          `json:"changed"`
	Took    time.Duration `json:"took,omitempty"` // ns; of the step, where Item is empty
	Error   string        `json:"error,omitempty"`
}

// EntryOf is the line of an event.
func EntryOf(e installer.Event) Entry {
	return Entry{Phase: e.Phase, Step: e.Step, Host: e.Host, Item: e.Item, Before: e.Before, Want: e.Want, Changed: e.Changed, Took: e.Took}
}

// Journal is a file that only ever grows. A line is in the file when Write returns.
type Journal struct{ f *os.File }

// Journal opens the site's.
func (s *Site) Journal() (*Journal, error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, journalFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal of site %s: %w", s.Name, err)
	}
	return &Journal{f}, nil
}

// Write adds a line.
func (j *Journal) Write(e Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	_, err = j.f.Write(append(line, '\n'))
	return err
}

// Close ends it.
func (j *Journal) Close() error { return errors.Join(j.f.Sync(), j.f.Close()) }

// Entries reads the site's journal. A last line that was cut off is left out.
func (s *Site) Entries() ([]Entry, error) {
	f, err := os.Open(filepath.Join(s.Dir, journalFile))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return readEntries(f)
}

func readEntries(r io.Reader) (out []Entry, err error) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		var e Entry
		if err := json.Unmarshal(line, &e); err != nil {
			return out, fmt.Errorf("journal, line %d: %w", len(out)+1, err)
		}
		out = append(out, e)
	}
}
