package services

import (
	"fmt"
	"slices"
	"strings"
)

// refusals say what table filter does about the port.
func (x *explainer) refusals() []string {
	var out []string
	for _, r := range x.p.Refusals {
		where := r.where()
		switch {
		case r.Rule.Does == "accept":
			out = append(out, fmt.Sprintf("The health check at node port %d is let in (%s): a load balancer asks there whether this node has an endpoint.", r.Port, r.In))
		case r.Rule.Does == "reject":
			out = append(out, fmt.Sprintf("The %s has no endpoint anywhere, so table nat has no rule for it, and %s in table filter rejects it: the client hears at once (ICMP port unreachable, which TCP reports as connection refused). The kernel sends one host six such messages at once and then one in a second (icmp_ratelimit); further packets are dropped in silence.", where, r.In))
		case r.Rule.Does == "drop" && r.In == chainFirewall:
			out = append(out, fmt.Sprintf("What went to the %s from a source that is not allowed was not translated, and %s drops it.", where, r.In))
		case r.Rule.Does == "drop":
			policy, who := "externalTrafficPolicy", "a client from outside"
			if r.Via == ViaClusterIP {
				policy, who = "internalTrafficPolicy", "the client"
			}
			out = append(out, fmt.Sprintf("The %s has no endpoint on this node and %s: Local, so %s in table filter drops it: %s waits in vain. Through a node with an endpoint it works.", where, policy, r.In, who))
		default:
			out = append(out, fmt.Sprintf("%s in table filter: %s.", r.In, r.Rule.brief()))
		}
	}
	if len(out) > 0 && len(x.p.Entries) == 0 {
		out = append(out, "No rule of table nat is about this port: nothing is ever translated here.")
	}
	return out
}

// balancing are the chains that share out, without those that show the same.
func (x *explainer) balancing() []*ChainView {
	var out []*ChainView
	for i := range x.p.Chains {
		c := &x.p.Chains[i]
		if (c.Role == RoleCluster || c.Role == RoleLocal) && len(c.endpoints()) > 0 {
			out = append(out, c)
		}
	}
	return out
}

// choice says how chance works, rule by rule.
func (x *explainer) choice() []string {
	var out []string
	for _, c := range x.balancing() {
		rules := c.endpoints()
		if len(rules) == 1 {
			continue
		}
		out = append(out, fmt.Sprintf("The rules of %s are tried in order. Each is a toss for whatever is left by those before it:", c.Name))
		left := 1.0
		for i, r := range rules {
			if r.Own == nil {
				out = append(out, fmt.Sprintf("Rule %d, to %s: %s, which chance alone does not decide.", i+1, r.Endpoint.said(), strings.Join(r.When, " and ")))
				continue
			}
			out = append(out, tossed(i, len(rules), left, r))
			left -= *r.Effective
		}
		out = append(out, x.fairness(rules))
	}
	if len(out) > 0 {
		out = append(out, "Each connection is tossed anew and without memory: three connections need not reach three endpoints; the shares show over many.")
	}
	return out
}

// tossed says one rule's own and effective probability.
func tossed(i, n int, left float64, r RuleView) string {
	own, effective := Fraction(*r.Own), Fraction(*r.Effective)
	switch {
	case *r.Own == 1 && i == n-1:
		return fmt.Sprintf("Rule %d, to %s, has no probability: it takes all that is left, which is %s of the connections. A probability here would let some fall through, untranslated.", i+1, r.Endpoint.said(), effective)
	case i == 0:
		return fmt.Sprintf("Rule 1, to %s, takes %s.", r.Endpoint.said(), own)
	default:
		return fmt.Sprintf("Rule %d, to %s, takes %s of the %s that is left, which is %s of all.", i+1, r.Endpoint.said(), own, Fraction(left), effective)
	}
}

// fairness says whether the shares are equal, as kube-proxy makes them.
func (x *explainer) fairness(rules []RuleView) string {
	sum, equal := 0.0, true
	for _, r := range rules {
		if r.Effective == nil {
			return "So the shares cannot be told from the rules alone."
		}
		sum += *r.Effective
		equal = equal && nearly(*r.Effective, 1/float64(len(rules)))
	}
	switch {
	case equal:
		return fmt.Sprintf("So each endpoint gets %s of the new connections.", Fraction(1/float64(len(rules))))
	case !nearly(sum, 1):
		return fmt.Sprintf("Together that is %s: the rest falls through and is not translated. These are not rules that kube-proxy writes.", Fraction(sum))
	default:
		return "So the endpoints' shares are NOT equal: these are not rules that kube-proxy writes."
	}
}

