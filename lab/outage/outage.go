package outage

import (
	"context"
	"slices"
	"sync"
	"time"

	"gonum.org/v1/gonum/stat"
)

// Options say how often is asked, and what counts.
type Options struct {
	// Every is the time between the beginnings of two requests, and Patience how long
	// one waits for its answer. Requests do not wait for each other.
	Every, Patience time.Duration
	// Slow: an answer that takes longer is a stalled one.
	Slow time.Duration
	// Settle: the end is when for so long every request was answered at once.
	Settle time.Duration
	// Most ends it at the latest.
	Most time.Duration
	// Ready is how many requests have to be answered, one after the other, before
	// During begins.
	Ready int
}

// Defaults are for a server on the same box: 50 requests a second.
var Defaults = Options{Every: 20 * time.Millisecond, Patience: time.Second, Slow: 250 * time.Millisecond, Settle: 3 * time.Second, Most: time.Minute, Ready: 25}

// Ask asks once. Its error says in a few words why there was no answer.
type Ask func(context.Context) error

// Report is what was found.
type Report struct {
	Before *Stats `json:"before,omitempty"` // until something was done; nil if nothing was
	Stats         // from then on
	// Gap is the longest time between the beginnings of two requests that were
	// answered at once, with others between them that were not; 0 if all were.
	Gap time.Duration `json:"gapNs"`
	// Settled: in the end all requests were answered at once.
	Settled bool          `json:"settled"`
	Took    time.Duration `json:"tookNs"`
}

// Stats count requests and how long answers took.
type Stats struct {
	Asked    int `json:"asked"`
	Answered int `json:"answered"` // stalled ones too
	Stalled  int `json:"stalled"`  // answered, but slowly
	Failed   int `json:"failed"`
	// Failures are the reasons, with how often.
	Failures map[string]int `json:"failures,omitempty"`
	P50      time.Duration  `json:"p50Ns"` // of answers
	P99      time.Duration  `json:"p99Ns"`
}

// request is one that has ended.
type request struct {
	begun time.Time
	took  time.Duration
	err   error
}

func (r request) prompt(o Options) bool { return r.err == nil && r.took <= o.Slow }

// Measure asks until answers come steadily, at most for o.Most. With during, that is
// done as soon as o.Ready requests were answered, and until it has returned there is
// no end; its error is returned with the report.
func Measure(ctx context.Context, o Options, ask Ask, during func(context.Context) error) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Most)
	defer cancel()
	m := &measuring{Options: o, ask: ask, begun: time.Now()}
	if during == nil {
		m.done = m.begun
	}
	var g sync.WaitGroup
	inFlight := make(chan struct{}, max(1, o.Patience/max(o.Every, 1)+1))
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for !m.over() && ctx.Err() == nil {
		if during != nil && m.ready() {
			f := during
			during = nil
			g.Go(func() { m.act(ctx, f) })
		}
		select {
		case inFlight <- struct{}{}:
			g.Go(func() { m.once(ctx); <-inFlight })
		default: // so many are waiting that one more tells nothing new
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	cancel()
	g.Wait()
	return m.report(), m.failed
}

// measuring is a measurement on its way.
type measuring struct {
	Options
	ask   Ask
	begun time.Time

	mu      sync.Mutex
	ended   []request
	lastBad time.Time // when the last request began that was not answered at once
	row     int       // how many were since
	started time.Time // of what happens; zero before
	done    time.Time // when it had been done
	settled bool
	failed  error
}

// once asks, and writes down what came of it. What the end cuts off counts for
// nothing.
func (m *measuring) once(ctx context.Context) {
	r := request{begun: time.Now()}
	one, cancel := context.WithTimeout(ctx, m.Patience)
	defer cancel()
	r.err = m.ask(one)
	r.took = time.Since(r.begun)
	if r.err != nil && ctx.Err() != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ended = append(m.ended, r)
	if r.prompt(m.Options) {
		m.row++
		return
	}
	m.row = 0
	if r.begun.After(m.lastBad) {
		m.lastBad = r.begun
	}
}

func (m *measuring) ready() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.row >= m.Ready
}

// act does what is to happen.
func (m *measuring) act(ctx context.Context, during func(context.Context) error) {
	m.mu.Lock()
	m.started = time.Now()
	m.mu.Unlock()
	err := during(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done, m.failed = time.Now(), err
	m.row = 0 // answers from here on say that it is well again
}

// over reports whether it is well, for long enough.
func (m *measuring) over() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done.IsZero() {
		return false
	}
	since := m.done
	if m.lastBad.After(since) {
		since = m.lastBad
	}
	m.settled = time.Since(since) >= m.Settle && m.row > 0
	return m.settled
}

func (m *measuring) report() *Report {
	slices.SortFunc(m.ended, func(a, b request) int { return a.begun.Compare(b.begun) })
	r := &Report{Settled: m.settled, Took: time.Since(m.begun)}
	split := 0
	if !m.started.IsZero() {
		// What was under way then is part of what happened.
		if split = slices.IndexFunc(m.ended, func(q request) bool { return !q.begun.Add(q.took).Before(m.started) }); split < 0 {
			split = len(m.ended)
		}
		before := stats(m.ended[:split], m.Options)
		r.Before = &before
	}
	r.Gap = gap(m.ended[max(0, split-1):], m.Options) // it begins with the last that was well
	r.Stats = stats(m.ended[split:], m.Options)
	return r
}

func stats(all []request, o Options) Stats {
	s := Stats{Asked: len(all), Failures: map[string]int{}}
	var took []float64
	for _, r := range all {
		switch {
		case r.err != nil:
			s.Failed++
			s.Failures[r.err.Error()]++
			continue
		case !r.prompt(o):
			s.Stalled++
		}
		s.Answered++
		took = append(took, float64(r.took))
	}
	if slices.Sort(took); len(took) > 0 {
		s.P50 = time.Duration(stat.Quantile(0.5, stat.Empirical, took, nil))
		s.P99 = time.Duration(stat.Quantile(0.99, stat.Empirical, took, nil))
	}
	return s
}

// gap is the longest time without a prompt answer, by the beginnings of requests.
func gap(all []request, o Options) (longest time.Duration) {
	var last *request // that was answered at once
	bad := false      // one after it was not
	for i, r := range all {
		if !r.prompt(o) {
			bad = true
			continue
		}
		if bad && last != nil {
			longest = max(longest, r.begun.Sub(last.begun))
		}
		last, bad = &all[i], false
	}
	if bad && last != nil { // until the end
		longest = max(longest, all[len(all)-1].begun.Sub(last.begun))
	}
	return longest
}
