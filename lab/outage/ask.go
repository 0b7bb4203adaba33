package outage

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/tracer"
)

// ErrURL says that a URL cannot be asked.
var ErrURL = errors.New("what is asked is https://HOST[:PORT][/PATH], http://… or tcp://HOST:PORT")

// ports are those of schemes, where a URL names none.
var ports = map[string]string{"http": "80", "https": "443"}

// Asker asks a URL from a place in a lab, over a connection of its own each time:
// where that leads is decided anew. An answer is any of HTTP below 500, or, for tcp,
// that the connection is taken. Nobody's certificate is verified: it is asked whether
// there is an answer, and not whose. HOST is an address, or what `slipway trace`
// takes. close ends it.
func Asker(st *lab.State, from, to string) (ask Ask, close func(), err error) {
	u, err := url.Parse(to)
	if err != nil || u.Hostname() == "" || u.Port() == "" && ports[u.Scheme] == "" || u.Scheme != "tcp" && ports[u.Scheme] == "" {
		return nil, nil, fmt.Errorf("%q: %w", to, ErrURL)
	}
	where, err := lab.Resolve(st, from)
	if err != nil {
		return nil, nil, err
	}
	address, err := resolved(st, from, u)
	if err != nil {
		return nil, nil, err
	}
	ns, err := netns.Open(where.NetNS)
	if err != nil {
		return nil, nil, err
	}
	dial := func(ctx context.Context, _, _ string) (c net.Conn, err error) {
		err = ns.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, "tcp4", address) // a literal address is dialled on this thread
			return err
		})
		return c, err
	}
	close = func() { _ = ns.Close() } // a handle
	if u.Scheme == "tcp" {
		return func(ctx context.Context) error {
			c, err := dial(ctx, "", "")
			if err != nil {
				return inWords(err)
			}
			return c.Close()
		}, close, nil
	}
	client := http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, //nolint:gosec // see above
	}
	return func(ctx context.Context) error { return get(ctx, &client, u.String()) }, close, nil
}

// resolved is the address and port that a URL means.
func resolved(st *lab.State, from string, u *url.URL) (string, error) {
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	to := net.JoinHostPort(u.Hostname(), port)
	if _, err := netip.ParseAddrPort(to); err == nil {
		return to, nil
	}
	_, e, err := tracer.Ends(st, from, to, "tcp")
	if err != nil {
		return "", err
	}
	return netip.AddrPortFrom(e.Address, e.Port).String(), nil
}

func get(ctx context.Context, c *http.Client, to string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return inWords(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20)); err != nil {
		return inWords(err)
	}
	if resp.StatusCode >= http.StatusInternalServerError {
		return errors.New(resp.Status)
	}
	return nil
}

// inWords names what went wrong, the same way every time.
func inWords(err error) error {
	var late net.Error
	switch {
	case errors.Is(err, unix.ECONNREFUSED):
		return errors.New("connection refused")
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("connection closed")
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return errors.New("unreachable")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &late) && late.Timeout():
		return errors.New("no answer")
	}
	text := err.Error() // "Get "https://…": what went wrong"
	return errors.New(text[strings.LastIndex(text, ": ")+1:])
}
