package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"slipway/datapath"
	"slipway/datapath/running"
	"slipway/lab/clusterdns"
	"slipway/lab/echo"
)

// Config is what a daemon is started with.
type Config struct {
	Lab    string
	Socket string // path of the Unix socket to serve on
	// Speaker is the command line that serves one node's BGP on stdin and stdout.
	Speaker []string
	Log     *slog.Logger
}

// program is what changes say who made them.
const program = "slipwayd"

// server is the running daemon.
type server struct {
	cfg   Config
	since time.Time
	ctx   context.Context // ends with the daemon; what units run under
	quit  context.CancelFunc

	mu       sync.Mutex // one Set at a time
	want     Desired
	tunnels  running.Units[tunnelConfig]
	speakers running.Units[speakerConfig]
	relays   running.Units[Relay]
	echo     *echo.Servers
	dns      map[string]*dnsServer
	zone     *clusterdns.Server
	running  procTable
	errs     errorLog
}

// Run serves until ctx ends or a client asks for a shutdown, then stops
// everything it started. Kernel state is left as it is.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := listen(cfg.Socket)
	if err != nil {
		return err
	}
	s := newServer(ctx, cancel, cfg)
	srv := &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	err = srv.Serve(l)
	cancel()
	stopCtx, stop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer stop()
	err = errors.Join(ignoreClosed(err), s.stopAll(stopCtx))
	return errors.Join(err, removeSocket(cfg.Socket))
}

func newServer(ctx context.Context, cancel context.CancelFunc, cfg Config) *server {
	s := &server{cfg: cfg, since: time.Now(), ctx: ctx, quit: cancel, echo: echo.New(cfg.Log), zone: clusterdns.New(cfg.Log), dns: map[string]*dnsServer{}}
	s.tunnels = running.Units[tunnelConfig]{Object: "tunnel", By: program, Start: s.startTunnel}
	s.speakers = running.Units[speakerConfig]{
		Object: "bgp", By: program, Start: s.startSpeaker, Order: waitingFirst, AtOnce: speakersAtOnce,
	}
	s.relays = running.Units[Relay]{Object: "relay", By: program, Start: s.startRelay}
	return s
}

// listen replaces a socket that a dead daemon left, and refuses when one answers.
func listen(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if err == nil {
		return l, nil
	}
	if c, e := net.Dial("unix", path); e == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %s: another daemon of this lab is running", path)
	}
	if e := os.Remove(path); e != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Join(err, e))
	}
	l, err = net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

func removeSocket(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// set makes everything run that d asks for.
func (s *server) set(ctx context.Context, d Desired) (datapath.Diff, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.errs.clear()
	s.zone.Set(d.Snapshot)
	var diff datapath.Diff
	var errs []error
	for _, step := range []func(context.Context, Desired) (datapath.Diff, error){
		s.setRelays, s.setTunnels, s.setServers, s.setDNS, s.setSpeakers,
	} {
		did, err := step(ctx, d)
		diff, errs = append(diff, did...), append(errs, err)
	}
	s.want = d
	return diff, errors.Join(errs...)
}

func (s *server) stopAll(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, e1 := s.speakers.Set(ctx, nil)
	_, e2 := s.tunnels.Set(ctx, nil)
	_, e3 := s.relays.Set(ctx, nil)
	for _, d := range s.dns {
		d.close()
	}
	s.echo.Close()
	return errors.Join(e1, e2, e3)
}
