package observe

import (
	"strings"

	"slipway/datapath/nft"
	"slipway/datapath/trace"
)

// nftEffect says what a rule of nftables did, for people: what it changed,
// rejected or translated, or else the verdict that it came to.
func nftEffect(rule, verdict string) string {
	text, _, _ := strings.Cut(rule, " comment \"")
	out := verdict
	for _, s := range nft.Parse(text) {
		switch {
		case s.NAT != nil:
			return s.NAT.Kind
		case s.Reject != "":
			return "reject " + s.Reject
		case s.Mark != nil:
			out = "mark"
		}
	}
	if out == "" || out == "continue" || out == "break" {
		return "counted"
	}
	return out
}

// targetOf is a hit's target as iptables calls it, whichever told it.
func targetOf(h trace.Hit) string {
	if strings.HasPrefix(h.Rule, "-A ") || strings.HasPrefix(h.Rule, "policy ") {
		t, _ := target(h.Rule)
		return t
	}
	kind, _, _ := strings.Cut(h.Effect, " ")
	return strings.ToUpper(kind)
}
