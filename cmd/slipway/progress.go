package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// progress shows phases on stderr: one line that is redrawn on a terminal, and
// on anything else a line whenever a long phase has gone on for a while, or
// with --verbose for each.
type progress struct {
	w       io.Writer
	live    bool
	verbose bool
	log     *slog.Logger // instead of lines, with --log-format json

	mu          sync.Mutex
	phase       string
	done, total int
	began, said time.Time
}

// sayEvery is how often a phase that goes on is mentioned in a log.
const sayEvery = 5 * time.Second

// redrawEvery bounds how often the line on a terminal is redrawn.
const redrawEvery = 100 * time.Millisecond

func (a *app) progress() *progress {
	p := &progress{w: a.err, verbose: a.verbose, live: isTerminal(a.err) && a.logFormat != "json"}
	if a.logFormat == "json" {
		p.log = a.logger()
	}
	return p
}

// Phase begins a phase.
func (p *progress) Phase(name string, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.phase, p.done, p.total, p.began, p.said = name, 0, total, time.Now(), time.Now()
	p.draw()
	if p.verbose && !p.live {
		p.say()
	}
}

// Step counts one more done.
func (p *progress) Step() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	every := sayEvery
	if p.live {
		every = redrawEvery
	}
	if time.Since(p.said) >= every {
		p.said = time.Now()
		if p.live {
			p.draw()
		} else {
			p.say()
		}
	}
}

// say mentions the phase in a log.
func (p *progress) say() {
	if p.log != nil {
		p.log.Info("progress", "phase", p.phase, "done", p.done, "total", p.total)
		return
	}
	fmt.Fprintln(p.w, p.line())
}

// note says something that lasts beside the line that is redrawn.
func (p *progress) note(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.log != nil:
		p.log.Info(text, "phase", p.phase)
	case p.live:
		fmt.Fprintf(p.w, "\r\033[K%s\n", text)
		p.draw()
	default:
		fmt.Fprintln(p.w, "slipway: "+text)
	}
}

func (p *progress) line() string {
	s := "slipway: " + p.phase
	if p.total == 0 || p.done == 0 {
		return s
	}
	took := time.Since(p.began)
	left := time.Duration(float64(took) / float64(p.done) * float64(p.total-p.done))
	return fmt.Sprintf("%s %d/%d, about %s left", s, p.done, p.total, left.Round(time.Second))
}

func (p *progress) draw() {
	if p.live {
		fmt.Fprintf(p.w, "\r\033[K%s", p.line())
	}
}

// clear wipes the line before results are printed.
func (p *progress) clear() {
	if p.live {
		fmt.Fprint(p.w, "\r\033[K")
	}
}
