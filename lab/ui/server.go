package ui

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"slipway/lab"
	"slipway/lab/bench/report"
)

// Options of a server.
type Options struct {
	Lab         string // that is shown first; empty: none is up
	AllowChange bool   // otherwise what changes the lab is refused
	Reports     []Report
	Log         *slog.Logger
}

// Report is a report of the bench with the file that it was read from.
type Report struct {
	File string `json:"file"`
	*report.Report
}

// Server serves the page of this machine's labs.
type Server struct {
	o     Options
	token string
	addr  netip.AddrPort
	l     net.Listener

	mu      sync.Mutex // of what follows
	feeds   map[string]*feed
	begin   func(*feed) // lets a feed run as long as the server; nil before it serves
	feeding sync.WaitGroup
	// tracing is held while a packet is traced: observers of two traces at once
	// would see each other's packets, and cost twice.
	tracing sync.Mutex
}

// LoopbackError says that a page would be seen from outside.
type LoopbackError struct{ Address string }

// Error says what to write instead.
func (e *LoopbackError) Error() string {
	return fmt.Sprintf("%s is not an address of the loopback device: the page is for this machine only (127.0.0.1:PORT; port 0 takes a free one)", e.Address)
}

// Listen opens the page's address, which must be a numeric one of the loopback
// device. Nothing is served before [Server.Serve].
func Listen(ctx context.Context, address string, o Options) (*Server, error) {
	want, err := netip.ParseAddrPort(address)
	if err != nil || !want.Addr().IsLoopback() {
		return nil, &LoopbackError{address}
	}
	raw := make([]byte, 24)
	if _, err := rand.Read(raw); err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", want.String())
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	got, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, token: base64.RawURLEncoding.EncodeToString(raw), addr: got, l: l, feeds: map[string]*feed{o.Lab: newFeed(o.Lab, o.Log)}}, nil
}

// URL is the page's address with its token.
func (s *Server) URL() string { return s.origin() + "/?token=" + s.token }

func (s *Server) origin() string { return "http://" + s.addr.String() }

// Serve answers until the context ends.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.begin = func(f *feed) { s.feeding.Go(func() { f.run(ctx) }) }
	s.begin(s.feeds[s.o.Lab])
	s.mu.Unlock()
	defer s.feeding.Wait()
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 32 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(s.l) }()
	select {
	case err := <-ended:
		cancel()
		return fmt.Errorf("serve the page: %w", err)
	case <-ctx.Done():
	}
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	if err := srv.Shutdown(closing); err != nil {
		return errors.Join(err, srv.Close())
	}
	return nil
}

// feedOf is the feed of the lab that a request is about: ?lab=, or the first. Labs
// that are not there get none.
func (s *Server) feedOf(r *http.Request) (*feed, error) {
	name := r.URL.Query().Get("lab")
	if name == "" {
		name = s.o.Lab
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.feeds[name]; f != nil {
		return f, nil
	}
	if _, err := lab.ReadState(name); err != nil {
		return nil, err
	}
	f := newFeed(name, s.o.Log)
	s.feeds[name] = f
	s.begin(f)
	return f, nil
}

// Handler answers requests, every one guarded.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/lab", s.getLab)
	mux.HandleFunc("GET /api/events", s.getEvents)
	mux.HandleFunc("GET /api/status", s.getStatus)
	mux.HandleFunc("GET /api/tables/{place...}", s.getTables)
	mux.HandleFunc("GET /api/services/{namespace}/{name}", s.getService)
	mux.HandleFunc("POST /api/trace", s.postTrace)
	mux.HandleFunc("GET /api/reports", s.getReports)
	mux.HandleFunc("GET /api/labs", getLabs)
	s.scenarioRoutes(mux)
	mux.HandleFunc("GET /drawing.css", s.getDrawingCSS)
	mux.HandleFunc("GET /", getAsset)
	return s.guard(mux)
}
