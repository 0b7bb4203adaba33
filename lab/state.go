package lab

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slipway/internal/filelock"
	"slipway/topology"
)

// State is what a lab remembers between commands. It is written atomically,
// before the mutations of a new plan begin (Complete false) and after they ended.
// An `up` that repairs under the plan that stands there already writes nothing.
type State struct {
	Lab       string    `json:"lab"`
	ID        string    `json:"id"`
	CreatedAt time.Time `json:"createdAt"`
	// Complete is false while the kernel is being made equal to the snapshot:
	// found false at rest, it says that a command was cut off and `up` repairs.
	Complete bool              `json:"complete"`
	Cluster  *topology.Cluster `json:"cluster"`
	// FromFile are the objects of the cluster file's manifests; Applied those
	// of `slipway apply`, which an `up` with the file leaves alone.
	FromFile *topology.Objects `json:"fromFile"`
	// Manifests are the files themselves, which a lab with real components gives
	// to its API.
	Manifests []Manifest        `json:"manifests,omitempty"`
	Applied   *topology.Objects `json:"applied"`
	// Live is what the API last said, with real components: the plan is made of it
	// then, and not of the other objects.
	Live            *Live                `json:"live,omitempty"`
	Allocation      *topology.Allocation `json:"allocation"`
	Snapshot        *topology.Snapshot   `json:"snapshot"`
	CNI             CNIPath              `json:"cni"`
	Implementations map[string]string    `json:"implementations,omitempty"`

	raw []byte // as it was read
}

// Manifest is a file of Kubernetes objects, as it was written.
type Manifest struct {
	Name string `json:"name"` // as the cluster file names it
	Data []byte `json:"data"`
}

// CNIPath says how pods are plugged in.
type CNIPath string

// The ways to the CNI plugin's code.
const (
	CNIInProcess CNIPath = "in-process"
	CNIExec      CNIPath = "exec"
)

// ErrNoLab reports that there is no lab of that name.
var ErrNoLab = errors.New("no such lab")

// ErrBusy reports that another command is changing the lab.
var ErrBusy = errors.New("another slipway command is changing this lab")

// ReadState reads a lab's state; ErrNoLab if it has none.
func ReadState(lab string) (*State, error) {
	if err := CheckName(lab); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filesOf(lab).state())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab %q: %w", lab, ErrNoLab)
	}
	if err != nil {
		return nil, fmt.Errorf("read state of lab %s: %w", lab, err)
	}
	s := State{raw: b}
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("read state of lab %s: %w", lab, err)
	}
	return &s, nil
}

// unchanged reports whether a complete state would be written as it was read.
func (s *State) unchanged() bool {
	if !s.Complete || s.raw == nil {
		return false
	}
	b, err := json.Marshal(s)
	return err == nil && bytes.Equal(b, s.raw)
}

// objects are all objects of the lab; applied ones win over the file's.
func (s *State) objects() *topology.Objects {
	all := &topology.Objects{}
	for _, o := range []*topology.Objects{s.FromFile, s.Applied} {
		if o != nil {
			all.Merge(o)
		}
	}
	return all
}

// write replaces the state on disk as a whole (write, sync, rename).
func (s *State) write() error {
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write state of lab %s: %w", s.Lab, err)
	}
	if err := writeAtomic(filesOf(s.Lab).state(), b); err != nil {
		return fmt.Errorf("write state of lab %s: %w", s.Lab, err)
	}
	return nil
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

// Names lists the labs that have a directory, complete or not. Directories of
// somebody else in the same place are none.
func Names() ([]string, error) {
	entries, err := os.ReadDir(StateDir())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var out []string
	for _, e := range entries {
		if !e.IsDir() || CheckName(e.Name()) != nil {
			continue
		}
		ours, err := isLabDir(filesOf(e.Name()).dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list labs: %w", err)
		}
		if ours {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// isLabDir tells a lab's directory from somebody else's: it has the lock file,
// or nothing yet or any more. A directory that is not there is [os.ErrNotExist].
func isLabDir(dir string) (bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	return len(entries) == 0 || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == lockName }), nil
}

// lockFile is an exclusive lock held by one command; the kernel lets go of it
// when the process ends in whatever way.
type lockFile struct{ f *os.File }

// lockPatience is how long a command waits for another one to finish.
const lockPatience = 30 * time.Second

// lock takes the lab's lock, waiting a while for a command that holds it.
func lock(ctx context.Context, path string) (*lockFile, error) {
	give := time.Now().Add(lockPatience)
	for {
		l, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock lab: %w", err)
		}
		if l != nil {
			return l, nil
		}
		if time.Now().After(give) {
			return nil, ErrBusy
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// tryLock returns nil when another command holds the lock, or removed the file
// or its directory meanwhile, as the end of a `down` does.
func tryLock(path string) (*lockFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := filelock.Try(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, filelock.ErrHeld) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if sameFile(f, path) {
		return &lockFile{f}, nil
	}
	return nil, f.Close()
}

func sameFile(f *os.File, path string) bool {
	a, e1 := f.Stat()
	b, e2 := os.Stat(path)
	return e1 == nil && e2 == nil && os.SameFile(a, b)
}

func (l *lockFile) release() error { return l.f.Close() }

// identity reads the lab's mark, making it when the lab is new. It stands in a
// file of its own, written before anything is marked with it.
func identity(lab string) (id string, fresh bool, err error) {
	path := filesOf(lab).id()
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return string(b), false, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", false, fmt.Errorf("read id of lab %s: %w", lab, err)
	}
	raw := make([]byte, 6)
	if _, err := rand.Read(raw); err != nil {
		return "", false, err
	}
	id = hex.EncodeToString(raw)
	if err := writeAtomic(path, []byte(id)); err != nil {
		return "", false, fmt.Errorf("write id of lab %s: %w", lab, err)
	}
	return id, true, nil
}

// Lock takes an exclusive lock in a file, which it makes, waiting a while for a
// command that holds it: [ErrBusy] if that takes long. The kernel lets go of it
// when the process ends in whatever way.
func Lock(ctx context.Context, path string) (release func() error, err error) {
	l, err := lock(ctx, path)
	if err != nil {
		return nil, err
	}
	return l.release, nil
}
