package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/lab"
)

// State is what a session remembers between commands.
type State struct {
	Scenario  string    `json:"scenario"`
	Lab       string    `json:"lab"`
	StartedAt time.Time `json:"startedAt"`
	// Ready is false while lab and fault are being made: found false at rest, it
	// says that a command was cut off.
	Ready  bool `json:"ready"`
	Hints  int  `json:"hints"`          // how many were given
	Checks int  `json:"checks"`         // how often it was checked
	Step   int  `json:"step,omitempty"` // the last step that was run, from 1
	// Solved: the solution was run. PassedAt is when all checks passed first.
	Solved   bool       `json:"solved,omitempty"`
	PassedAt *time.Time `json:"passedAt,omitempty"`
}

// dirName is the directory of all sessions in the state directory.
const dirName = "scenarios"

func sessionsDir() string { return filepath.Join(lab.StateDir(), dirName) }

func (s *Session) dir() string         { return filepath.Join(sessionsDir(), s.Scenario.Name) }
func (s *Session) workDir() string     { return filepath.Join(s.dir(), "files") }
func (s *Session) statePath() string   { return filepath.Join(s.dir(), "session.json") }
func (s *Session) journalPath() string { return filepath.Join(s.dir(), "journal") }
func (s *Session) sourcePath() string  { return filepath.Join(s.dir(), s.Scenario.Name+ending) }
func (s *Session) lockPath() string {
	return filepath.Join(sessionsDir(), "."+s.Scenario.Name+".lock")
}

// lock waits for another command on the session.
func (s *Session) lock(ctx context.Context) (release func() error, err error) {
	if os.Geteuid() != 0 {
		return nil, &lab.PrivilegeError{}
	}
	held, err := lab.Lock(ctx, s.lockPath())
	if err != nil {
		return nil, fmt.Errorf("scenario %s: %w", s.Scenario.Name, err)
	}
	// Before others get the lock: they see that its file is gone, and make another.
	return func() error { return errors.Join(s.unlock(), held()) }, nil
}

// unlock removes the lock of a session that is gone, and the directories that are
// empty now.
func (s *Session) unlock() error {
	if _, err := os.Stat(s.dir()); err == nil {
		return nil // it could not be cleared
	}
	if err := os.Remove(s.lockPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = os.Remove(sessionsDir()) // stays while there are other sessions
	_ = os.Remove(lab.StateDir())
	return nil
}

// begin writes what a session is made of, its state before everything else.
func (s *Session) begin(st *State) error {
	if err := os.MkdirAll(s.workDir(), 0o755); err != nil {
		return fmt.Errorf("begin scenario %s: %w", s.Scenario.Name, err)
	}
	if err := s.save(st, "start", ""); err != nil {
		return err
	}
	if err := writeAtomic(s.sourcePath(), s.Scenario.source); err != nil {
		return fmt.Errorf("begin scenario %s: %w", s.Scenario.Name, err)
	}
	for name, data := range s.Scenario.files {
		path := filepath.Join(s.workDir(), name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = writeAtomic(path, data)
		}
		if err != nil {
			return fmt.Errorf("begin scenario %s: %w", s.Scenario.Name, err)
		}
	}
	return nil
}

// State reads what the session remembers; [ErrNotRunning] if there is none.
func (s *Session) State() (*State, error) { return s.load() }

func (s *Session) load() (*State, error) {
	if _, err := os.Stat(s.dir()); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", s.Scenario.Name, ErrNotRunning)
	}
	raw, err := os.ReadFile(s.statePath())
	if errors.Is(err, os.ErrNotExist) {
		return &State{Scenario: s.Scenario.Name, Lab: s.Lab()}, nil // cut off as it began
	}
	if err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", s.Scenario.Name, err)
	}
	var st State
	if err := json.Unmarshal(raw, &st); err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", s.Scenario.Name, err)
	}
	return &st, nil
}

// Event is a line of a session's journal.
type Event struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"` // start, ready, hint, check, step, solve
	Detail string    `json:"detail,omitempty"`
}

// save writes the state as a whole, and what happened to the journal.
func (s *Session) save(st *State, event, detail string) error {
	raw, err := json.Marshal(st)
	if err == nil {
		err = writeAtomic(s.statePath(), raw)
	}
	if err == nil {
		err = appendLine(s.journalPath(), Event{Time: time.Now().UTC(), Event: event, Detail: detail})
	}
	if err != nil {
		return fmt.Errorf("write state of scenario %s: %w", s.Scenario.Name, err)
	}
	return nil
}

// remove forgets the session; its state goes last.
func (s *Session) remove() error {
	for _, path := range []string{s.workDir(), s.sourcePath(), s.journalPath(), s.dir()} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("remove files of scenario %s: %w", s.Scenario.Name, err)
		}
	}
	return nil
}

// Running lists the names of the scenarios that have a session.
func Running() ([]string, error) {
	entries, err := os.ReadDir(sessionsDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list sessions of scenarios: %w", err)
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && scenarioName.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// LoadRunning returns the scenario of a session as it was when it began, or
// [ErrNotRunning].
func LoadRunning(name string) (*Scenario, error) {
	if !scenarioName.MatchString(name) {
		return nil, &UnknownError{name}
	}
	path := filepath.Join(sessionsDir(), name, name+ending)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, ErrNotRunning)
	}
	if err != nil {
		return nil, fmt.Errorf("read scenario %s: %w", name, err)
	}
	return Parse(name+ending, data)
}

func writeAtomic(path string, b []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone after the rename
	_, err = tmp.Write(b)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

func appendLine(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(string(raw) + "\n")
	return errors.Join(err, f.Close())
}

// lastNegated reports whether the last command of a script has to fail.
func lastNegated(s Script) bool {
	lines := strings.Split(strings.TrimSpace(s.Text), "\n")
	return strings.HasPrefix(strings.TrimSpace(lines[len(lines)-1]), "!")
}
