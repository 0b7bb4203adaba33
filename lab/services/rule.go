package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath/kubeproxy"
)

// ruleContext is what is known of a rule beside its text.
type ruleContext struct {
	entry  bool              // stands in a chain of many services: what it matches is shown elsewhere
	branch *kubeproxy.Branch // of a chain that shares traffic out
	shared bool              // the branch is one of the endpoints between which chance decides
}

// rule takes a rule apart.
func (k *looker) rule(r kubeproxy.Rule, c ruleContext) RuleView {
	v := RuleView{Text: r.Raw, Does: does(r.Target), Unknown: !known(r)}
	if r.Counters != nil {
		packets, bytes := r.Counters.Packets, r.Counters.Bytes
		v.Packets, v.Bytes = &packets, &bytes
	}
	if r.Target.Chain && v.Does == "jump" {
		v.Target = r.Target.Name
	}
	if !c.entry {
		v.conditions(r)
	}
	v.affinity(r)
	switch {
	case v.Does == "dnat":
		v.Endpoint = k.endpoint(r)
	case roleOf(v.Target) == RoleEndpoint:
		for _, inner := range rulesOf(k.nat, v.Target) {
			if does(inner.Target) == "dnat" {
				v.Endpoint = k.endpoint(inner)
			}
		}
	}
	if b := c.branch; b != nil && c.shared && !b.Unknown {
		if b.Affinity {
			v.affinityOnly = true
		} else {
			own, effective := chance(r), b.Probability
			v.Own, v.Effective, v.balanced = &own, &effective, true
		}
	}
	return v
}

// endpoint reads where a rule translates to.
func (k *looker) endpoint(r kubeproxy.Rule) *EndpointView {
	for _, o := range r.Target.Options {
		if o.Name != "--to-destination" {
			continue
		}
		if a, err := netip.ParseAddrPort(o.Value()); err == nil {
			return who(k.snapshot, a)
		}
	}
	return nil
}

// does names what a target does.
func does(t kubeproxy.Target) string {
	switch {
	case t.Name == "":
		return "none"
	case t.Name == chainMark:
		return "mark"
	case t.Chain:
		return "jump"
	default:
		return strings.ToLower(t.Name)
	}
}

func known(r kubeproxy.Rule) bool {
	return r.Target.Known && !slices.ContainsFunc(r.Matches, func(m kubeproxy.Match) bool { return !m.Known })
}

// chance is the probability of the rule's statistic matches, 1 without any.
func chance(r kubeproxy.Rule) float64 {
	p := 1.0
	for _, m := range r.Matches {
		if o, ok := m.Option("--probability"); ok && m.Name == "statistic" {
			if v, err := strconv.ParseFloat(o.Value(), 64); err == nil {
				p *= v
			}
		}
	}
	return p
}

// others are the conditions but that of the destination.
func (v *RuleView) others() []string {
	return slices.DeleteFunc(slices.Clone(v.When), func(s string) bool { return s == "to "+v.onlyTo })
}

// conditions says in words what a rule asks for. Protocol and port are left
// out: whoever comes to a service's chains has fulfilled them.
func (v *RuleView) conditions(r kubeproxy.Rule) {
	for _, o := range r.Header {
		from := strings.TrimSuffix(o.Value(), "/32")
		switch {
		case o.Name == "-d" && !o.Not:
			v.When, v.onlyTo = append(v.When, "to "+from), from
		case o.Name == "-s" && o.Not:
			v.When = append(v.When, "not from "+from)
			v.onlySource, v.notSource = from, true
		case o.Name == "-s":
			v.When = append(v.When, "from "+from)
			v.onlySource = from
		case o.Name == "-i" || o.Name == "-o" || o.Name == "-f":
			v.When = append(v.When, words(o))
		}
	}
	for _, m := range r.Matches {
		v.match(m)
	}
}

func (v *RuleView) match(m kubeproxy.Match) {
	switch m.Name {
	case "comment", "statistic", "tcp", "udp", "sctp", "recent":
		return
	case "addrtype":
		if o, ok := m.Option("--src-type"); ok && o.Value() == "LOCAL" && !o.Not && len(m.Options) == 1 {
			v.When, v.fromNode = append(v.When, "from the node itself"), true
			return
		}
	case "mark":
		if o, ok := m.Option("--mark"); ok && len(m.Options) == 1 {
			said := "marked " + o.Value()
			if o.Not {
				said = "not " + said
			}
			v.When = append(v.When, said)
			return
		}
	}
	for _, o := range m.Options {
		v.When = append(v.When, m.Name+" "+words(o))
	}
}

// words spells an option as the rule does.
func words(o kubeproxy.Option) string {
	said := strings.Join(append([]string{o.Name}, o.Values...), " ")
	if o.Not {
		return "! " + said
	}
	return said
}

// affinity reads what xt_recent is asked for.
func (v *RuleView) affinity(r kubeproxy.Rule) {
	for _, m := range r.Matches {
		if m.Name != "recent" {
			continue
		}
		if _, ok := m.Option("--set"); ok {
			v.Remembers = true
		}
		if _, ok := m.Option("--rcheck"); !ok {
			continue
		}
		said := "if remembered"
		if o, ok := m.Option("--seconds"); ok {
			v.AffinitySeconds, _ = strconv.Atoi(o.Value())
			said = fmt.Sprintf("if seen within %d s", v.AffinitySeconds)
		}
		v.When = append(v.When, said)
	}
}
