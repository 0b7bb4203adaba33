package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"slipway/internal/netns"
	"slipway/topology"
)

// Window is the gap that a change tore into a service: real TCP connections
// were opened to it one after the other while the change went on.
type Window struct {
	From     string        `json:"from"`
	To       string        `json:"to"`
	Attempts int           `json:"attempts"`
	Lost     int           `json:"lost"`
	Every    time.Duration `json:"everyNs"`
	// Gap is the longest time between the starts of two successful attempts
	// with a lost one between them; zero if none was lost.
	Gap time.Duration `json:"gapNs"`
}

const (
	probeEvery   = 5 * time.Millisecond
	probeTimeout = 300 * time.Millisecond
	probeMax     = 20000 // bounds a prober whose change never ends, at 100 s
)

// prober opens a connection every few milliseconds from inside a namespace.
type prober struct {
	ns     *netns.NS
	window Window
	to     netip.AddrPort

	mu      sync.Mutex
	results []attempt
	wg      sync.WaitGroup
	stop    context.CancelFunc
	ended   chan struct{}
}

type attempt struct {
	at time.Time
	ok bool
}

// startProber picks a client and a service of the snapshot and begins. It
// returns nil when the lab has nothing to connect to.
func startProber(ctx context.Context, lab string, s *topology.Snapshot) (*prober, error) {
	service, to, ok := probeTarget(s)
	if !ok {
		return nil, nil
	}
	name, label := probeClient(lab, s, service)
	ns, err := netns.Open(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &prober{ns: ns, to: to, stop: cancel, ended: make(chan struct{})}
	p.window = Window{From: label, To: fmt.Sprintf("%s (%s)", service.Key(), to), Every: probeEvery}
	go p.run(ctx)
	return p, nil
}

// probeTarget prefers a user's service over the cluster DNS, and both over one
// with no pods behind it, such as the API's.
func probeTarget(s *topology.Snapshot) (topology.Service, netip.AddrPort, bool) {
	services := slices.Clone(s.Services)
	rank := func(v topology.Service) int { return 2*boolInt(!hasPods(v)) + boolInt(v.Namespace == "kube-system") }
	slices.SortStableFunc(services, func(a, b topology.Service) int { return rank(a) - rank(b) })
	for _, v := range services {
		for _, p := range v.Ports {
			if v.ClusterIP.IsValid() && p.Protocol == topology.TCPProtocol && len(p.Endpoints) > 0 {
				return v, netip.AddrPortFrom(v.ClusterIP, uint16(p.Port)), true
			}
		}
	}
	return topology.Service{}, netip.AddrPort{}, false
}

func hasPods(v topology.Service) bool {
	return slices.ContainsFunc(v.Ports, func(p topology.ServicePort) bool {
		return slices.ContainsFunc(p.Endpoints, func(e topology.Endpoint) bool { return e.Pod != "" })
	})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// probeClient prefers a pod on a node without an endpoint of the service, so
// that every connection takes the way between nodes, and one that serves
// nothing. Without pods, and where these get other namespaces in a change, it is a
// node.
func probeClient(lab string, s *topology.Snapshot, v topology.Service) (ns, label string) {
	near := map[string]bool{}
	for _, p := range v.Ports {
		for _, e := range p.Endpoints {
			near[e.Node] = true
		}
	}
	pods := slices.DeleteFunc(slices.Clone(s.Pods), func(p topology.Pod) bool { return p.Kind != topology.PodEcho })
	if len(pods) == 0 || s.Components == topology.ComponentsFull {
		node := slices.MinFunc(s.Nodes, func(a, b topology.NodeState) int { return probeRank(a, near) - probeRank(b, near) }).Name
		return NSOfMachine(lab, node), node
	}
	rank := func(p topology.Pod) int { return 2*boolInt(near[p.Node]) + boolInt(len(p.Ports) > 0) }
	best := slices.MinFunc(pods, func(a, b topology.Pod) int { return rank(a) - rank(b) })
	return NSOfPod(lab, best.Key()), best.Key()
}

// probeRank puts nodes first that have service rules and no endpoint.
func probeRank(n topology.NodeState, near map[string]bool) int {
	return 2*boolInt(!n.InDatapath()) + boolInt(near[n.Name])
}

func (p *prober) run(ctx context.Context) {
	defer close(p.ended)
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for range probeMax {
		p.wg.Add(1)
		go p.once()
		select {
		case <-ctx.Done():
			p.wg.Wait()
			return
		case <-tick.C:
		}
	}
	p.wg.Wait()
}

func (p *prober) once() {
	defer p.wg.Done()
	at := time.Now()
	err := p.ns.Do(func() error {
		c, err := net.DialTimeout("tcp4", p.to.String(), probeTimeout)
		if err != nil {
			return err
		}
		return c.Close()
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = append(p.results, attempt{at: at, ok: err == nil})
}

// waitSuccess waits until an attempt that began after t succeeded.
func (p *prober) waitSuccess(ctx context.Context, t time.Time) error {
	return waitFor(ctx, probeEvery, func() (bool, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(p.results, func(a attempt) bool { return a.ok && a.at.After(t) }), nil
	})
}

// finish stops and sums up.
func (p *prober) finish() *Window {
	p.stop()
	<-p.ended
	_ = p.ns.Close()
	w := p.window
	w.Attempts, w.Lost, w.Gap = gapOf(p.results)
	return &w
}

// gapOf finds the longest gap between successes that has a failure in it.
func gapOf(results []attempt) (attempts, lost int, gap time.Duration) {
	slices.SortFunc(results, func(a, b attempt) int { return a.at.Compare(b.at) })
	var lastOK time.Time
	failed := false
	for _, a := range results {
		if !a.ok {
			lost++
			failed = true
			continue
		}
		if failed && !lastOK.IsZero() {
			gap = max(gap, a.at.Sub(lastOK))
		}
		lastOK, failed = a.at, false
	}
	return len(results), lost, gap
}