// nearly compares probabilities, of which the kernel keeps 31 bits.
func nearly(a, b float64) bool { return a-b < 1e-6 && b-a < 1e-6 }

func (x *explainer) affinity() []string {
	for _, c := range x.balancing() {
		for _, r := range c.Rules {
			if !r.affinityOnly {
				continue
			}
			return []string{
				fmt.Sprintf("Before the tosses %s asks for each endpoint whether this client's address was sent there within the last %d seconds (xt_recent, list %s and so on, sessionAffinity: ClientIP). If so it goes there again.", c.Name, r.AffinitySeconds, r.Target),
				"The endpoint's chain writes the client down each time, so the time begins anew with every connection. The address is the one that this node sees: clients behind one NAT count as one.",
				"Every node remembers for itself: through another node the same client may reach another endpoint.",
			}
		}
	}
	return nil
}

// endpoint says what a KUBE-SEP chain does.
func (x *explainer) endpoint() []string {
	i := slices.IndexFunc(x.p.Chains, func(c ChainView) bool { return c.Role == RoleEndpoint })
	if i < 0 {
		return nil
	}
	var out []string
	for _, r := range x.p.Chains[i].Rules {
		switch r.Does {
		case "mark":
			out = append(out, fmt.Sprintf("If the endpoint itself is the client (as %s in %s), the packet is marked for masquerade. Otherwise the pod would get a packet from its own address and answer itself directly, past the translation (hairpin).", r.onlySource, x.p.Chains[i].Name))
		case "dnat":
			said := "The destination is rewritten (DNAT) to the endpoint's address and port"
			if r.Remembers {
				said = "The client's address is written down for the affinity, and the destination is rewritten (DNAT) to the endpoint's address and port"
			}
			out = append(out, said+", and the packet is routed anew: to a pod on this node or through the pod network to another one.")
		}
	}
	return out
}

// masquerade says when the client's address is replaced.
func (x *explainer) masquerade() []string {
	var marks, keeps []string
	for _, c := range x.p.Chains {
		for _, r := range c.Rules {
			switch {
			case r.Does == "mark" && c.Role == RoleExternal && len(r.When) == 0:
				marks = append(marks, "whatever comes to a node port or an address from outside, from anywhere (externalTrafficPolicy: Cluster)")
			case r.Does == "mark" && c.Role == RoleExternal && r.fromNode:
				marks = append(marks, "what the node itself sends to such an address")
			case r.Does == "mark" && r.notSource:
				marks = append(marks, "what is sent to the cluster IP from outside the pod network "+r.onlySource+", the nodes included")
			case r.Does == "mark" && c.Role != RoleEndpoint && len(r.When) == 0:
				marks = append(marks, "everything in "+c.Name)
			case c.Role == RoleExternal && roleOf(r.Target) == RoleLocal:
				keeps = append(keeps, "a client from outside keeps its address at the endpoints of this node (externalTrafficPolicy: Local)")
			}
		}
	}
	if len(x.p.Chains) == 0 {
		return nil
	}
	marks = append(marks, "a pod that reaches itself")
	out := []string{"Marked packets get this node's address as their source when they leave it (KUBE-POSTROUTING, MASQUERADE): the endpoint then sees the node and not the client. Marked are here: " + strings.Join(slices.Compact(marks), "; ") + "."}
	if len(keeps) > 0 {
		out = append(out, begin("", keeps[0])+".")
	}
	if x.podsKeep() {
		out = append(out, "A pod that asks the cluster IP keeps its address.")
	}
	return out
}

// podsKeep reports whether the cluster IP leaves a pod's address alone.
func (x *explainer) podsKeep() bool {
	for _, e := range x.p.Entries {
		c := x.p.Chain(e.Rule.Target)
		if e.Via != ViaClusterIP || c == nil {
			continue
		}
		return !slices.ContainsFunc(c.Rules, func(r RuleView) bool { return r.Does == "mark" && !r.notSource })
	}
	return false
}
