package ui

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"slipway/internal/netns"
	"slipway/internal/ordered"
	"slipway/lab"
)

// How often the feed looks, while somebody watches.
const (
	lookEvery   = 500 * time.Millisecond // at the lab's state file
	healthEvery = 2 * time.Second        // at daemon and namespaces
	// patrolEvery is how often one machine's tables are read, in turn: so those
	// of three nodes each every second, of a hundred each every half a minute.
	// What somebody looks at is read each time, and all of them after a command.
	patrolEvery = 300 * time.Millisecond
)

// feed keeps what the page shows as it changes and tells who watches. It looks
// only while somebody does.
type feed struct {
	lab string
	log *slog.Logger

	mu       sync.Mutex // of what follows
	st       *lab.State
	stamp    string // of the state file that st was read from
	rev      int    // counts what st was
	gone     bool   // the lab is down
	book     book
	down     map[string][]string // devices that are down, by place
	health   healthView
	watchers map[*watcher]bool
	woken    chan struct{}
}

// healthView is what is wrong with the lab now.
type healthView struct {
	State   string              `json:"state"` // up | partial | daemon-down | gone
	Problem string              `json:"problem,omitempty"`
	Places  map[string][]string `json:"places"` // what is wrong with each place; sound ones are left out
}

// event is what watchers are told.
type event struct {
	name string
	data any
}

// watcher is one page that listens.
type watcher struct {
	events chan event
	table  string // the place whose tables it shows; empty: none
}

func newFeed(name string, log *slog.Logger) *feed {
	return &feed{
		lab: name, log: log, book: book{places: map[string]*history{}}, down: map[string][]string{},
		watchers: map[*watcher]bool{}, woken: make(chan struct{}, 1), health: healthView{Places: map[string][]string{}},
	}
}

// run looks until the context ends.
func (f *feed) run(ctx context.Context) {
	patrol := time.NewTicker(patrolEvery)
	defer patrol.Stop()
	var looked, asked time.Time
	next := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.woken: // somebody came
			looked, asked = time.Time{}, time.Time{}
		case <-patrol.C:
		}
		if !f.watched() {
			continue
		}
		now := time.Now()
		if now.Sub(looked) >= lookEvery {
			looked = now
			if f.reread() {
				f.readAll(ctx)
			}
		}
		next = f.readSome(ctx, next)
		if now.Sub(asked) >= healthEvery {
			asked = now
			f.look(ctx)
		}
	}
}

func (f *feed) watched() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.watchers) > 0
}

// watch begins to tell a watcher what changes.
func (f *feed) watch(table string) *watcher {
	w := &watcher{events: make(chan event, 64), table: table}
	f.mu.Lock()
	f.watchers[w] = true
	f.mu.Unlock()
	select {
	case f.woken <- struct{}{}:
	default:
	}
	return w
}

func (f *feed) leave(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
}

// tell hands an event to all watchers, with f.mu held. One that does not take
// them is cut off: its browser connects again and is told everything.
func (f *feed) tell(e event) {
	for w := range f.watchers {
		select {
		case w.events <- e:
		default:
			delete(f.watchers, w)
			close(w.events)
		}
	}
}

// state is the lab as it was last read, and how often that changed; at first it
// is read.
func (f *feed) state() (*lab.State, int, error) {
	f.reread()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.st == nil || f.gone {
		return nil, f.rev, fmt.Errorf("lab %s: %w", f.lab, lab.ErrNoLab)
	}
	return f.st, f.rev, nil
}

