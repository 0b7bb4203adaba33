package scenario

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

//go:embed files/*.txtar
var embedded embed.FS

// ending is how files of scenarios end.
const ending = ".txtar"

// All returns the scenarios that come with the program, by name.
func All() ([]*Scenario, error) {
	names, err := fs.Glob(embedded, "files/*"+ending)
	if err != nil {
		return nil, err
	}
	var out []*Scenario
	for _, n := range names {
		s, err := read(n)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func read(name string) (*Scenario, error) {
	data, err := embedded.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return Parse(strings.TrimPrefix(name, "files/"), data)
}

// UnknownError says that there is no scenario of a name.
type UnknownError struct{ Name string }

// Error says so.
func (e *UnknownError) Error() string { return fmt.Sprintf("no scenario %q", e.Name) }

// Hint says where there are some.
func (*UnknownError) Hint() string {
	return "`slipway scenario list` shows those that there are; a file is given with its path, ./mine.txtar"
}

// Load returns the scenario of a name, or reads it from a file: whatever has a
// slash or ends like one.
func Load(name string) (*Scenario, error) {
	if !strings.Contains(name, "/") && !strings.HasSuffix(name, ending) {
		s, err := read("files/" + name + ending)
		if os.IsNotExist(err) {
			return nil, &UnknownError{name}
		}
		return s, err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read scenario: %w", err)
	}
	s, err := Parse(name, data)
	if err == nil {
		s.Path = name
	}
	return s, err
}
