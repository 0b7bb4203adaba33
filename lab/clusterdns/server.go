package clusterdns

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"slipway/internal/netns"
	"slipway/topology"
)

// maxUDPAnswer is the largest answer sent over UDP, in bytes, whatever a client
// says that it can take (DNS flag day 2020).
const maxUDPAnswer = 1232

// Server answers from the last snapshot that it was given, in as many places as
// Serve is called for.
type Server struct {
	log  *slog.Logger
	zone atomic.Pointer[zone]

	mu        sync.Mutex
	listeners map[*Listener]struct{}
}

// Listener is the server in one place, on UDP and TCP.
type Listener struct {
	server   *Server
	udp, tcp *dns.Server
	once     sync.Once
	wg       sync.WaitGroup
}

// New returns a server that knows no names yet.
func New(log *slog.Logger) *Server {
	s := &Server{log: log, listeners: map[*Listener]struct{}{}}
	s.Set(topology.Snapshot{})
	return s
}

// Set replaces all names at once by those of a snapshot.
func (s *Server) Set(snap topology.Snapshot) {
	s.zone.Store(newZone(snap, uint32(time.Now().Unix())))
}

// Serve listens on UDP and TCP at addr inside ns, where the sockets stay, until
// the listener or the server is closed. addr must be one of the namespace's.
func (s *Server) Serve(ns *netns.NS, addr netip.AddrPort) (*Listener, error) {
	var pc net.PacketConn
	var l net.Listener
	err := ns.Do(func() (err error) {
		if pc, err = net.ListenPacket("udp4", addr.String()); err != nil {
			return err
		}
		l, err = net.Listen("tcp4", addr.String())
		if err != nil {
			_ = pc.Close()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("serve DNS in %s: %w", ns.Name(), err)
	}
	out := &Listener{
		server: s,
		udp:    &dns.Server{PacketConn: pc, Handler: s, UDPSize: dns.MaxMsgSize},
		tcp:    &dns.Server{Listener: l, Handler: s},
	}
	s.mu.Lock()
	s.listeners[out] = struct{}{}
	s.mu.Unlock()
	// Shutdown of a server that has not started does nothing, so wait for that.
	for _, d := range []*dns.Server{out.udp, out.tcp} {
		started := make(chan struct{})
		begun := sync.OnceFunc(func() { close(started) })
		d.NotifyStartedFunc = begun
		out.wg.Go(func() {
			defer begun()
			if err := d.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
				s.log.Error("cluster DNS stopped", "addr", addr, "err", err)
			}
		})
		<-started
	}
	return out, nil
}

// Close stops answering in this place. It may be called more than once.
func (l *Listener) Close() {
	l.once.Do(func() {
		for _, d := range []*dns.Server{l.udp, l.tcp} {
			if err := d.Shutdown(); err != nil {
				l.server.log.Warn("stop cluster DNS", "err", err)
			}
		}
		l.wg.Wait()
		l.server.mu.Lock()
		delete(l.server.listeners, l)
		l.server.mu.Unlock()
	})
}

// Close stops answering everywhere.
func (s *Server) Close() {
	s.mu.Lock()
	var all []*Listener
	for l := range s.listeners {
		all = append(all, l)
	}
	s.mu.Unlock()
	for _, l := range all {
		l.Close()
	}
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := s.zone.Load().answer(q)
	size := dns.MaxMsgSize
	if w.LocalAddr().Network() == "udp" {
		size = dns.MinMsgSize
	}
	if opt := q.IsEdns0(); opt != nil {
		if size == dns.MinMsgSize {
			size = min(max(size, int(opt.UDPSize())), maxUDPAnswer)
		}
		m.SetEdns0(maxUDPAnswer, false)
		if opt.Version() != 0 {
			m.Rcode = dns.RcodeBadVers // RFC 6891 §6.1.3
			m.Answer, m.Ns = nil, nil
		}
	}
	m.Truncate(size)
	if err := w.WriteMsg(m); err != nil {
		s.log.Debug("cluster DNS: answer lost", "client", w.RemoteAddr(), "err", err)
	}
}
