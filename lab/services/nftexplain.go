package services

import (
	"fmt"
	"slices"
	"strings"
)

// nftExplainer says one port's rules, of kube-proxy's nftables mode.
type nftExplainer struct {
	p    *PortView
	node string
}

func (x *nftExplainer) sections() []Section {
	parts := []Section{}
	add := func(title string, steps []string) {
		if len(steps) > 0 {
			parts = append(parts, Section{Title: title, Steps: steps})
		}
	}
	add("Where it begins", x.beginning())
	for i := range x.p.Entries {
		add("To "+x.p.Entries[i].sentence(), x.entry(&x.p.Entries[i]))
	}
	add("What is refused", x.refusals())
	add("How an endpoint is chosen", x.choice())
	add("Session affinity", x.affinity())
	add("When the client's address is lost", x.masquerade())
	return parts
}

func (x *nftExplainer) beginning() []string {
	if len(x.p.Entries) == 0 {
		return nil
	}
	return []string{
		fmt.Sprintf("No device and no process has the service's address: it exists only in the table ip kube-proxy of every node. A packet meets it on the node that it comes to first: in chain nat-prerouting if it comes from a pod of %s or from outside, in nat-output if a process of the node itself sends it. Both go to the chain services.", x.node),
		"There one rule looks destination address, protocol and port up in the map service-ips, and one the port in service-nodeports. What is found is the chain to go on in: one lookup, however many services there are.",
		"Only the first packet of a connection goes through this. Connection tracking (conntrack) writes down what was decided, does the same to every later packet, and puts the service's address back into the answers.",
	}
}

func (x *nftExplainer) entry(e *Entry) []string {
	if e.Rule.Does != "jump" {
		return []string{fmt.Sprintf("%s: %s.", e.In, e.Rule.brief())}
	}
	c := x.p.Chain(e.Rule.Target)
	said := fmt.Sprintf("The element of %s for it leads to %s.", e.In, e.Rule.Target)
	if e.Via == ViaNodePort {
		said = fmt.Sprintf("If the packet goes to an address in the set nodeport-ips, or to any address of the node where there is no such set, the element of %s for port %d leads to %s.", e.In, e.Port, e.Rule.Target)
	}
	if c == nil {
		return []string{said, fmt.Sprintf("There is no chain %s: nothing is translated.", e.Rule.Target)}
	}
	return append([]string{said}, x.way(c)...)
}

// way says what a chain does before an endpoint is chosen.
func (x *nftExplainer) way(c *ChainView) []string {
	if c.Role == RoleCluster || c.Role == RoleLocal {
		return []string{x.spread(c)}
	}
	var out []string
	for _, r := range c.Rules {
		when := r.sentence(c)
		switch r.Does {
		case "mark":
			why := ""
			if len(r.When) == 0 {
				why = ": the endpoint may be on another node, and its answer has to come back through this one, which alone can put the service's address back"
			}
			out = append(out, begin(when, "the packet is marked for masquerade"+why+"."))
		case "jump":
			out = append(out, begin(when, "it goes to "+x.destination(c, r)+"."))
			if next := x.p.Chain(r.Target); next != nil && len(r.When) == 0 {
				out = append(out, x.way(next)...)
			}
		default:
			out = append(out, begin(when, r.brief()+" ("+r.Text+")."))
		}
	}
	return out
}

func (x *nftExplainer) destination(c *ChainView, r RuleView) string {
	switch {
	case roleOf(r.Target) == RoleCluster && c.Role == RoleExternal && len(r.When) > 0:
		return r.Target + ", which knows all endpoints: it is not held to the policy Local"
	case roleOf(r.Target) == RoleCluster:
		return r.Target + ", which knows all endpoints"
	case roleOf(r.Target) == RoleLocal:
		return r.Target + ", which knows the endpoints on this node only (externalTrafficPolicy: Local). It was not marked, so the endpoint sees the client's own address"
	}
	return r.Target
}

// ends are the choices of a chain.
func ends(c *ChainView) []RuleView {
	var out []RuleView
	for _, r := range c.Rules {
		if r.balanced && r.Endpoint != nil {
			out = append(out, r)
		}
	}
	return out
}

func (x *nftExplainer) spread(c *ChainView) string {
	whose := "all endpoints"
	if c.Role == RoleLocal {
		whose = "the endpoints on this node only (policy Local)"
	}
	switch list := ends(c); len(list) {
	case 0:
		return fmt.Sprintf("%s, for %s, leads to none.", c.Name, whose)
	case 1:
		return fmt.Sprintf("%s, for %s, has a single one: %s.", c.Name, whose, list[0].Endpoint.said())
	default:
		return fmt.Sprintf("%s, for %s, chooses one of %d.", c.Name, whose, len(list))
	}
}

