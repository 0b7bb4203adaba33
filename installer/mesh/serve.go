package mesh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server stands on one host.
type server struct {
	nonce  string
	failed map[string]Failure
	end    context.CancelFunc

	mu   sync.Mutex
	seen map[int]bool
	came chan struct{} // something has come since
}

// serve listens at all places until it is told to end.
func serve(ctx context.Context, spec Spec) error {
	ctx, end := context.WithCancel(ctx)
	defer end()
	s := &server{nonce: spec.Nonce, failed: map[string]Failure{}, end: end, seen: map[int]bool{}, came: make(chan struct{}, 1)}
	var closers []io.Closer
	defer func() {
		for _, c := range closers {
			_ = c.Close()
		}
	}()
	for _, p := range spec.Listen {
		c, err := s.listen(p)
		if err != nil {
			f := Failure{Held: errors.Is(err, syscall.EADDRINUSE), Why: cause(err)}
			if f.Held && p.Protocol == UDP {
				c, err = s.watch(p)
				f.Watched = err == nil
			}
			s.failed[p.String()] = f
		}
		if err == nil {
			closers = append(closers, c)
		}
	}
	control, err := net.Listen("unix", controlName(spec.Nonce))
	if err != nil {
		return fmt.Errorf("listen for what is next: %w", err)
	}
	closers = append(closers, control)
	go s.answer(ctx, control)
	<-ctx.Done()
	return nil
}

// controlName is an abstract socket's, so that nothing is left in a file system.
func controlName(nonce string) string { return "@slipway-mesh-" + nonce }

// cause is the innermost error, which says what is so.
func cause(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

func (s *server) listen(p Place) (io.Closer, error) {
	switch p.Protocol {
	case TCP:
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: p.Address.AsSlice(), Port: p.Port})
		if err == nil {
			go s.greet(l)
		}
		return l, err
	case UDP:
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: p.Address.AsSlice(), Port: p.Port})
		if err == nil {
			go s.echo(c)
		}
		return c, err
	case IPIP, VRRP:
		c, err := net.ListenIP(network(p.Protocol), &net.IPAddr{IP: p.Address.AsSlice()})
		if err == nil {
			go s.echo(c)
		}
		return c, err
	default:
		return nil, fmt.Errorf("nobody listens by %q", p.Protocol)
	}
}

// network is Go's name of a protocol without ports.
func network(p Protocol) string { return fmt.Sprintf("ip4:%d", numbers[p]) }

// greet says the nonce to whoever connects.
func (s *server) greet(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close() //nolint:errcheck // all is said
			_ = c.SetDeadline(time.Now().Add(grace))
			_, _ = io.WriteString(c, s.nonce+"\n")
			_, _ = io.Copy(io.Discard, io.LimitReader(c, 1)) // the other side closes
		}()
	}
}

// echo answers questions, and remembers that they came.
func (s *server) echo(c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an answer
		}
		if id, ok := parsePacket(buf[:n], question, s.nonce); ok {
			s.note(id)
			_, _ = c.WriteTo(packet(answer, s.nonce, id), from)
		}
	}
}

// note remembers that a probe came.
func (s *server) note(id int) {
	s.mu.Lock()
	s.seen[id] = true
	s.mu.Unlock()
	select {
	case s.came <- struct{}{}:
	default:
	}
}

// Kinds of packets.
const (
	question = "question"
	answer   = "answer"
)

// packet is what probes and answers hold. Its first byte is no version of IP, nor
// flags of VXLAN, nor a version of VRRP: whoever else receives it drops it.
func packet(kind, nonce string, id int) []byte {
	return fmt.Appendf([]byte{0}, "slipway-mesh %s %s %d", kind, nonce, id)
}

func parsePacket(b []byte, kind, nonce string) (id int, ok bool) {
	text, ok := strings.CutPrefix(string(b), "\x00slipway-mesh "+kind+" "+nonce+" ")
	if !ok {
		return 0, false
	}
	_, err := fmt.Sscanf(text, "%d", &id)
	return id, err == nil
}

// answer answers other runs of the program on this host.
func (s *server) answer(ctx context.Context, l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close() //nolint:errcheck // all is said
			_ = c.SetDeadline(time.Now().Add(grace))
			var spec Spec
			if json.NewDecoder(c).Decode(&spec) != nil || spec.Nonce != s.nonce {
				return
			}
			a := Answer{Failed: s.failed}
			if spec.Do == End {
				a.Seen = s.wait(ctx, spec.Expect)
			}
			_ = json.NewEncoder(c).Encode(a)
			if spec.Do == End {
				s.end()
			}
		}()
	}
}

// quiet is how long nothing comes before what has not come is given up.
const quiet = time.Second

// wait returns which probes came, once all that are expected have, or nothing
// comes any more.
func (s *server) wait(ctx context.Context, expect []int) []int {
	for {
		s.mu.Lock()
		var out []int
		for _, id := range expect {
			if s.seen[id] {
				out = append(out, id)
			}
		}
		s.mu.Unlock()
		if len(out) == len(expect) {
			return slices.Sorted(slices.Values(out))
		}
		select {
		case <-s.came:
		case <-time.After(quiet):
			return slices.Sorted(slices.Values(out))
		case <-ctx.Done():
			return out
		}
	}
}

// control asks this host's server, waiting for it to stand if need be.
func (s Spec) control(ctx context.Context) (Answer, error) {
	ctx, stop := context.WithTimeout(ctx, s.Timeout)
	defer stop()
	var a Answer
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", controlName(s.Nonce))
		if err == nil {
			defer c.Close() //nolint:errcheck // read to its end
			if err := json.NewEncoder(c).Encode(s); err != nil {
				return a, err
			}
			return a, json.NewDecoder(c).Decode(&a)
		}
		select {
		case <-ctx.Done():
			return a, fmt.Errorf("the listeners do not stand after %s: %w", s.Timeout, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
