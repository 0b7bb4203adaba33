package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/echo"
	"slipway/topology"
)

const (
	askers     = 16              // requests on their way at a time
	askTimeout = 5 * time.Second // of one request: two lost SYNs and a repeat
)

// question is one HTTP request out of a pod.
type question struct {
	from topology.Pod
	to   netip.AddrPort
	// answerer is the pod that has to answer; any will do if it is empty.
	answerer string
}

// answers are what came back.
type answers struct {
	asked, right int
	took         time.Duration
	slowest      time.Duration
	wrong        string // what went wrong first
}

// neighbourly asks every pod from a pod of the next node that has any, so that
// each request crosses the network between nodes.
func neighbourly(s *topology.Snapshot) []question {
	first := map[string]topology.Pod{}
	var nodes []string
	for _, p := range s.Pods {
		if _, ok := first[p.Node]; !ok {
			first[p.Node] = p
			nodes = append(nodes, p.Node)
		}
	}
	next := map[string]topology.Pod{}
	for i, n := range nodes {
		next[n] = first[nodes[(i+1)%len(nodes)]]
	}
	var out []question
	for _, p := range s.Pods {
		if p.Owner != workload { // the cluster's own DNS speaks no HTTP
			continue
		}
		out = append(out, question{next[p.Node], netip.AddrPortFrom(p.Address, podPort), p.Key()})
	}
	return out
}

// ask sends the questions, some at a time.
func ask(ctx context.Context, labName string, questions []question, step func()) (answers, error) {
	clients, closeAll, err := openClients(labName, questions)
	if err != nil {
		return answers{}, err
	}
	defer closeAll()
	a := answers{asked: len(questions)}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(askers)
	start := time.Now()
	for _, q := range questions {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			began := time.Now()
			err := q.send(ctx, clients[q.from.Key()])
			took := time.Since(began)
			mu.Lock()
			defer mu.Unlock()
			a.slowest = max(a.slowest, took)
			if err == nil {
				a.right++
			} else if a.wrong == "" {
				a.wrong = err.Error()
			}
			step()
			return nil
		})
	}
	_ = g.Wait() // no asker fails: each writes down what it got
	a.took = time.Since(start)
	return a, ctx.Err()
}

// openClients opens the namespaces of all pods that ask.
func openClients(labName string, questions []question) (map[string]*netns.NS, func(), error) {
	clients := map[string]*netns.NS{}
	closeAll := func() {
		for _, ns := range clients {
			_ = ns.Close() // a read-only descriptor
		}
	}
	for _, q := range questions {
		key := q.from.Key()
		if clients[key] != nil {
			continue
		}
		ns, err := netns.Open(lab.NSOfPod(labName, key))
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients[key] = ns
	}
	return clients, closeAll, nil
}

// send sends one request over a connection of its own and checks who answered.
func (q question) send(ctx context.Context, client *netns.NS) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, to string) (c net.Conn, err error) {
		err = client.Do(func() error {
			c, err = (&net.Dialer{}).DialContext(ctx, network, to) // a literal address is dialled on this thread
			return err
		})
		return c, err
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+q.to.String()+"/", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := h.Do(req)
	if err != nil {
		return fmt.Errorf("%s asks %s: %w", q.from.Key(), q.to, err)
	}
	defer resp.Body.Close() //nolint:errcheck // response was read
	var a echo.Answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&a); err != nil {
		return fmt.Errorf("%s asks %s: %w", q.from.Key(), q.to, err)
	}
	if who := a.Namespace + "/" + a.Pod; q.answerer != "" && who != q.answerer {
		return fmt.Errorf("%s asks %s: %s answered, not %s", q.from.Key(), q.to, who, q.answerer)
	}
	return nil
}