// reread reads the state file if it is another one than before, and reports that.
func (f *feed) reread() (changed bool) {
	stamp := stampOf(filepath.Join(lab.Dir(f.lab), "state.json"))
	f.mu.Lock()
	same := stamp == f.stamp
	f.mu.Unlock()
	if same {
		return false
	}
	st, err := lab.ReadState(f.lab)
	if err == nil && st.Snapshot == nil {
		return false // a lab in the making
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stamp = stamp
	f.rev++
	if err != nil {
		f.log.Debug("no state", "lab", f.lab, "err", err)
		f.gone = true
	} else {
		f.st, f.gone = st, false
	}
	f.tell(event{"lab", map[string]int{"rev": f.rev}})
	return true
}

func stampOf(path string) string {
	i, err := os.Stat(path)
	if err != nil {
		return "none"
	}
	return fmt.Sprint(i.ModTime().UnixNano(), i.Size())
}

// machines are the places that the feed goes round.
func (f *feed) machines() (*lab.State, []lab.Target) {
	f.mu.Lock()
	st, gone := f.st, f.gone
	f.mu.Unlock()
	if st == nil || gone {
		return nil, nil
	}
	all, err := lab.Targets(st)
	if err != nil {
		return nil, nil
	}
	return st, slices.DeleteFunc(all, func(t lab.Target) bool { return t.Pod != nil || t.Fabric() })
}

// readAll reads every machine's tables.
func (f *feed) readAll(ctx context.Context) {
	st, all := f.machines()
	there := map[string]bool{}
	for i := range all {
		there[all[i].Label] = true
		f.read(ctx, st, &all[i])
	}
	if st == nil {
		return
	}
	for _, p := range st.Snapshot.Pods {
		there[p.Key()] = true
	}
	f.mu.Lock()
	f.book.forget(there)
	f.mu.Unlock()
}

// readSome reads the tables that are looked at, and the next machine's.
func (f *feed) readSome(ctx context.Context, next int) int {
	st, all := f.machines()
	if len(all) == 0 {
		return 0
	}
	next %= len(all)
	f.mu.Lock()
	shown := map[string]bool{}
	for w := range f.watchers {
		if w.table != "" && w.table != all[next].Label {
			shown[w.table] = true
		}
	}
	f.mu.Unlock()
	for _, name := range ordered.Keys(shown) {
		if t, err := lab.Resolve(st, name); err == nil {
			f.read(ctx, st, t)
		}
	}
	f.read(ctx, st, &all[next])
	return next + 1
}

// read reads one place's tables and tells who watches if they changed.
func (f *feed) read(ctx context.Context, st *lab.State, t *lab.Target) {
	read, down, err := readTables(ctx, st, t)
	if err != nil {
		f.log.Debug("tables", "place", t.Label, "err", err)
		return // its namespace is gone, which look tells
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.book.places[t.Label] != nil
	changed := f.book.note(read)
	f.down[t.Label] = down
	if changed && known {
		f.tell(event{"touched", map[string]any{"place": t.Label, "at": read.ChangedAt}})
	}
}

// tablesOf reads a place's tables now.
func (f *feed) tablesOf(ctx context.Context, name string) (*tables, error) {
	st, _, err := f.state()
	if err != nil {
		return nil, err
	}
	t, err := lab.Resolve(st, name)
	if err != nil {
		return nil, err
	}
	f.read(ctx, st, t)
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.book.places[t.Label]
	if h == nil {
		return nil, fmt.Errorf("%s cannot be read: its namespace is gone", t.Label)
	}
	return h.now, nil
}

// look finds what is wrong and tells who watches if that changed.
func (f *feed) look(ctx context.Context) {
	h := healthView{State: lab.StateUp, Places: map[string][]string{}}
	st, all := f.machines()
	if st == nil {
		h.State = "gone"
	} else {
		f.examine(ctx, st, all, &h)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.State == f.health.State && h.Problem == f.health.Problem && maps.EqualFunc(h.Places, f.health.Places, slices.Equal) {
		return
	}
	f.health = h
	f.tell(event{"health", h})
}

func (f *feed) examine(ctx context.Context, st *lab.State, all []lab.Target, h *healthView) {
	if !st.Complete {
		h.State = lab.StatePartial
	}
	asking, cancel := context.WithTimeout(ctx, healthEvery)
	defer cancel()
	d, err := lab.DaemonStatus(asking, st.Lab)
	if err != nil {
		h.State, h.Problem = lab.StateDaemonDown, err.Error()
	}
	for _, node := range ordered.Keys(d.Speakers) {
		if s := d.Speakers[node]; s.PID == 0 {
			h.Places[node] = append(h.Places[node], "no BGP speaker runs")
		} else if len(s.Down) > 0 {
			h.Places[node] = append(h.Places[node], fmt.Sprintf("%d of %d BGP sessions are down", len(s.Down), s.Peers))
		}
	}
	every, err := lab.Targets(st)
	if err != nil {
		every = all
	}
	for _, t := range every {
		if _, err := os.Stat(netns.Path(t.NetNS)); err != nil && (t.Pod == nil || st.Live == nil) {
			h.Places[t.Label] = append(h.Places[t.Label], "its namespace is gone")
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range all {
		for _, dev := range f.down[t.Label] {
			h.Places[t.Label] = append(h.Places[t.Label], dev+" is down")
		}
	}
}
