package services

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/lab/echo"
	"slipway/topology"
)

// Bounds of a run of connections.
const (
	atOnce      = 16
	patience    = 3 * time.Second // of one connection: a lost SYN and its repeat
	maxFailures = 50              // after which the rest is not tried
	maxRun      = 2 * time.Minute
)

// conn is what became of one connection.
type conn struct {
	client   netip.AddrPort // its own end
	endpoint netip.AddrPort // that answered; not valid if it did not say
	source   netip.Addr     // that the endpoint saw; not valid if it did not say
	failure  string         // empty if it was answered
}

// connector opens connections from a place.
type connector struct {
	ns    *netns.NS
	to    netip.AddrPort
	proto topology.Protocol
	step  func()
	// mute: what listens does not speak HTTP, so that nothing is asked of it.
	mute bool
}

// run opens n connections, the first alone and the others some at a time, and stops early after many failures.
// It returns what became of those that were tried.
func (c *connector) run(ctx context.Context, n int) []conn {
	ctx, cancel := context.WithTimeout(ctx, maxRun)
	defer cancel()
	var mu sync.Mutex
	var out []conn
	failures := 0
	if n > 0 { // the first one says whether HTTP is spoken there
		first := c.once(ctx)
		c.mute = first.failure == "" && !first.endpoint.IsValid()
		out = append(out, first)
		c.step()
	}
	var g errgroup.Group
	g.SetLimit(atOnce)
	for range n - 1 {
		mu.Lock()
		enough := failures >= maxFailures
		mu.Unlock()
		if enough || ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			r := c.once(ctx)
			mu.Lock()
			defer mu.Unlock()
			out = append(out, r)
			if r.failure != "" {
				failures++
			}
			c.step()
			return nil
		})
	}
	_ = g.Wait() // each writes down what it got
	return out
}

func (c *connector) once(ctx context.Context) conn {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	network := "tcp4"
	if c.proto == topology.UDPProtocol {
		network = "udp4"
	}
	var nc net.Conn
	err := c.ns.Do(func() (err error) {
		nc, err = (&net.Dialer{}).DialContext(ctx, network, c.to.String()) // a literal address is dialled on this thread
		return err
	})
	if err != nil {
		return conn{failure: failure(err)}
	}
	defer nc.Close() //nolint:errcheck // everything was read
	r := conn{}
	r.client, _ = netip.ParseAddrPort(nc.LocalAddr().String())
	deadline, _ := ctx.Deadline()
	if err := nc.SetDeadline(deadline); err != nil {
		r.failure = failure(err)
		return r
	}
	switch {
	case c.proto == topology.UDPProtocol:
		err = asked(nc)
	case !c.mute:
		err = r.http(nc, c.to)
	}
	if err != nil {
		r.failure = failure(err)
	}
	return r
}

// http asks who answers. What answers but does not speak HTTP leaves that open.
func (r *conn) http(nc net.Conn, to netip.AddrPort) error {
	_, err := fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: %s\r\nAccept: application/json\r\nConnection: close\r\n\r\n", to)
	if err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() || errors.Is(err, unix.ECONNRESET) {
			return err
		}
		return nil
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	const most = 64 << 10
	var a echo.Answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(&a); err != nil {
		return nil // some other HTTP server
	}
	r.endpoint, r.source = a.Address, a.Source.Addr()
	return nil
}

// asked sends a datagram that an echo server sends back and a DNS server
// answers, and waits for that.
func asked(nc net.Conn) error {
	m := new(dns.Msg).SetQuestion(".", dns.TypeNS)
	b, err := m.Pack()
	if err != nil {
		return err
	}
	if _, err := nc.Write(b); err != nil {
		return err
	}
	_, err = nc.Read(make([]byte, dns.MaxMsgSize))
	return err
}

// failure names what went wrong, the same way for all connections.
func failure(err error) string {
	var late net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH):
		return "host unreachable"
	case errors.Is(err, unix.ENETUNREACH):
		return "network unreachable"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.As(err, &late) && late.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no answer within %s", patience)
	default:
		return err.Error()
	}
}
