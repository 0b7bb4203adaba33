package daytwo

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/installer/cluster"
)

// Program is a program that is another on a host than is wanted.
type Program struct {
	Host string `json:"host"`
	Path string `json:"path"`
	Have string `json:"have"` // SHA-256, or what else is there
	Want string `json:"want"` // SHA-256
}

// Outdated lists the programs that an upgrade would replace, in its order.
func (c *Cluster) Outdated(ctx context.Context, to cluster.Inputs) ([]Program, error) {
	plan, err := cluster.Plan(to, c.phases(to)...)
	if err != nil {
		return nil, err
	}
	// Nobody is asked but the hosts' file systems: the API may be away.
	states, err := c.engine().Look(ctx, only(plan, func(it installer.Item) bool {
		_, ok := it.(installer.Program)
		return ok
	}))
	var out []Program
	seen := map[string]bool{}
	for _, s := range states {
		p, ok := s.Item.(installer.Program)
		if !ok || !s.Differs() || seen[s.Host+p.Path] {
			continue
		}
		seen[s.Host+p.Path] = true
		out = append(out, Program{s.Host, p.Path, path.Base(s.Before), p.Blob.Sum})
	}
	return out, err
}

// UnwellError says that something was not well before anything was changed.
type UnwellError struct{ What []string }

// Error lists it.
func (e *UnwellError) Error() string {
	return "the cluster is not well, and nothing was changed:\n  " + strings.Join(e.What, "\n  ")
}

// StoppedError says where an upgrade stopped, and what has still the old programs.
type StoppedError struct {
	Err  error
	Left []Program
}

// Error says how it goes on.
func (e *StoppedError) Error() string {
	hosts := map[string][]string{}
	var order []string
	for _, p := range e.Left {
		if hosts[p.Host] == nil {
			order = append(order, p.Host)
		}
		hosts[p.Host] = append(hosts[p.Host], path.Base(p.Path))
	}
	s := e.Err.Error() + "\nThe upgrade stopped there: no other host was touched after it."
	for _, h := range order {
		s += fmt.Sprintf("\n  %s has as before: %s", h, strings.Join(hosts[h], ", "))
	}
	return s + "\nRun again, it goes on from there: with these programs once the cause is gone, or with others."
}

// Unwrap returns what stopped it.
func (e *StoppedError) Unwrap() error { return e.Err }

// Runs reports whether the cluster's hosts have a program of that name, or one from
// which they have several.
func (c *Cluster) Runs(name string) (bool, error) {
	if _, ok := c.Inputs.Programs[name]; ok {
		return true, nil
	}
	plan, err := cluster.Plan(c.Inputs, c.phases(c.Inputs)...)
	found := false
	only(plan, func(it installer.Item) bool {
		p, ok := it.(installer.Program)
		found = found || ok && path.Base(p.Path) == name
		return false
	})
	return found, err
}

// With is the cluster with other programs, by name; those that are not named stay.
func (c *Cluster) With(programs map[string]installer.Blob) cluster.Inputs {
	to := c.Inputs
	to.Programs = maps.Clone(to.Programs)
	maps.Copy(to.Programs, programs)
	return to
}

// Upgrade brings other programs about: component by component in the order of the
// installation, one host at a time, each well before the next is touched. It ends
// at the first that is not, with a [StoppedError].
func (c *Cluster) Upgrade(ctx context.Context, to cluster.Inputs) error {
	if err := c.reachable(ctx, nodes(to)); err != nil {
		return &RefusedError{err}
	}
	if _, err := to.PKI.Ensure(cluster.Certificates(to)); err != nil {
		return err
	}
	plan, err := cluster.Plan(to, c.phases(to)...)
	if err != nil {
		return err
	}
	if err := c.well(ctx, plan); err != nil {
		return &RefusedError{err}
	}
	if err := c.roll(ctx, to, plan); err != nil {
		left, lookErr := c.Outdated(context.WithoutCancel(ctx), to)
		if lookErr != nil {
			return err
		}
		return &StoppedError{err, left}
	}
	return nil
}

// only is a plan with some of its items.
func only(p installer.Plan, want func(installer.Item) bool) (out installer.Plan) {
	for _, ph := range p.Phases {
		steps := ph.Steps
		ph.Steps = nil
		for _, st := range steps {
			work := st.Work
			st.Work = nil
			for _, w := range work {
				w.Items = slices.DeleteFunc(slices.Clone(w.Items), func(it installer.Item) bool { return !want(it) })
				st.Work = append(st.Work, w)
			}
			ph.Steps = append(ph.Steps, st)
		}
		out.Phases = append(out.Phases, ph)
	}
	return out
}

// well fails with an [UnwellError] if a condition does not hold that the plan
// waits for. A phase in which a unit is not as wanted is where an earlier run
// stopped: it is mended now, and what comes after it cannot be well yet.
func (c *Cluster) well(ctx context.Context, plan installer.Plan) error {
	unwell := &UnwellError{}
	for _, ph := range plan.Phases {
		states, err := c.engine().Look(ctx, installer.Plan{Phases: []installer.Phase{ph}})
		if err != nil {
			return err
		}
		broken := false
		for _, s := range states {
			_, unit := s.Item.(installer.Unit)
			broken = broken || unit && s.Differs() && !strings.HasSuffix(s.Before, " enabled active current")
		}
		if broken {
			break
		}
		for _, s := range states {
			if w, ok := s.Item.(installer.Wait); ok && s.Differs() {
				unwell.What = append(unwell.What, fmt.Sprintf("%s: not so: %s", s.Host, w.Name))
			}
		}
	}
	if len(unwell.What) > 0 {
		return unwell
	}
	return nil
}
