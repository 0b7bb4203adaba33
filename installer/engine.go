package installer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Engine carries plans out.
type Engine struct {
	Hosts map[string]Host
	// Tell is called for each item, from one goroutine at a time; it may be nil.
	Tell func(Event)

	mu sync.Mutex
}

// Event is what became of an item.
type Event struct {
	Phase, Step, Host string
	Item              string        `json:",omitempty"`
	Before, Want      string        `json:",omitempty"`
	Changed           bool          // it was not as wanted, and now is
	Took              time.Duration // of the step on this host, where Item is empty
}

// Difference is an item that is not as it should be.
type Difference struct {
	Phase, Step, Host string
	Item              Item
	Before            string
}

// StepError says where an installation stopped.
type StepError struct {
	Phase, Step, Host, Item string
	Code                    int
	Stderr                  string
	Err                     error
}

// Error names host, step and item, and ends with what the command said.
func (e *StepError) Error() string {
	s := fmt.Sprintf("%s: %s, %s", e.Host, e.Phase, e.Step)
	if e.Item != "" {
		s += ": " + e.Item
	}
	if e.Err != nil {
		return s + ": " + e.Err.Error()
	}
	s += fmt.Sprintf(": exit code %d", e.Code)
	if t := strings.TrimSpace(e.Stderr); t != "" {
		s += "\n  " + strings.ReplaceAll(t, "\n", "\n  ")
	}
	return s
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Differences compares hosts with the plan and changes nothing.
func (e *Engine) Differences(ctx context.Context, p Plan) ([]Difference, error) {
	var out []Difference
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			found := make([][]Difference, len(st.Work))
			err := e.each(st, func(i int, w Work, h Host) error {
				before, err := probe(ctx, h, w.Items)
				if err != nil {
					return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Err: err}
				}
				for k, it := range w.Items {
					if before[k] != it.Want() {
						found[i] = append(found[i], Difference{ph.ID, st.Name, w.Host, it, before[k]})
					}
				}
				return nil
			})
			if err != nil {
				return out, err
			}
			for _, f := range found {
				out = append(out, f...)
			}
		}
	}
	return out, nil
}

// Apply goes through the plan and changes what differs. It stops after the first
// step that failed on any host, once all hosts are done with it.
func (e *Engine) Apply(ctx context.Context, p Plan) error {
	for _, ph := range p.Phases {
		for _, st := range ph.Steps {
			if err := e.Step(ctx, ph, st); err != nil {
				return err
			}
		}
	}
	return nil
}

// Step carries one step out.
func (e *Engine) Step(ctx context.Context, ph Phase, st Step) error {
	return e.each(st, func(_ int, w Work, h Host) error {
		began := time.Now()
		if err := e.work(ctx, ph, st, w, h); err != nil {
			return err
		}
		e.tell(Event{Phase: ph.ID, Step: st.Name, Host: w.Host, Took: time.Since(began)})
		return nil
	})
}

// each runs f for every host of a step at once and waits for all of them.
func (e *Engine) each(st Step, f func(i int, w Work, h Host) error) error {
	errs := make([]error, len(st.Work))
	var wg sync.WaitGroup
	for i, w := range st.Work {
		h := e.Hosts[w.Host]
		if h == nil {
			return fmt.Errorf("step %q is for host %s, which is not known", st.Name, w.Host)
		}
		wg.Go(func() { errs[i] = f(i, w, h) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// work brings one host's items about: look, change what differs, look again.
func (e *Engine) work(ctx context.Context, ph Phase, st Step, w Work, h Host) error {
	fail := func(err error) error { return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Err: err} }
	before, err := probe(ctx, h, w.Items)
	if err != nil {
		return fail(err)
	}
	var open []Item
	var was []string
	for i, it := range w.Items {
		if before[i] == it.Want() {
			e.tell(Event{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Before: before[i], Want: it.Want()})
			continue
		}
		open, was = append(open, it), append(was, before[i])
	}
	if len(open) == 0 {
		return nil
	}
	if err := storeBlobs(ctx, h, open); err != nil {
		return fail(err)
	}
	if err := change(ctx, h, open, was); err != nil {
		var s *StepError
		if errors.As(err, &s) {
			s.Phase, s.Step = ph.ID, st.Name
			return s
		}
		return fail(err)
	}
	after, err := probe(ctx, h, open)
	if err != nil {
		return fail(err)
	}
	for i, it := range open {
		if after[i] != it.Want() {
			return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Err: fmt.Errorf("it was changed and is %q still, not %q", after[i], it.Want())}
		}
		e.tell(Event{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Before: was[i], Want: it.Want(), Changed: true})
	}
	return nil
}

func (e *Engine) tell(ev Event) {
	if e.Tell != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.Tell(ev)
	}
}

func storeBlobs(ctx context.Context, h Host, items []Item) error {
	for _, it := range items {
		c, ok := it.(Carrier)
		if !ok {
			continue
		}
		for _, b := range c.Blobs() {
			if err := h.Store(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", it.ID(), err)
			}
		}
	}
	return nil
}

// shell runs a script.
func shell(ctx context.Context, h Host, script string) (Result, error) {
	return h.Run(ctx, Command{Argv: []string{"sh", "-s"}, Stdin: []byte(script)})
}

// probe returns the state of each item.
func probe(ctx context.Context, h Host, items []Item) ([]string, error) {
	if len(items) == 0 {
		return nil, nil
	}
	r, err := shell(ctx, h, probeScript(items))
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("look at %d items: exit code %d: %s", len(items), r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	out := make([]string, len(items))
	lines := strings.Split(strings.TrimSuffix(string(r.Stdout), "\n"), "\n")
	if len(lines) != len(items) {
		return nil, fmt.Errorf("look at %d items: %d answers: %q", len(items), len(lines), r.Stdout)
	}
	for i, l := range lines {
		index, state, ok := strings.Cut(l, "\t")
		if !ok || index != strconv.Itoa(i) {
			return nil, fmt.Errorf("look at %s: %q is no answer", items[i].ID(), l)
		}
		out[i] = state
	}
	return out, nil
}

// change runs the items' changes in order.
func change(ctx context.Context, h Host, items []Item, before []string) error {
	r, err := shell(ctx, h, changeScript(items, before))
	if err != nil {
		return err
	}
	if r.Code == 0 {
		return nil
	}
	failed := &StepError{Host: h.Name(), Code: r.Code, Stderr: string(r.Stderr)}
	for l := range strings.Lines(string(r.Stdout)) {
		if index, ok := strings.CutPrefix(strings.TrimSuffix(l, "\n"), "begin\t"); ok {
			if i, err := strconv.Atoi(index); err == nil && i >= 0 && i < len(items) {
				failed.Item = items[i].ID()
			}
		}
	}
	return failed
}
