package services

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"slipway/internal/ordered"
)

// Significance is the probability with which a fair run is judged to be none.
const Significance = 0.01

// ChiSquare is Pearson's test of the counts against the rules' probabilities.
type ChiSquare struct {
	Statistic float64 `json:"statistic"`
	Freedom   int     `json:"degreesOfFreedom"`
	// P is the probability that connections that follow the rules are spread at
	// least as unevenly as these.
	P float64 `json:"p"`
}

// fewExpected is the expected count below which the test's approximation is
// poor, by the usual rule of thumb (Cochran 1954).
const fewExpected = 5

// judge counts, tests and writes down what is not as it should be.
func (c *check) judge() {
	r := c.result
	c.count()
	c.judgeRules()
	c.judgeAnswers()
	if r.Rules.AffinitySeconds > 0 {
		c.judgeAffinity()
	} else {
		c.judgeSpread()
	}
	c.judgeSources()
	r.OK = len(r.Findings) == 0
}

func (c *check) find(format string, args ...any) {
	c.result.Findings = append(c.result.Findings, fmt.Sprintf(format, args...))
}

func (c *check) note(format string, args ...any) {
	c.result.Notes = append(c.result.Notes, fmt.Sprintf(format, args...))
}

// count sums up the connections.
func (c *check) count() {
	r := c.result
	got, failed, sources := map[netip.AddrPort]int{}, map[string]int{}, map[netip.Addr]int{}
	for _, x := range c.conns {
		r.Tried++
		if x.failure != "" {
			failed[x.failure]++
			continue
		}
		r.Answered++
		got[x.endpoint]++
		if x.source.IsValid() {
			sources[x.source]++
		}
	}
	chances := map[netip.AddrPort]float64{}
	for _, s := range r.Rules.Shares {
		chances[s.Endpoint] += s.Probability
		got[s.Endpoint] += 0
	}
	for e, n := range got {
		if e.IsValid() {
			r.Endpoints = append(r.Endpoints, EndpointCount{
				EndpointView: *who(c.st.Snapshot, e), Connections: n, Probability: chances[e], Expected: chances[e] * float64(r.Answered),
			})
		}
	}
	slices.SortFunc(r.Endpoints, func(a, b EndpointCount) int { return a.Address.Compare(b.Address) })
	for _, reason := range ordered.Keys(failed) {
		r.Failures = append(r.Failures, FailureCount{reason, failed[reason]})
	}
	for a, n := range sources {
		r.Sources = append(r.Sources, SourceCount{a, n})
	}
	slices.SortFunc(r.Sources, func(a, b SourceCount) int { return cmp.Or(b.Connections-a.Connections, a.Address.Compare(b.Address)) })
}

// judgeRules holds the rules against what the service asks for.
func (c *check) judgeRules() {
	r := c.result
	if r.Rules.Unknown > 0 {
		c.find("the rules on %s have one that is not understood, so that nothing can be expected: %s", r.Rules.Node, r.Rules.Rule)
		return
	}
	if len(r.Wanted) == 0 {
		if len(r.Rules.Shares) > 0 {
			c.find("the service has no endpoint for this way, but the rules on %s lead to %d", r.Rules.Node, len(r.Rules.Shares))
		}
		return
	}
	if certain := r.Rules.certain(); certain != "" {
		c.find("the service has %d endpoints for this way, but by the rules on %s every connection is %s", len(r.Wanted), r.Rules.Node, certain)
		return
	}
	fair := 1 / float64(len(r.Wanted))
	var uneven []string
	for _, e := range r.Endpoints {
		switch wanted := slices.Contains(r.Wanted, e.Address); {
		case !wanted && e.Probability > 0:
			c.find("the rules on %s lead to %s, which is no endpoint of the service for this way", r.Rules.Node, e.EndpointView.said())
		case wanted && !nearly(e.Probability, fair):
			uneven = append(uneven, fmt.Sprintf("%s to %s", Fraction(e.Probability), e.Address))
		}
	}
	for _, w := range r.Wanted {
		if !slices.ContainsFunc(r.Endpoints, func(e EndpointCount) bool { return e.Address == w }) {
			uneven = append(uneven, fmt.Sprintf("nothing to %s", w))
		}
	}
	if len(uneven) > 0 {
		c.find("the rules on %s do not give each of the %d endpoints %s of the connections: they give %s", r.Rules.Node, len(r.Wanted), Fraction(fair), strings.Join(uneven, ", "))
	}
	if lost := r.Rules.Passed + r.Rules.Refused + r.Rules.Dropped; lost > 0 {
		c.find("by the rules on %s a connection reaches no endpoint with a probability of %s", r.Rules.Node, Fraction(lost))
	}
}

