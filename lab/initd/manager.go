package initd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/lab/units"
)

// Where units lie, the first that has one wins; and the links of those that are
// started with the node (systemd.unit(5)).
var unitDirs = []string{"/etc/systemd/system", "/run/systemd/system"}

const bootTarget = "multi-user.target"

// manager holds a node's services.
type manager struct {
	run runner

	mu       sync.Mutex
	services map[string]*service
}

func newManager(r runner) *manager { return &manager{run: r, services: map[string]*service{}} }

// NoUnitError says that there is no unit of that name.
type NoUnitError struct{ Name string }

// Error has the words of systemctl.
func (e *NoUnitError) Error() string { return "Unit " + e.Name + " could not be found." }

func fullName(name string) string {
	if strings.Contains(filepath.Base(name), ".") {
		return name
	}
	return name + ".service"
}

// find returns a service, reading its unit the first time.
func (m *manager) find(name string) (*service, error) {
	name = fullName(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.services[name]; s != nil {
		return s, nil
	}
	u, err := readUnit(name)
	if err != nil {
		return nil, err
	}
	s := &service{name: name, run: m.run, state: inactive}
	s.loaded.Store(u)
	m.services[name] = s
	return s, nil
}

func unitFile(name string) (string, error) {
	if !strings.HasSuffix(name, ".service") || strings.Contains(name, "/") {
		return "", &NoUnitError{name}
	}
	for _, d := range unitDirs {
		path := filepath.Join(d, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	return "", &NoUnitError{name}
}

func readUnit(name string) (*units.Service, error) {
	path, err := unitFile(name)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return units.Parse(name, text)
}

// start starts a service after those that it needs.
func (m *manager) start(ctx context.Context, name string) error {
	return m.startTree(ctx, fullName(name), map[string]bool{})
}

func (m *manager) startTree(ctx context.Context, name string, seen map[string]bool) error {
	if seen[name] {
		return nil
	}
	seen[name] = true
	s, err := m.find(name)
	if err != nil {
		return err
	}
	for _, other := range slices.Concat(s.unit().Requires, s.unit().Wants) {
		err := m.startTree(ctx, other, seen)
		var none *NoUnitError
		if err != nil && !errors.As(err, &none) && slices.Contains(s.unit().Requires, other) { // targets are no units here
			return fmt.Errorf("%s requires %s: %w", name, other, err)
		}
	}
	return s.startup(ctx)
}

func (m *manager) stop(ctx context.Context, name string) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	return s.shutdown(ctx)
}

func (m *manager) restart(ctx context.Context, name string) error {
	if err := m.stop(ctx, name); err != nil {
		return err
	}
	return m.start(ctx, name)
}

// reloadUnits reads all units again; what runs goes on as it is.
func (m *manager) reloadUnits() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var errs []error
	for name, s := range m.services {
		u, err := readUnit(name)
		var none *NoUnitError
		switch {
		case errors.As(err, &none):
			if state, _ := s.get(); state == inactive || state == failed {
				delete(m.services, name)
			}
		case err != nil:
			errs = append(errs, err)
		default:
			s.loaded.Store(u)
		}
	}
	return errors.Join(errs...)
}

func wantsLink(name string) string {
	return filepath.Join(unitDirs[0], bootTarget+".wants", name)
}

// enable lets a unit start with the node.
func (m *manager) enable(name string) error {
	name = fullName(name)
	path, err := unitFile(name)
	if err != nil {
		return err
	}
	u, err := readUnit(name)
	if err != nil {
		return err
	}
	if !slices.Contains(u.WantedBy, bootTarget) {
		return fmt.Errorf("unit %s is not WantedBy=%s: it cannot be enabled", name, bootTarget)
	}
	link := wantsLink(name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(path, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (m *manager) disable(name string) error {
	if err := os.Remove(wantsLink(fullName(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_ = os.Remove(filepath.Dir(wantsLink(name))) // if it was the last
	return nil
}

func enabled(name string) bool {
	_, err := os.Lstat(wantsLink(fullName(name)))
	return err == nil
}

// boot starts everything that is enabled, each after what it names; what fails
// does not keep the rest from starting.
func (m *manager) boot(ctx context.Context) error {
	links, err := filepath.Glob(wantsLink("*"))
	if err != nil {
		return err
	}
	var all []*units.Service
	var errs []error
	for _, l := range links {
		s, err := m.find(filepath.Base(l))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, s.unit())
	}
	ordered, err := units.Order(all)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	up := map[string]chan struct{}{}
	for _, u := range ordered {
		up[u.Name] = make(chan struct{})
	}
	var wg sync.WaitGroup
	for _, u := range ordered {
		wg.Go(func() {
			defer close(up[u.Name])
			for _, a := range u.After {
				if before := up[a]; before != nil && a != u.Name {
					<-before
				}
			}
			_ = m.start(ctx, u.Name) // its state tells
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// shutdown stops everything, the last in order first.
func (m *manager) shutdown(ctx context.Context) error {
	m.mu.Lock()
	var all []*units.Service
	for _, s := range m.services {
		all = append(all, s.unit())
	}
	m.mu.Unlock()
	ordered, err := units.Order(all)
	if err != nil {
		ordered = all
	}
	errs := []error{err}
	for _, u := range slices.Backward(ordered) {
		errs = append(errs, m.stop(ctx, u.Name))
	}
	return errors.Join(errs...)
}

// Status is how a service is.
type Status struct {
	Name        string    `json:"name"`
	Description string    `json:"description,omitempty"`
	State       string    `json:"state"` // as systemctl is-active has it
	Enabled     bool      `json:"enabled"`
	PID         int       `json:"pid,omitempty"` // in the node
	Since       time.Time `json:"since"`
	Restarts    int       `json:"restarts"` // by itself
	ExitCode    int       `json:"exitCode"` // of the last end
	Said        string    `json:"said,omitempty"`
	Ignored     []string  `json:"ignored,omitempty"` // settings of the unit without effect here
}

func (s *service) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Name: s.name, Description: s.unit().Description, State: s.state, Enabled: enabled(s.name), Since: s.since,
		Restarts: s.restart, ExitCode: s.code, Said: s.said, Ignored: s.unit().Ignored,
	}
	if s.main != nil {
		st.PID = s.main.pid
	}
	return st
}

// list is every service that was ever started or asked for, by name.
func (m *manager) list() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Status
	for _, s := range m.services {
		out = append(out, s.status())
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// resetFailed lets a service start again.
func (m *manager) resetFailed(name string) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.starts = nil
	if s.state == failed {
		s.state, s.said = inactive, ""
	}
	return nil
}
