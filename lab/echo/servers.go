package echo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"slipway/internal/netns"
	"slipway/topology"
)

// Target is a pod whose ports are to be served.
type Target struct {
	Pod topology.Pod
	// Inode identifies the pod's namespace: a pod whose namespace was made anew
	// under the same name is served anew. Zero is taken as never changing.
	Inode uint64
	// NS opens the pod's namespace; it is called only when ports are opened.
	NS func() (*netns.NS, error)
}

// Timeouts of HTTP connections. A pod's namespace lives as long as one of its
// connections does, so none may linger for ever.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 60 * time.Second
)

// Servers are the servers of a lab. Set and Close may be called at any time.
type Servers struct {
	log  *slog.Logger
	http *http.Server
	wg   sync.WaitGroup

	noSCTP sync.Once // said so

	mu   sync.Mutex
	open map[key]*port
}

// key names one served port.
type key struct {
	pod   string
	port  int
	proto topology.Protocol
}

// port is one served port.
type port struct {
	pod    topology.Pod
	inode  uint64
	server io.Closer
}

// New returns servers that serve nothing yet.
func New(log *slog.Logger) *Servers {
	s := &Servers{log: log, open: map[key]*port{}}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(serveHTTP),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext:       func(l net.Listener) context.Context { return l.(*tcpListener).context() },
	}
	return s
}

// Len is the number of ports being served.
func (s *Servers) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Set makes the served ports those that the targets declare, and reports how
// many were opened and closed. Ports that stay are not interrupted. A pod that
// cannot be served is reported and does not keep the others from it. SCTP ports
// on a kernel without SCTP are logged once and left out.
func (s *Servers) Set(ctx context.Context, pods []Target) (added, removed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[key]Target{}
	for _, t := range pods {
		for _, p := range t.Pod.Ports {
			want[key{t.Pod.Key(), p.Port, p.Protocol}] = t
		}
	}
	var errs []error
	for k, have := range s.open {
		if t, ok := want[k]; ok && t.Inode == have.inode && sameAnswers(t.Pod, have.pod) {
			continue
		}
		errs = append(errs, closing(k, have.server.Close()))
		delete(s.open, k)
		removed++
	}
	for _, t := range pods {
		if err := ctx.Err(); err != nil {
			return added, removed, errors.Join(append(errs, err)...)
		}
		n, err := s.openPod(ctx, t)
		added += n
		if err != nil {
			errs = append(errs, fmt.Errorf("serve pod %s: %w", t.Pod.Key(), err))
		}
	}
	return added, removed, errors.Join(errs...)
}

// sameAnswers reports whether two versions of a pod are told apart by nothing
// that a server says.
func sameAnswers(a, b topology.Pod) bool { return a.Node == b.Node }

func closing(k key, err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("close %s port %d of pod %s: %w", k.proto, k.port, k.pod, err)
}

// openPod opens the ports of one pod that are not open, entering its namespace
// once.
func (s *Servers) openPod(ctx context.Context, t Target) (added int, err error) {
	var missing []key
	for _, p := range t.Pod.Ports {
		k := key{t.Pod.Key(), p.Port, p.Protocol}
		if s.open[k] == nil {
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return 0, nil
	}
	ns, err := t.NS()
	if err != nil {
		return 0, err
	}
	defer ns.Close() //nolint:errcheck // the sockets hold the namespace
	starts := make([]func(), 0, len(missing))
	err = ns.Do(func() error {
		var errs []error
		for _, k := range missing {
			if s.open[k] != nil {
				continue // declared twice
			}
			server, start, err := s.listen(ctx, t.Pod, k)
			if errors.Is(err, errNoSCTP) {
				s.noSCTP.Do(func() { s.log.Warn("SCTP ports are not served", "pod", k.pod, "err", err) })
				continue
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s port %d: %w", k.proto, k.port, err))
				continue
			}
			s.open[k] = &port{pod: t.Pod, inode: t.Inode, server: server}
			starts = append(starts, start)
		}
		return errors.Join(errs...)
	})
	for _, start := range starts {
		s.wg.Go(start)
	}
	return len(starts), err
}

// listen opens one port in the namespace of the calling thread. start serves it
// until it is closed.
func (s *Servers) listen(ctx context.Context, pod topology.Pod, k key) (server io.Closer, start func(), err error) {
	switch k.proto {
	case topology.TCPProtocol:
		l, err := listenTCP(ctx, pod, k.port)
		if err != nil {
			return nil, nil, err
		}
		return l, func() {
			if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				s.log.Error("echo server stopped", "pod", k.pod, "port", k.port, "err", err)
			}
		}, nil
	case topology.UDPProtocol:
		u, err := listenUDP(k.port)
		if err != nil {
			return nil, nil, err
		}
		return u, u.serve, nil
	case topology.SCTPProtocol:
		c, err := listenSCTP(k.port)
		if err != nil {
			return nil, nil, err
		}
		return c, func() { c.serve(s.log) }, nil
	default:
		return nil, nil, fmt.Errorf("unknown protocol %q", k.proto)
	}
}

// Close stops everything and waits until it has stopped.
func (s *Servers) Close() {
	s.mu.Lock()
	for k, p := range s.open {
		if err := closing(k, p.server.Close()); err != nil {
			s.log.Warn("stop echo server", "err", err)
		}
		delete(s.open, k)
	}
	s.mu.Unlock()
	_ = s.http.Close()
	s.wg.Wait()
}
