package services

import (
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath"
	"slipway/datapath/nft"
)

// rules takes a rule apart: one that chooses by chance is as many as it has
// choices.
func (k *nftLooker) rules(r datapath.NFRule) []RuleView {
	v := RuleView{Text: r.String(), Does: "none"}
	for _, s := range nft.Parse(r.Text) {
		switch {
		case s.Unknown != "":
			v.Unknown = true
		case s.Match != nil:
			k.condition(&v, s.Match)
		case s.Mark != nil:
			v.Does = "mark"
		case s.Update != nil:
			v.Does, v.Remembers = "remember", true
		case s.Reject != "":
			v.Does = "reject"
		case s.Verdict != nil:
			v.Does = s.Verdict.Kind
			if s.Verdict.Target != "" {
				v.Does, v.Target = "jump", s.Verdict.Target
				v.Endpoint = k.endpointOf(v.Target)
			}
		case s.NAT != nil && s.NAT.Map != nil:
			return k.choices(v, s.NAT.Map, func(c *RuleView, value string) {
				c.Does, c.Endpoint = s.NAT.Kind, k.endpoint(strings.ReplaceAll(value, " . ", ":"))
			})
		case s.NAT != nil:
			if v.Does = s.NAT.Kind; s.NAT.To != "" {
				v.Endpoint = k.endpoint(s.NAT.To)
			}
		case s.Map != nil && s.Map.Random > 0:
			return k.choices(v, s.Map, func(c *RuleView, value string) {
				_, target, _ := strings.Cut(value, " ")
				c.Does, c.Target, c.Endpoint = "jump", target, k.endpointOf(target)
			})
		case s.Map != nil:
			v.Does = "vmap @" + s.Map.Name
		}
	}
	return []RuleView{v}
}

// choices are what a rule chooses from, each with its chance.
func (k *nftLooker) choices(of RuleView, m *nft.Map, fill func(*RuleView, string)) []RuleView {
	var out []RuleView
	for _, p := range m.Pairs {
		v, chance := of, 1/float64(m.Random)
		fill(&v, p.Value)
		v.Own, v.Effective, v.balanced = &chance, &chance, true
		out = append(out, v)
	}
	return out
}

func (k *nftLooker) endpoint(s string) *EndpointView {
	if a, err := netip.ParseAddrPort(s); err == nil {
		return who(k.snapshot, a)
	}
	return nil
}

// endpointOf is where an endpoint's chain translates to.
func (k *nftLooker) endpointOf(chain string) *EndpointView {
	if roleOf(chain) != RoleEndpoint {
		return nil
	}
	for _, r := range k.rulesOf(chain) {
		for _, s := range nft.Parse(r.Text) {
			if s.NAT != nil {
				return k.endpoint(s.NAT.To)
			}
		}
	}
	return nil
}

// condition says a match in words. Protocol and port are left out: whoever comes
// to a service's chains has fulfilled them.
func (k *nftLooker) condition(v *RuleView, m *nft.Match) {
	field, values := m.Fields[0].Name, strings.Join(m.Values, ", ")
	switch {
	case len(m.Fields) == 1 && field == "meta l4proto":
	case field == "ip saddr" && strings.HasPrefix(m.Set, affinitySets):
		v.affinityOnly = true
		said := "if remembered"
		if s := k.sets[m.Set]; s != nil {
			v.AffinitySeconds = int(s.Timeout.Seconds())
			said = fmt.Sprintf("if seen within %d s", v.AffinitySeconds)
		}
		v.When = append(v.When, said)
	case field == "ip saddr" && m.Set == "" && len(m.Fields) == 1:
		v.onlySource, v.notSource = values, m.Not
		v.When = append(v.When, strings.TrimSpace(map[bool]string{true: "not "}[m.Not]+"from "+values))
	case field == "fib saddr type" && values == "local" && !m.Not:
		v.When, v.fromNode = append(v.When, "from the node itself"), true
	case field == "mark" && m.Not && values == "0":
		v.When = append(v.When, fmt.Sprintf("marked %#x", m.Fields[0].Mask))
	default:
		v.When = append(v.When, spelled(m))
	}
}

// spelled spells a match as the rule does.
func spelled(m *nft.Match) string {
	var names []string
	for _, f := range m.Fields {
		names = append(names, f.Name)
	}
	out := strings.Join(names, " . ")
	if m.Not {
		out += " !="
	}
	if m.Set != "" {
		return out + " @" + m.Set
	}
	return out + " " + strings.Join(m.Values, ", ")
}
