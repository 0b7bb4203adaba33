package installer

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

	mu     sync.Mutex
	stores sync.Map // hosts that are known to have one
}

// Event is what became of an item.
type Event struct {
	Phase, Step, Host string
	Item              string        `json:",omitempty"`
	Before, Want      string        `json:",omitempty"`
	Changed           bool          // it was not as wanted, and now is
	Took              time.Duration // of the step on this host, where Item is empty
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
		s += ": " + e.Err.Error()
	} else {
		s += fmt.Sprintf(": exit code %d", e.Code)
	}
	if t := strings.TrimSpace(e.Stderr); t != "" {
		s += "\n  " + strings.ReplaceAll(t, "\n", "\n  ")
	}
	return s
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Err }

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

// maxRounds bounds how often a host's items are looked at in one step.
const maxRounds = 3

// work brings one host's items about: look, change what differs, look again. What
// was as wanted and no longer is, as a service whose files have changed, is
// changed then.
func (e *Engine) work(ctx context.Context, ph Phase, st Step, w Work, h Host) error {
	before, err := probe(ctx, h, w.Items)
	if err != nil {
		return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Err: err}
	}
	changed := map[int]bool{}
	for n := 0; ; n++ {
		var open []int
		for i, it := range w.Items {
			if before[i] != it.Want() {
				open = append(open, i)
			}
		}
		if len(open) == 0 {
			break
		}
		if it := w.Items[open[0]]; n == maxRounds {
			return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Err: fmt.Errorf("it is %q and not %q whenever the others are as wanted", before[open[0]], it.Want())}
		}
		if before, err = e.round(ctx, ph, st, w, h, open, before); err != nil {
			return err
		}
		for _, i := range open {
			changed[i] = before[i] == w.Items[i].Want()
		}
	}
	for i, it := range w.Items {
		if !changed[i] {
			e.tell(Event{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Before: before[i], Want: it.Want()})
		}
	}
	return nil
}

// settleTries is how often changed items are looked at, settleEvery how long there
// is between.
const (
	settleTries = 4
	settleEvery = 500 * time.Millisecond
)

// settled looks at items once those that were changed are as wanted, or do not
// become so: others may still be at work on what was changed, as an API's
// controllers are on objects that were just applied.
func settled(ctx context.Context, h Host, items []Item, changed []int) ([]string, error) {
	for n := 1; ; n++ {
		states, err := probe(ctx, h, items)
		if err != nil || n == settleTries || !slices.ContainsFunc(changed, func(i int) bool { return states[i] != items[i].Want() }) {
			return states, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(settleEvery):
		}
	}
}

// round changes some of a host's items, and looks at all of them again.
func (e *Engine) round(ctx context.Context, ph Phase, st Step, w Work, h Host, open []int, before []string) (after []string, err error) {
	fail := func(err error) error {
		var s *StepError
		if errors.As(err, &s) {
			s.Phase, s.Step = ph.ID, st.Name
			return s
		}
		return &StepError{Phase: ph.ID, Step: st.Name, Host: w.Host, Err: err}
	}
	var items []Item
	var was []string
	for _, i := range open {
		items, was = append(items, w.Items[i]), append(was, before[i])
	}
	if err := refuse(ctx, h, items); err != nil {
		return nil, fail(err)
	}
	if err := e.storeBlobs(ctx, h, items); err != nil {
		return nil, fail(err)
	}
	if err := change(ctx, h, items, was); err != nil {
		return nil, fail(err)
	}
	if after, err = settled(ctx, h, w.Items, open); err != nil {
		return nil, fail(err)
	}
	for _, i := range open {
		it := w.Items[i]
		_, waits := it.(Wait) // which changes nothing
		if waits && after[i] != it.Want() {
			continue // it had come about, and may again
		}
		if after[i] != it.Want() {
			return nil, &StepError{
				Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Stderr: said(ctx, h, it),
				Err: fmt.Errorf("it was changed and is %q still, not %q", after[i], it.Want()),
			}
		}
		e.tell(Event{Phase: ph.ID, Step: st.Name, Host: w.Host, Item: it.ID(), Before: before[i], Want: it.Want(), Changed: !waits})
	}
	return after, nil
}

func (e *Engine) tell(ev Event) {
	if e.Tell != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.Tell(ev)
	}
}

func (e *Engine) storeBlobs(ctx context.Context, h Host, items []Item) error {
	for _, it := range items {
		c, ok := it.(Carrier)
		if !ok || len(c.Blobs()) == 0 {
			continue
		}
		if err := e.openStore(ctx, h); err != nil {
			return fmt.Errorf("make %s: %w", StoreDir, err)
		}
		for _, b := range c.Blobs() {
			if err := h.Store(ctx, b); err != nil {
				return fmt.Errorf("%s: %w", it.ID(), err)
			}
		}
	}
	return nil
}

// openStore makes a host's store, once, so that it goes with what is undone last.
func (e *Engine) openStore(ctx context.Context, h Host) error {
	if _, known := e.stores.Load(h.Name()); known {
		return nil
	}
	store := []Item{Directory{Path: StoreDir, Mode: 0o755, Data: true}}
	before, err := probe(ctx, h, store)
	if err == nil && before[0] == absent {
		err = change(ctx, h, store, before)
	}
	if err == nil {
		e.stores.Store(h.Name(), true)
	}
	return err
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

// said is what an item has to say of itself, a unit its log; empty if nothing.
func said(ctx context.Context, h Host, it Item) string {
	s, ok := it.(Speaker)
	if !ok {
		return ""
	}
	r, err := shell(ctx, h, s.Words())
	if err != nil {
		return ""
	}
	return string(r.Stdout)
}

// refuse ends a step of which requirements are not met, with all of them and
// without a trace on the host.
func refuse(ctx context.Context, h Host, open []Item) error {
	var script strings.Builder
	script.WriteString(prelude)
	var ids []string
	for _, it := range open {
		if r, ok := it.(Require); ok {
			ids = append(ids, r.ID())
			fmt.Fprintf(&script, "( %s\n) || code=$?\n", r.Change())
		}
	}
	if len(ids) == 0 {
		return nil
	}
	script.WriteString("exit $code\n")
	r, err := shell(ctx, h, script.String())
	if err != nil {
		return err
	}
	return &StepError{Host: h.Name(), Item: strings.Join(ids, ", "), Code: r.Code, Stderr: string(r.Stderr)}
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
