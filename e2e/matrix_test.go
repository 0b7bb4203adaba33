package e2e

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"slipway/internal/testnet"
	"slipway/lab/echo"
)

// webPort is where the matrix's pods answer HTTP.
const webPort = 80

// each runs cells a few at a time: they wait for programs and packets more
// than they compute.
type each struct {
	wg    sync.WaitGroup
	slots chan struct{}
}

func newEach() *each { return &each{slots: make(chan struct{}, 4)} }

func (e *each) run(cell func()) {
	e.slots <- struct{}{}
	e.wg.Go(func() {
		defer func() { <-e.slots }()
		cell()
	})
}

// pings wants an answer for every pair of different places.
func pings(t *testing.T, from, to []*place) {
	t.Helper()
	e := newEach()
	for _, a := range from {
		for _, b := range to {
			if a == b {
				continue
			}
			e.run(func() {
				if out, err := a.ping(b.addr); err != nil {
					t.Errorf("ping %s (%s) → %s (%s, %s): no answer: %v\n%s", a.name, a.node, b.name, b.node, b.addr, err, out)
				}
			})
		}
	}
	e.wg.Wait()
}

// answered gets from a pod or service and checks that one of the wanted pods
// answered; it returns nil if not.
func answered(t *testing.T, from *place, what string, to netip.AddrPort, want []*place) *echo.Answer {
	t.Helper()
	a, err := from.get(to)
	if err != nil {
		t.Errorf("GET %s (%s) → %s %s: %v", from.name, from.node, what, to, err)
		return nil
	}
	for _, p := range want {
		if p.pod.Name == a.Pod && p.node == a.Node && p.addr == a.Address.Addr() {
			return &a
		}
	}
	t.Errorf("GET %s (%s) → %s %s: answered by %s on %s at %s, want one of %s", from.name, from.node, what, to, a.Pod, a.Node, a.Address, names(want))
	return nil
}

func names(ps []*place) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.name)
	}
	return strings.Join(out, ", ")
}

// sees checks the source that an answer says its sender was seen with.
func sees(t *testing.T, from *place, what string, a *echo.Answer, why string, want ...netip.Addr) {
	t.Helper()
	if a != nil && !slices.Contains(want, a.Source.Addr()) {
		t.Errorf("GET %s (%s) → %s: %s on %s saw %s, want %s: %v", from.name, from.node, what, a.Pod, a.Node, a.Source.Addr(), why, want)
	}
}

// podCells are all pairs of pods. Between pods nothing is ever translated.
func podCells(t *testing.T, l *testLab) {
	pings(t, l.pods(), l.pods())
	for _, from := range l.pods() {
		for _, to := range l.servers() {
			if from != to {
				a := answered(t, from, to.name, netip.AddrPortFrom(to.addr, webPort), []*place{to})
				sees(t, from, to.name, a, "the pod itself, untranslated", from.addr)
			}
		}
	}
	if from, to := l.at("client"), l.at("web-d"); from.node == to.node {
		t.Errorf("%s and %s are both on %s: the matrix has no pair of pods on different nodes", from.name, to.name, to.node)
	}
}

// nodeCells are pods to nodes and nodes to pods. A node sees its own pods as
// they are, and those of others as their node: pods' addresses mean nothing
// outside the pod network.
func nodeCells(t *testing.T, l *testLab) {
	pings(t, l.pods(), l.nodes())
	pings(t, l.nodes(), l.pods())
	for _, node := range l.nodes() {
		srv := listen(t, node)
		for _, pod := range l.pods() {
			want, why := l.at(pod.node).addr, "the pod's node"
			if pod.node == node.name {
				want, why = pod.addr, "its own pod as it is"
			}
			seen, err := pod.seenBy(srv)
			if err != nil {
				t.Errorf("TCP %s (%s) → %s %s: %v", pod.name, pod.node, node.name, srv.to, err)
			} else if seen != want {
				t.Errorf("TCP %s (%s) → %s: the node saw %s, want %s: %s", pod.name, pod.node, node.name, seen, why, want)
			}
		}
		own := addresses(t, node)
		for _, pod := range l.servers() {
			a := answered(t, node, pod.name, netip.AddrPortFrom(pod.addr, webPort), []*place{pod})
			sees(t, node, pod.name, a, "an address of the node", own...)
		}
	}
}

// serviceCells are services from inside: from pods untranslated, unless a pod
// reaches itself (which only works through its node's address), and from nodes
// with an address of the node.
func serviceCells(t *testing.T, l *testLab) {
	web := l.clusterIP("web")
	for _, pod := range l.pods() {
		a := answered(t, pod, "service web", web, l.servers())
		if a != nil && a.Pod != pod.name {
			sees(t, pod, "service web", a, "the pod itself, untranslated", pod.addr)
		}
		if err := pod.udp(l.clusterIP("dgram")); err != nil {
			t.Errorf("UDP %s (%s) → service dgram: %v", pod.name, pod.node, err)
		}
	}
	for _, node := range l.nodes() {
		a := answered(t, node, "service web", web, l.servers())
		sees(t, node, "service web", a, "an address of the node", addresses(t, node)...)
		if err := node.udp(l.clusterIP("dgram")); err != nil {
			t.Errorf("UDP %s → service dgram: %v", node.name, err)
		}
	}
	t.Run("hairpin", func(t *testing.T) {
		self := l.at("web-a")
		a := answered(t, self, "its own service", l.clusterIP("solo"), []*place{self})
		sees(t, self, "its own service", a, "an address of its node", addresses(t, l.at(self.node))...)
	})
	t.Run("affinity", func(t *testing.T) { affinityCell(t, l) })
	t.Run("sctp", func(t *testing.T) {
		testnet.Need(t, testnet.SCTP)
		for _, from := range append(l.pods(), l.nodes()...) {
			if err := from.sctp(l.clusterIP("assoc")); err != nil {
				t.Errorf("SCTP %s (%s) → service assoc: %v", from.name, from.node, err)
			}
		}
	})
}

// affinityCell connects often enough that four endpoints would all be met:
// 20 times the same one has a chance of 4^-19 without affinity.
func affinityCell(t *testing.T, l *testLab) {
	client, to := l.at("client"), l.clusterIP("sticky")
	first := ""
	for i := range 20 {
		a := answered(t, client, "service sticky", to, l.servers())
		if a == nil {
			return
		}
		if first == "" {
			first = a.Pod
		}
		if a.Pod != first {
			t.Fatalf("GET client → service sticky: connection %d went to %s, the first to %s; sessionAffinity is ClientIP", i+1, a.Pod, first)
		}
	}
}

// nameCells ask by name, as a user does.
func nameCells(t *testing.T, l *testLab) {
	for url, want := range map[string][]*place{
		"http://web:8080/":                      l.servers(),
		"http://web.default.svc:8080/":          l.servers(),
		"http://bare/":                          {l.at("web-c")}, // headless: the pod's own address
		"http://solo.default.svc.cluster.local": {l.at("web-a")},
	} {
		s := slipway(t, "exec", "-L", l.name, "client", "--", "curl", "-sS", "-m", "20", url)
		ok := slices.ContainsFunc(want, func(p *place) bool {
			return strings.Contains(s.Out, "pod:       "+p.name+"\n") && strings.Contains(s.Out, "source:    "+l.at("client").addr.String()+":")
		})
		if s.Code != 0 || !ok {
			t.Errorf("%s: exit code %d, want an answer of %s that saw the client's address\n%s%s", s.Argv, s.Code, names(want), s.Out, s.Err)
		}
	}
}
