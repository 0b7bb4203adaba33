package installer

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Difference is an item that is not as it should be.
type Difference struct {
	Phase, Step, Host string
	Item              Item
	Before            string
}

// State is an item of a plan and what there is of it.
type State struct {
	Phase, Step, Why, Host string
	Item                   Item
	Before                 string
}

// Differs reports whether there is something to do.
func (s State) Differs() bool { return s.Before != s.Item.Want() }

// Differences compares hosts with the plan and changes nothing.
func (e *Engine) Differences(ctx context.Context, p Plan) ([]Difference, error) {
	all, err := e.Look(ctx, p)
	var out []Difference
	for _, s := range all {
		if s.Differs() {
			out = append(out, Difference{s.Phase, s.Step, s.Host, s.Item, s.Before})
		}
	}
	return out, err
}

// maxHosts bounds how many hosts are at work at the same time.
const maxHosts = 32

// Look looks at every item of a plan, each host once and all at the same time,
// and returns them in the plan's order. Hosts that could not be looked at are in
// the error, and the others' items are returned all the same.
func (e *Engine) Look(ctx context.Context, p Plan) ([]State, error) {
	items := map[string][]Item{}
	var hosts []string
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				if e.Hosts[w.Host] == nil {
					return nil, fmt.Errorf("step %q is for host %s, which is not known", st.Name, w.Host)
				}
				if _, known := items[w.Host]; !known {
					hosts = append(hosts, w.Host)
				}
				items[w.Host] = append(items[w.Host], w.Items...)
			}
		}
	}
	states := map[string][]string{}
	var mu sync.Mutex
	err := Each(hosts, func(name string) error {
		found, err := probe(ctx, e.Hosts[name], items[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		mu.Lock()
		defer mu.Unlock()
		states[name] = found
		return nil
	})
	return inOrder(p, states), err
}

// Each does something for each host, many at the same time, and returns what went
// wrong with any.
func Each(hosts []string, do func(name string) error) error {
	errs := make([]error, len(hosts))
	var wg sync.WaitGroup
	free := make(chan struct{}, maxHosts)
	for i, name := range hosts {
		wg.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			errs[i] = do(name)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// inOrder deals the states of each host out to the plan's items.
func inOrder(p Plan, states map[string][]string) (out []State) {
	next := map[string]int{}
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				had := states[w.Host]
				if had == nil {
					continue
				}
				for _, it := range w.Items {
					out = append(out, State{ph.ID, st.Name, st.Why, w.Host, it, had[next[w.Host]]})
					next[w.Host]++
				}
			}
		}
	}
	return out
}
