package outage

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// server is one that is away for a while, by the test's own clock.
type server struct{ down, up time.Time }

var errRefused = errors.New("refused")

// ask answers after 10 ms, but for the time in which it refuses.
func (s *server) ask(ctx context.Context) error {
	if now := time.Now(); !s.down.IsZero() && !now.Before(s.down) && now.Before(s.up) {
		return errRefused
	}
	return wait(ctx, 10*time.Millisecond)
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// A server refuses for a second after something was done that took 100 ms.
func TestRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		r, err := Measure(t.Context(), Defaults, s.ask, func(ctx context.Context) error {
			s.down = time.Now().Add(5 * time.Millisecond) // between two requests
			s.up = s.down.Add(time.Second)
			return wait(ctx, 100*time.Millisecond)
		})
		if err != nil {
			t.Fatal(err)
		}
		// A request every 20 ms: 50 in the second; the gap reaches from the one before
		// to the one after.
		if r.Failed != 50 || r.Stalled != 0 || r.Gap != 51*20*time.Millisecond || !r.Settled {
			t.Errorf("%+v", r)
		}
		if diff := cmp.Diff(map[string]int{"refused": 50}, r.Failures); diff != "" {
			t.Error(diff)
		}
		if r.Before == nil || r.Before.Asked < Defaults.Ready || r.Before.Failed != 0 || r.Before.P50 != 10*time.Millisecond || r.P99 != 10*time.Millisecond {
			t.Errorf("%+v before %+v", r, r.Before)
		}
		if r.Asked != r.Answered+r.Failed {
			t.Errorf("%d of %d and %d", r.Asked, r.Answered, r.Failed)
		}
	})
}

// Nothing happens, and nothing is wrong: there is no gap.
func TestCalm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := Defaults
		o.Settle = 2 * time.Second
		r, err := Measure(t.Context(), o, (&server{}).ask, nil)
		if err != nil || r.Gap != 0 || r.Failed+r.Stalled != 0 || !r.Settled || r.Before != nil || r.Answered < 98 || r.Took != 2*time.Second {
			t.Errorf("%v %+v", err, r)
		}
	})
}

// Requests of 400 ms wait until they are answered late; those of a second give up.
// What is asked meanwhile is not held up.
func TestStalls(t *testing.T) {
	for _, c := range []struct {
		away            time.Duration
		stalled, failed bool
	}{{400 * time.Millisecond, true, false}, {3 * time.Second, true, true}} {
		synctest.Test(t, func(t *testing.T) {
			var back time.Time
			ask := func(ctx context.Context) error {
				if d := time.Until(back); d > 0 {
					if err := wait(ctx, d); err != nil {
						return inWords(err)
					}
				}
				if err := wait(ctx, time.Millisecond); err != nil {
					return inWords(err)
				}
				return nil
			}
			r, err := Measure(t.Context(), Defaults, ask, func(context.Context) error {
				back = time.Now().Add(c.away)
				return nil
			})
			if err != nil || (r.Stalled > 0) != c.stalled || (r.Failed > 0) != c.failed || !r.Settled {
				t.Errorf("away for %s: %v %+v", c.away, err, r)
			}
			// Those of the last quarter of a second were answered soon enough.
			if want := c.away - Defaults.Slow; r.Gap < want || r.Gap > c.away+2*Defaults.Every {
				t.Errorf("away for %s: a gap of %s", c.away, r.Gap)
			}
			if c.failed && r.Failures["no answer"] != r.Failed {
				t.Errorf("%v", r.Failures)
			}
		})
	}
}

// A server that never comes back ends it, and the report says so.
func TestNeverBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		r, err := Measure(t.Context(), Defaults, s.ask, func(context.Context) error {
			s.down = time.Now()
			s.up = s.down.Add(time.Hour)
			return nil
		})
		if err != nil || r.Settled || r.Took != Defaults.Most || r.Gap < 50*time.Second {
			t.Errorf("%v %+v", err, r)
		}
	})
}

// What was to happen fails: its error is told.
func TestFailsToHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := Measure(t.Context(), Defaults, (&server{}).ask, func(context.Context) error { return errRefused }); !errors.Is(err, errRefused) {
			t.Error(err)
		}
	})
}

// Real connections: answers, servers that say 503, and ports where nobody is.
func TestReal(t *testing.T) {
	code := http.StatusUnauthorized
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }))
	defer s.Close()
	if err := get(t.Context(), s.Client(), s.URL); err != nil {
		t.Errorf("401 is an answer: %v", err)
	}
	code = http.StatusServiceUnavailable
	if err := get(t.Context(), s.Client(), s.URL); err == nil || err.Error() != "503 Service Unavailable" {
		t.Errorf("503: %v", err)
	}
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	if err := get(t.Context(), http.DefaultClient, nobody); err == nil || err.Error() != "connection refused" {
		t.Errorf("nobody: %v", err)
	}
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // the test is over
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := get(ctx, http.DefaultClient, "http://"+silent.Addr().String()); err == nil || err.Error() != "no answer" {
		t.Errorf("silence: %v", err)
	}
}

func TestURLs(t *testing.T) {
	for _, to := range []string{"", "192.168.1.1:80", "ftp://a", "tcp://a", "https://", "http://%"} {
		if _, _, err := Asker(nil, "node01", to); !errors.Is(err, ErrURL) {
			t.Errorf("%q: %v", to, err)
		}
	}
	if s := inWords(errors.New(`Get "https://a": tls: odd`)).Error(); strings.Contains(s, "a\"") {
		t.Error(s)
	}
}