// judgeAnswers wants an answer where the rules lead to endpoints, and none where
// they do not.
func (c *check) judgeAnswers() {
	r := c.result
	unknown := 0
	for _, x := range c.conns {
		if x.failure == "" && !x.endpoint.IsValid() {
			unknown++
		}
	}
	if unknown > 0 {
		c.find("%d connections were answered, and neither the answer nor connection tracking on %s says by whom", unknown, r.Rules.Node)
	}
	for _, e := range r.Endpoints {
		if e.Connections > 0 && e.Probability == 0 && r.Rules.Unknown == 0 {
			c.find("%d connections were answered by %s, to which no rule on %s leads", e.Connections, e.EndpointView.said(), r.Rules.Node)
		}
	}
	expected := map[string]string{"refused": "refused", "dropped": "no answer"}[r.Rules.certain()]
	for _, f := range r.Failures {
		switch {
		case expected != "" && strings.HasPrefix(f.Reason, expected):
			c.note("%d connections: %s, as the rules on %s have it", f.Connections, f.Reason, r.Rules.Node)
		default:
			c.find("%d of %d connections were not answered: %s", f.Connections, r.Tried, f.Reason)
		}
	}
	if r.Tried < r.Asked && expected == "" {
		c.find("only %d of %d connections were tried: too many failed, or time was over", r.Tried, r.Asked)
	}
}

// judgeAffinity wants one endpoint for the client.
func (c *check) judgeAffinity() {
	r := c.result
	var reached []string
	for _, e := range r.Endpoints {
		if e.Connections > 0 {
			reached = append(reached, fmt.Sprintf("%s (%d)", e.Address, e.Connections))
		}
	}
	if len(reached) > 1 {
		c.find("with session affinity all connections of one client go to one endpoint, but these went to %s", strings.Join(reached, ", "))
	}
	switch {
	case !c.service.AffinityClientIP:
		c.find("the rules on %s remember clients, though the service has no session affinity", r.Rules.Node)
	case c.service.AffinitySeconds != r.Rules.AffinitySeconds:
		c.find("the rules on %s remember a client for %d s, the service says %d s", r.Rules.Node, r.Rules.AffinitySeconds, c.service.AffinitySeconds)
	default:
		c.note("session affinity: %s remembers this client's endpoint for %d s after each connection; the shares are those of new clients", r.Rules.Node, r.Rules.AffinitySeconds)
	}
}

// judgeSpread tests the counts against the rules.
func (c *check) judgeSpread() {
	r := c.result
	if c.service.AffinityClientIP && len(r.Wanted) > 1 {
		c.find("the service has session affinity, but the rules on %s do not remember clients", r.Rules.Node)
	}
	var got, want []float64
	few := false
	for _, e := range r.Endpoints {
		if e.Probability > 0 {
			got, want = append(got, float64(e.Connections)), append(want, e.Expected)
			few = few || e.Expected < fewExpected
		}
	}
	if len(got) < 2 || r.Answered == 0 {
		return
	}
	x := &ChiSquare{Statistic: stat.ChiSquare(got, want), Freedom: len(got) - 1}
	x.P = distuv.ChiSquared{K: float64(x.Freedom)}.Survival(x.Statistic)
	r.ChiSquare = x
	if few {
		c.note("fewer than %d connections are expected at some endpoint: the test says little, open more (--count)", fewExpected)
	}
	if x.P < Significance {
		c.find("the connections are not spread as the rules on %s have it (p = %.2g, less than %g)", r.Rules.Node, x.P, Significance)
	}
}

// judgeSources wants the source addresses that the rules make.
func (c *check) judgeSources() {
	r := c.result
	masked := map[netip.AddrPort]bool{}
	for _, s := range r.Rules.Shares {
		masked[s.Endpoint] = s.Masqueraded
	}
	wrong, kept, lost := map[netip.Addr]int{}, 0, 0
	for _, x := range c.conns {
		if !x.source.IsValid() {
			continue
		}
		if x.source == r.Client {
			kept++
		} else {
			lost++
		}
		m, ok := masked[x.endpoint]
		if ok && (m && !c.step.local(x.source) || !m && x.source != r.Client) {
			wrong[x.source]++
		}
	}
	for a, n := range wrong {
		c.find("%d connections came to their endpoint from %s, which is not what the rules on %s make of %s", n, a, r.Rules.Node, r.Client)
	}
	if c.service.ExternalPolicyLocal && c.o.Via != ViaClusterIP && lost > 0 && c.outside() {
		c.find("externalTrafficPolicy is Local, but %d connections lost their source address", lost)
	}
	switch {
	case kept > 0 && lost == 0:
		c.note("the endpoints saw the client's own address, %s", r.Client)
	case kept == 0 && lost > 0:
		c.note("the endpoints saw an address of %s instead of the client's (masquerade)", r.Rules.Node)
	}
}

// outside reports whether the client is no part of the cluster.
func (c *check) outside() bool {
	return !c.st.Snapshot.Network.PodCIDR.Contains(c.result.Client) && !c.step.local(c.result.Client)
}
