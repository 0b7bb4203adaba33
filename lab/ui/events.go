package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// countersEvery is how often a service's rules are read while somebody looks at
// them.
const countersEvery = time.Second

// getEvents tells a page what changes, as server-sent events (WHATWG HTML,
// "Server-sent events"): lab (it is another one), health, touched (tables), and
// service (the rules of ?service=NAMESPACE/NAME on ?node=, when their counters
// moved). ?table= names the place whose tables the page shows.
func (s *Server) getEvents(w http.ResponseWriter, r *http.Request) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		fail(w, http.StatusInternalServerError, "this server cannot stream")
		return
	}
	q := r.URL.Query()
	f, err := s.feedOf(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	watch := f.watch(q.Get("table"))
	defer f.leave(watch)
	w.Header().Set("Content-Type", "text/event-stream")
	st := stream{w: w, flush: flusher.Flush}
	f.mu.Lock()
	rev, health := f.rev, f.health
	f.mu.Unlock()
	st.send("lab", map[string]int{"rev": rev})
	st.send("health", health)
	counters := time.NewTicker(countersEvery)
	defer counters.Stop()
	for st.err == nil {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-watch.events:
			if !ok {
				return // too slow: the browser connects again
			}
			st.send(e.name, e.data)
		case <-counters.C:
			sendService(r.Context(), f, &st, q.Get("service"), q.Get("node"))
		}
	}
}

// sendService sends a service's rules if they are not what was sent before.
func sendService(ctx context.Context, f *feed, st *stream, name, node string) {
	if name == "" {
		st.beat()
		return
	}
	v, err := service(ctx, f, name, node)
	if err != nil {
		st.sendNew("service", map[string]string{"error": err.Error()})
		return
	}
	st.sendNew("service", v)
}

// stream writes events.
type stream struct {
	w     http.ResponseWriter
	flush func()
	last  []byte
	beats int
	err   error
}

func (s *stream) send(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.err = err
		return
	}
	_, s.err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", name, b)
	s.flush()
}

// sendNew sends a value unless the last one was the same.
func (s *stream) sendNew(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil || bytes.Equal(b, s.last) {
		s.beat()
		return
	}
	s.last = b
	s.send(name, json.RawMessage(b))
}

// beat shows now and then that the connection lives.
func (s *stream) beat() {
	if s.beats++; s.beats%15 == 0 {
		_, s.err = fmt.Fprint(s.w, ": here\n\n")
		s.flush()
	}
}
