package components

import (
	"strings"
	"sync"
	"time"
)

// Stage is what a build is doing.
type Stage string

// The stages of a build.
const (
	Cached    Stage = "cached"    // nothing had to be built
	Waiting   Stage = "waiting"   // for another process that builds the same
	Fetching  Stage = "fetching"  // modules: Count of them so far
	Compiling Stage = "compiling" // Done of Total bytes of source
	Linking   Stage = "linking"   // everything is compiled
	Done      Stage = "done"
)

// Event is how far a build is.
type Event struct {
	Component string        `json:"component"`
	Stage     Stage         `json:"stage"`
	Count     int           `json:"count,omitempty"` // modules fetched, or packages compiled
	Of        int           `json:"of,omitempty"`    // packages to compile
	Share     float64       `json:"share,omitempty"` // of what is to compile, by bytes of source
	Left      time.Duration `json:"leftNs,omitempty"`
	Took      time.Duration `json:"tookNs"` // since the build began
}

// serial makes calls of fn wait for each other.
func serial(fn func(Event)) func(Event) {
	if fn == nil {
		return nil
	}
	var mu sync.Mutex
	return func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		fn(e)
	}
}

// tracker follows one build by what the go command says.
type tracker struct {
	fn           func(Event)
	now          func() time.Time
	begun        time.Time
	event        Event
	todo         map[string]int64 // packages not compiled yet, with their bytes
	done, total  int64
	compileBegun time.Time
}

func newTracker(component string, fn func(Event)) *tracker {
	return &tracker{fn: fn, now: time.Now, begun: time.Now(), event: Event{Component: component}}
}

func (t *tracker) tell() {
	if t.fn == nil {
		return
	}
	t.event.Took = t.now().Sub(t.begun)
	t.fn(t.event)
}

func (t *tracker) stage(s Stage) {
	t.event = Event{Component: t.event.Component, Stage: s}
	t.tell()
}

// compile begins to count: todo has the packages to compile and their bytes.
func (t *tracker) compile(todo map[string]int64) {
	t.todo, t.compileBegun = todo, t.now()
	for _, n := range todo {
		t.total += n
	}
	t.event = Event{Component: t.event.Component, Stage: Compiling, Of: len(todo)}
	t.compiled()
}

func (t *tracker) compiled() {
	if len(t.todo) == 0 {
		t.stage(Linking)
		return
	}
	if t.total > 0 {
		t.event.Share = float64(t.done) / float64(t.total)
	}
	t.event.Left = left(t.now().Sub(t.compileBegun), t.event.Share)
	t.tell()
}

// leastShare is how much has to be compiled before the rest can be guessed at:
// the first packages say little.
const leastShare = 0.05

// left guesses how long the rest takes at the pace so far; 0 says unknown.
func left(took time.Duration, share float64) time.Duration {
	if share < leastShare {
		return 0
	}
	return time.Duration(float64(took) * (1 - share) / share).Round(time.Second)
}

// line takes in one line that the go command said, and reports whether it was
// of its progress: "go: downloading MODULE VERSION", or a package by itself.
func (t *tracker) line(s string) bool {
	if strings.HasPrefix(s, "go: downloading ") {
		if t.event.Stage == Fetching {
			t.event.Count++
			t.tell()
		}
		return true
	}
	n, ok := t.todo[s]
	if !ok {
		return false
	}
	delete(t.todo, s)
	t.done += n
	t.event.Count++
	t.compiled()
	return true
}
