package daemon

import (
	"encoding/json"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /desired", s.putDesired)
	mux.HandleFunc("GET /status", s.getStatus)
	mux.HandleFunc("GET /tunnels/{node}", s.getTunnel)
	mux.HandleFunc("GET /converged", s.getConverged)
	mux.HandleFunc("POST /shutdown", s.postShutdown)
	return mux
}

func (s *server) putDesired(w http.ResponseWriter, r *http.Request) {
	var d Desired
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, "read desired state: "+err.Error(), http.StatusBadRequest)
		return
	}
	diff, err := s.set(r.Context(), d)
	if err != nil {
		s.cfg.Log.Error("set", "err", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	answer(w, Changes{Changes: diff})
}

func (s *server) getStatus(w http.ResponseWriter, _ *http.Request) { answer(w, s.status()) }

// getTunnel answers for one node, as all nodes' leases together are many.
func (s *server) getTunnel(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := Tunnel{Node: r.PathValue("node")}
	if u := s.tunnels.Get(out.Node); u != nil {
		out.Running, out.UDP, out.IPIP = !u.Ended(), u.Config.UDP, u.Config.IPIP
	}
	answer(w, out)
}

// getConverged answers when every speaker is synced, or when the client gives up.
func (s *server) getConverged(w http.ResponseWriter, r *http.Request) {
	if err := s.waitSpeakers(r.Context()); err != nil {
		http.Error(w, err.Error(), http.StatusGatewayTimeout)
		return
	}
	answer(w, s.status())
}

func (s *server) postShutdown(w http.ResponseWriter, _ *http.Request) {
	answer(w, struct{}{})
	go s.quit() // after the answer is on its way
}

func (s *server) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{PID: os.Getpid(), Since: s.since, Listeners: s.echo.Len(), Relays: len(s.relays.Keys()), RSSBytes: rss(), Errors: s.errs.all()}
	for _, port := range s.relays.Keys() {
		if !s.relays.Get(port).Ended() {
			st.Relayed = append(st.Relayed, port)
		}
	}
	st.Tunnels = s.running.tunnelStatus()
	st.Speakers = s.running.speakerStates()
	return st
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that went away needs no answer
}

// rss is the resident size of this process in bytes (proc(5), VmRSS).
func rss() int64 {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10
		}
	}
	return 0
}

// errorLog keeps what went wrong in the background since the last Set.
type errorLog struct {
	mu   sync.Mutex
	said []string
}

const maxErrors = 100 // a loop of failures must not fill the memory

func (l *errorLog) add(what string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && len(l.said) < maxErrors {
		l.said = append(l.said, time.Now().UTC().Format(time.RFC3339)+" "+what+": "+err.Error())
	}
}

func (l *errorLog) clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = nil
}

func (l *errorLog) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]string(nil), l.said...)
}
