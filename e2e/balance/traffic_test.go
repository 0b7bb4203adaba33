package balance

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer/cluster"
	"slipway/internal/testnet"
)

// client is who asks the API from a node, as the administrator, with a
// connection for each request: where it leads is decided anew each time.
type client struct {
	http     http.Client
	url      string
	patience time.Duration // with one request
}

func newClient(t testing.TB, r *rig.Rig, node string) *client {
	t.Helper()
	ca, err := r.Inputs.PKI.File("ca.crt")
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	cert, err := r.Inputs.PKI.File("admin.crt")
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.Inputs.PKI.File("admin.key")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ns := r.Nodes[node].NS
	dial := func(ctx context.Context, network, address string) (c net.Conn, err error) {
		var d net.Dialer
		err = ns.Do(func() error { c, err = d.DialContext(ctx, network, address); return err })
		return c, err
	}
	return &client{patience: patience, url: cluster.Endpoint(r.Inputs), http: http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}},
	}}}
}

// ask returns what is at a path of the API.
func (c *client) ask(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %.200s", resp.Status, body)
	}
	return string(body), err
}

// patience is how long a client waits for an answer before it asks again.
const patience = time.Second

// pause is between two requests.
const pause = 10 * time.Millisecond

// traffic is a client that asks and asks.
type traffic struct {
	stop context.CancelFunc
	done chan struct{}

	mu       sync.Mutex
	good     int
	failures []failure
	last     time.Time     // of the last answer
	stall    time.Duration // the longest without one
}

// failure is a request without an answer.
type failure struct {
	at  time.Time
	err error
}

// keepAsking begins with the traffic, once the first request was answered.
func keepAsking(t testing.TB, c *client, path string) *traffic {
	t.Helper()
	testnet.Eventually(t, 30*time.Second, "the API answers", func() (bool, string) {
		_, err := c.ask(t.Context(), path)
		return err == nil, fmt.Sprint(err)
	})
	ctx, stop := context.WithCancel(t.Context())
	tr := &traffic{stop: stop, done: make(chan struct{}), last: time.Now()}
	go func() {
		defer close(tr.done)
		for ctx.Err() == nil {
			_, err := c.ask(ctx, path)
			if ctx.Err() != nil {
				return
			}
			tr.note(err)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}()
	t.Cleanup(func() { stop(); <-tr.done })
	return tr
}

func (tr *traffic) note(err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	now := time.Now()
	if err != nil {
		tr.failures = append(tr.failures, failure{now, err})
		return
	}
	tr.good++
	tr.stall = max(tr.stall, now.Sub(tr.last))
	tr.last = now
}

// answered waits for some more answers.
func (tr *traffic) answered(t testing.TB, more int) {
	t.Helper()
	want := tr.count() + more
	testnet.Eventually(t, time.Minute, "requests are answered", func() (bool, string) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		why := ""
		if n := len(tr.failures); n > 0 {
			why = tr.failures[n-1].err.Error()
		}
		return tr.good >= want, fmt.Sprintf("%d of %d: %s", tr.good, want, why)
	})
}

func (tr *traffic) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.good
}

// since forgets what was, and returns it.
func (tr *traffic) since() (good int, failures []failure, stall time.Duration) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	good, failures, stall = tr.good, tr.failures, tr.stall
	tr.good, tr.failures, tr.stall, tr.last = 0, nil, 0, time.Now()
	return good, failures, stall
}

// begin forgets what was, once the traffic flows.
func (tr *traffic) begin(t testing.TB) {
	t.Helper()
	tr.answered(t, 20)
	tr.since()
}

// report says what came of the traffic since it began or was last reported on.
func (tr *traffic) report(t testing.TB, what string) (good int, failed []failure) {
	t.Helper()
	good, failed, stall := tr.since()
	t.Logf("%s: %d answers, %d failures, longest without an answer %v", what, good, len(failed), stall.Round(time.Millisecond))
	kinds := map[string]int{}
	for _, f := range failed {
		kinds[f.err.Error()]++
	}
	for k, n := range kinds {
		t.Logf("  %d times %s", n, k)
	}
	return good, failed
}
