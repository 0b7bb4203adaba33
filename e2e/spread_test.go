package e2e

import (
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"sync"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	// connections are as many as the three endpoints are tested with.
	connections = 3000
	// significance is the probability with which a fair spread fails the test.
	significance = 0.001
)

var podLine = regexp.MustCompile(`(?m)^pod: +(\S+)$`)

// spreadCell opens real connections to a service of three endpoints and tests
// with chi-square whether each gets a third of them, as the probabilities 1/3,
// 1/2 and 1 of kube-proxy's rules in a row promise. A fair spread fails that once
// in a thousand times, so a second measurement decides.
func spreadCell(t *testing.T, l *testLab) {
	if spread(t, l) < significance {
		if p := spread(t, l); p < significance {
			t.Errorf("twice %d connections to 3 endpoints were not spread fairly: p = %.5f, want at least %g", connections, p, significance)
		}
	}
}

// spread returns how probable it is that a fair spread is at least as uneven as
// that of the connections it opens.
func spread(t *testing.T, l *testLab) float64 {
	client, to := l.at("client"), l.clusterIP("three")
	got := map[string]int{}
	var mu sync.Mutex
	e := newEach()
	for range connections {
		e.run(func() {
			name, err := whoAnswers(client, to)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("GET client → service three: %v", err)
				return
			}
			got[name]++
		})
	}
	e.wg.Wait()
	endpoints := l.service("three").Ports[0].Endpoints
	if len(endpoints) != 3 {
		t.Fatalf("service three has %d endpoints", len(endpoints))
	}
	want, chi2, total := float64(connections)/3, 0.0, 0
	for _, p := range endpoints {
		n := got[l.at(p.Pod[len("default/"):]).name]
		total += n
		chi2 += (float64(n) - want) * (float64(n) - want) / want
	}
	if total != connections {
		t.Fatalf("of %d connections the endpoints got %d: %v", connections, total, got)
	}
	p := distuv.ChiSquared{K: 2}.Survival(chi2)
	t.Logf("%v: chi-square %.2f, p = %.3f", got, chi2, p)
	return p
}

// whoAnswers asks with as little ado as HTTP allows.
func whoAnswers(from *place, to netip.AddrPort) (string, error) {
	c, err := from.dial("tcp4", to, answerPatience)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // done with it
	if err := c.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return "", err
	}
	m := podLine.FindSubmatch(b)
	if m == nil {
		return "", fmt.Errorf("answer without a pod: %q", b)
	}
	return string(m[1]), nil
}