func (x *nftExplainer) refusals() []string {
	var out []string
	for i := range x.p.Refusals {
		r := &x.p.Refusals[i]
		switch {
		case r.In == mapFirewall:
			out = append(out, fmt.Sprintf("Before it is translated (filter-prerouting-pre-dnat and filter-output-pre-dnat), what goes to the %s is dropped if it is %s.", r.where(), strings.Join(r.Rule.When, " and ")))
		case r.Rule.Does == "reject":
			out = append(out, fmt.Sprintf("The %s has no endpoint anywhere: no map translates it, and the chain that its element of %s leads to rejects it: the client hears at once (ICMP port unreachable, which TCP reports as connection refused). The kernel sends one host six such messages at once and then one in a second (icmp_ratelimit); further packets are dropped in silence.", r.where(), r.In))
		case r.Rule.Does == "drop":
			policy, who := "externalTrafficPolicy", "a client from outside"
			if r.Via == ViaClusterIP {
				policy, who = "internalTrafficPolicy", "the client"
			}
			out = append(out, fmt.Sprintf("The %s has no endpoint on this node and %s: Local, so its element of %s drops it: %s waits in vain. Through a node with an endpoint it works.", r.where(), policy, r.In, who))
		default:
			out = append(out, fmt.Sprintf("%s: %s.", r.In, r.Rule.brief()))
		}
	}
	if slices.ContainsFunc(x.p.Entries, func(e Entry) bool { return e.Via == ViaClusterIP }) {
		out = append(out, "What goes to the cluster IP at another port than the service's is rejected, and what goes to an address of the service range that no service has is dropped (chain cluster-ips-check).")
	}
	return out
}

func (x *nftExplainer) choice() []string {
	var out []string
	for i := range x.p.Chains {
		c := &x.p.Chains[i]
		list := ends(c)
		if len(list) < 2 {
			continue
		}
		var said []string
		for k, r := range list {
			said = append(said, fmt.Sprintf("%d is %s", k, r.Endpoint.said()))
		}
		out = append(out,
			fmt.Sprintf("One rule of %s draws a number below %d (numgen random) and looks it up: %s.", c.Name, len(list), strings.Join(said, ", ")),
			fmt.Sprintf("So each endpoint gets %s of the new connections.", Fraction(*list[0].Effective)))
	}
	if len(out) > 0 {
		out = append(out, "Each connection is drawn for anew and without memory: three connections need not reach three endpoints; the shares show over many.")
	}
	return out
}

func (x *nftExplainer) affinity() []string {
	for _, c := range x.p.Chains {
		for _, r := range c.Rules {
			if !r.affinityOnly {
				continue
			}
			return []string{
				fmt.Sprintf("Before a number is drawn %s asks for each endpoint whether this client's address is in the endpoint's set, where it stays for %d seconds (sessionAffinity: ClientIP). If so it goes there again.", c.Name, r.AffinitySeconds),
				"The endpoint's chain adds the client to the set each time (update), so the time begins anew with every connection. The address is the one that this node sees: clients behind one NAT count as one.",
				"Every node remembers for itself: through another node the same client may reach another endpoint.",
			}
		}
	}
	return nil
}

func (x *nftExplainer) masquerade() []string {
	if len(x.p.Chains) == 0 {
		return nil
	}
	var marks []string
	keeps := false
	for _, c := range x.p.Chains {
		for _, r := range c.Rules {
			switch {
			case r.Does == "mark" && len(r.When) == 0:
				marks = append(marks, "whatever comes to a node port or an address from outside, from anywhere (externalTrafficPolicy: Cluster)")
			case r.Does == "mark" && r.fromNode:
				marks = append(marks, "what the node itself sends to such an address")
			case c.Role == RoleExternal && roleOf(r.Target) == RoleLocal:
				keeps = true
			}
		}
	}
	all := false
	for _, r := range x.p.dispatch {
		if r.notSource {
			marks = append(marks, "what is sent to a cluster IP from outside the pod network "+r.onlySource+", the nodes included")
		} else {
			all = true
			marks = append(marks, "everything that is sent to a cluster IP")
		}
	}
	out := []string{}
	if len(marks) > 0 {
		out = append(out, "Marked packets get this node's address as their source when they leave it (chain masquerading): the endpoint then sees the node and not the client. Marked are here: "+strings.Join(slices.Compact(marks), "; ")+".")
	}
	out = append(out, "A pod that reaches itself is masqueraded without a mark: its address and port stand in the set hairpin-connections. Otherwise the pod would get a packet from its own address and answer itself directly, past the translation.")
	if keeps {
		out = append(out, "A client from outside keeps its address at the endpoints of this node (externalTrafficPolicy: Local).")
	}
	if !all && slices.ContainsFunc(x.p.Entries, func(e Entry) bool { return e.Via == ViaClusterIP }) {
		out = append(out, "A pod that asks the cluster IP keeps its address.")
	}
	return out
}
