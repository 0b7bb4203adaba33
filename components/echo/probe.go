package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// probeArg makes this program a client: it reads questions from stdin and prints
// what came of each, as `slipway install verify` asks from pods and nodes.
const probeArg = "-slipway-probe"

// questions are what to try, all at once.
type questions struct {
	Patience time.Duration `json:"patienceNs"` // how long what fails is tried again
	Attempt  time.Duration `json:"attemptNs"`  // how long one try may take
	Every    time.Duration `json:"everyNs"`    // between tries
	DNS      string        `json:"dns,omitempty"`
	Large    int64         `json:"large"` // bytes to fetch, too, if not 0
	Cells    []question    `json:"cells"`
}

// question is a server to reach.
type question struct {
	ID   int    `json:"id"`
	Host string `json:"host"` // address or name
	Port int    `json:"port"`
	Pod  string `json:"pod"` // that has to answer
}

// outcome is what came of a question.
type outcome struct {
	ID     int           `json:"id"`
	OK     bool          `json:"ok"`
	Reason string        `json:"reason,omitempty"` // of the last try
	Source string        `json:"source,omitempty"` // as the server saw it
	Tries  int           `json:"tries"`
	Took   time.Duration `json:"tookNs"` // of the last try
}

// probe prints a line of JSON for each question as soon as it is answered.
func probe(in io.Reader, out io.Writer) error {
	var q questions
	if err := json.NewDecoder(in).Decode(&q); err != nil {
		return fmt.Errorf("read questions: %w", err)
	}
	c := client{questions: q, until: time.Now().Add(q.Patience)}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	results := make(chan outcome)
	var all sync.WaitGroup
	for _, cell := range q.Cells {
		all.Go(func() { results <- c.insist(cell) })
	}
	go func() { all.Wait(); close(results) }()
	var errs []error
	for r := range results {
		errs = append(errs, enc.Encode(r), w.Flush())
	}
	return errors.Join(errs...)
}

type client struct {
	questions
	until time.Time
}

// insist tries until the right server answers, or patience ends.
func (c *client) insist(q question) (r outcome) {
	for r.ID, r.Tries = q.ID, 1; ; r.Tries++ {
		begun := time.Now()
		source, err := c.try(q)
		r.Took = time.Since(begun)
		if err == nil {
			r.OK, r.Reason, r.Source = true, "", source
			return r
		}
		if r.Reason = reason(err); time.Now().Add(c.Every).After(c.until) {
			return r
		}
		time.Sleep(c.Every)
	}
}

// errLarge is what a path says whose MTU is less than its ends believe.
var errLarge = errors.New("small answers arrive, large ones do not (MTU?)")

// try asks once for who answers, and once for a large answer.
func (c *client) try(q question) (source string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.Attempt)
	defer cancel()
	at, err := c.resolve(ctx, q.Host)
	if err != nil {
		return "", err
	}
	web := &http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, netip.AddrPortFrom(at, uint16(q.Port)).String())
	}}}
	base := "http://" + net.JoinHostPort(q.Host, strconv.Itoa(q.Port))
	raw, err := get(ctx, web, base+"/")
	if err != nil {
		return "", err
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		return "", errors.New("something else answers there")
	}
	if a.Pod != q.Pod {
		return "", fmt.Errorf("answered by %s", cmp.Or(a.Pod, "another server"))
	}
	if c.Large > 0 {
		raw, err := get(ctx, web, fmt.Sprintf("%s/bytes?n=%d", base, c.Large))
		if err != nil || int64(len(raw)) != c.Large {
			return "", errLarge
		}
	}
	return a.Source.String(), nil
}

func get(ctx context.Context, web *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := web.Do(req)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(resp.Body)
	return raw, errors.Join(err, resp.Body.Close())
}

// resolve finds a name's IPv4 address: at the DNS server that is named, or as the
// machine or pod does it.
func (c *client) resolve(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a, nil
	}
	r := &net.Resolver{PreferGo: true}
	if c.DNS != "" {
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(c.DNS, "53"))
		}
	}
	found, err := r.LookupNetIP(ctx, "ip4", host+".")
	if err != nil {
		return netip.Addr{}, err
	}
	return found[0], nil
}

// reason says in a few words why an attempt failed.
func reason(err error) string {
	var dns *net.DNSError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "DNS does not know the name"
	case errors.As(err, &dns) && (dns.IsTimeout || errors.Is(err, context.DeadlineExceeded)):
		return "DNS does not answer"
	case errors.As(err, &dns):
		return "DNS: " + dns.Err
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, syscall.EPERM):
		return "not permitted to send"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer"
	}
	return err.Error()
}
