package site

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"slipway/installer/cluster"
	"slipway/installer/pki"
	"slipway/internal/filelock"
	"slipway/topology"
)

// StateDirEnv overrides where slipway keeps its state.
const StateDirEnv = "SLIPWAY_STATE_DIR"

// Dir is the directory of all sites. Unlike a lab's, what belongs to a cluster on
// real hosts outlives a reboot of the operator's machine.
func Dir() (string, error) {
	if d := os.Getenv(StateDirEnv); d != "" {
		d, err := filepath.Abs(d)
		return filepath.Join(d, "sites"), err
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) { // XDG Base Directory Specification 0.8
		return filepath.Join(d, "slipway", "sites"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find the directory of sites: %w (set %s)", err, StateDirEnv)
	}
	return filepath.Join(home, ".local", "state", "slipway", "sites"), nil
}

// Site is a cluster on real hosts, as its operator's machine knows it.
type Site struct {
	Name string
	Dir  string
	// Cluster and Manifests are what is wanted: the cluster file.
	Cluster   *topology.Cluster
	Manifests []cluster.Manifest

	kept State
}

// State is what a site remembers from one command to the next.
type State struct {
	Cluster    *topology.Cluster        `json:"cluster"` // as it was applied last
	Manifests  []cluster.Manifest       `json:"manifests,omitempty"`
	Allocation *topology.Allocation     `json:"allocation,omitempty"`
	Facts      map[string]cluster.Facts `json:"facts,omitempty"`
	Versions   map[string]string        `json:"versions,omitempty"` // of programs, by their sums
	// Complete is false while the hosts are being changed: found false at rest, it
	// says that an apply was cut off or failed.
	Complete  bool      `json:"complete"`
	AppliedAt time.Time `json:"appliedAt,omitzero"`
	Hash      string    `json:"hash,omitempty"` // of the plan that was applied
	// Undone are nodes that were reset since the last apply, Joining those of
	// which nobody knows whether they have joined: something may be on them.
	Undone  []string        `json:"undone,omitempty"`
	Joining []topology.Node `json:"joining,omitempty"`
}

// ErrNone reports that there is no site of that name.
var ErrNone = errors.New("no such site")

// ErrBusy reports that another command changes the site.
var ErrBusy = errors.New("another slipway command is at work on this site")

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`) // RFC 1035 §2.3.4

// Open opens the site of a cluster file. Its directory is made with what comes in
// first.
func Open(c *topology.Cluster, manifests []cluster.Manifest) (*Site, error) {
	s, err := at(c.Metadata.Name)
	if err != nil {
		return nil, err
	}
	s.Cluster, s.Manifests = c, manifests
	if err := s.read(siteFile, &s.kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// Load opens a site that was applied before, as it was then. Without a name it
// takes the only one there is.
func Load(name string) (*Site, error) {
	if name == "" {
		names, err := Names()
		if err != nil {
			return nil, err
		}
		if len(names) != 1 {
			return nil, fmt.Errorf("%w: name one of %d sites (%v)", ErrNone, len(names), names)
		}
		name = names[0]
	}
	s, err := at(name)
	if err != nil {
		return nil, err
	}
	if err := s.read(siteFile, &s.kept); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("site %q: %w", name, ErrNone)
	} else if err != nil {
		return nil, err
	}
	s.Cluster, s.Manifests = s.kept.Cluster, s.kept.Manifests
	return s, nil
}

func (s *Site) makeDir() error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("make the directory of site %s: %w", s.Name, err)
	}
	return nil
}

func at(name string) (*Site, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	if !dnsLabel.MatchString(name) {
		return nil, fmt.Errorf("site %q: %w", name, ErrNone)
	}
	return &Site{Name: name, Dir: filepath.Join(dir, name)}, nil
}

// Names lists the sites to which something was applied.
func Names() ([]string, error) {
	dir, err := Dir()
	if err != nil {
		return nil, err
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", siteFile))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range found {
		out = append(out, filepath.Base(filepath.Dir(f)))
	}
	slices.Sort(out)
	return out, nil
}

// The files of a site.
const (
	siteFile      = "site.json"
	planFile      = "plan.json"
	rehearsalFile = "rehearsal.json"
	journalFile   = "journal.jsonl"
	factsFile     = "facts.json"
	lockName      = "lock"
	pkiLock       = "pki.lock"
	pkiDir        = "pki"
)

// Applied is what the site remembers of the last apply.
func (s *Site) Applied() State { return s.kept }

// Dropped are nodes that were installed and are in the cluster file no more: what
// was done there stays until they are removed by name.
func (s *Site) Dropped() (out []string) {
	if s.kept.Cluster == nil {
		return nil
	}
	for _, old := range s.kept.Cluster.Spec.Nodes {
		if !slices.ContainsFunc(s.Cluster.Spec.Nodes, func(n topology.Node) bool { return n.Name == old.Name }) {
			out = append(out, old.Name)
		}
	}
	return out
}

// PKI is the site's store of certificates and keys.
func (s *Site) PKI() *pki.Store {
	return &pki.Store{Dir: filepath.Join(s.Dir, pkiDir), Algorithm: pki.ECDSA, Now: time.Now}
}

// Remember writes down what is wanted and how the hosts are, before they are
// changed (complete false) and after.
func (s *Site) Remember(p *Planned, complete bool) error {
	s.kept.Cluster, s.kept.Manifests = s.Cluster, s.Manifests
	s.kept.Allocation, s.kept.Facts, s.kept.Hash, s.kept.Versions = p.Allocation, p.Inputs.Facts, p.Hash, p.Versions
	s.kept.Undone = nil
	s.kept.Joining = slices.DeleteFunc(s.kept.Joining, func(n topology.Node) bool { return has(s.Cluster.Spec.Nodes, n.Name) })
	if s.kept.Complete = complete; complete {
		s.kept.AppliedAt = time.Now().UTC().Truncate(time.Second)
	}
	return s.write(siteFile, s.kept)
}

// Join notes nodes that are about to join, before anything is done to them.
func (s *Site) Join(nodes []topology.Node) error {
	for _, n := range nodes {
		if !has(s.kept.Joining, n.Name) {
			s.kept.Joining = append(s.kept.Joining, n)
		}
		s.kept.Undone = slices.DeleteFunc(s.kept.Undone, func(name string) bool { return name == n.Name })
	}
	return s.write(siteFile, s.kept)
}

// Lock keeps other commands off the site until it is released, or the process ends.
func (s *Site) Lock() (release func(), err error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	f, err := filelock.Try(filepath.Join(s.Dir, lockName))
	if errors.Is(err, filelock.ErrHeld) {
		err = ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", s.Name, err)
	}
	return func() { _ = f.Close() }, nil
}

// Forget removes all that is known of the site, its authorities' keys with it.
func (s *Site) Forget() error {
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("forget site %s: %w", s.Name, err)
	}
	_ = os.Remove(filepath.Dir(s.Dir)) // stays while there are others
	return nil
}

// Gone notes that the hosts have nothing of the cluster any more.
func (s *Site) Gone() error {
	err := os.Remove(filepath.Join(s.Dir, siteFile))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	s.kept = State{Undone: s.kept.Undone}
	return err
}

func (s *Site) read(name string, into any) error {
	data, err := os.ReadFile(filepath.Join(s.Dir, name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s of site %s: %w", name, s.Name, err)
	}
	return nil
}

// write replaces a file as a whole, for its owner alone to read.
func (s *Site) write(name string, what any) error {
	data, err := json.MarshalIndent(what, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s of site %s: %w", name, s.Name, err)
	}
	if err := s.makeDir(); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, "."+name+"-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("write %s of site %s: %w", name, s.Name, err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.Dir, name))
	}
	if err != nil {
		return fmt.Errorf("write %s of site %s: %w", name, s.Name, err)
	}
	return nil
}
