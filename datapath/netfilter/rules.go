package netfilter

import "slipway/datapath/kubeproxy"

// Rules are rule sets ready to be asked. They may be asked by several goroutines.
type Rules struct{ tables map[string]*table }

// Parse takes what iptables-save printed, by table (NetState.RuleSave). A rule is
// only looked at when a packet comes to its chain.
func Parse(saves map[string]string) (*Rules, error) { return nil, nil }

// Compile prepares a rule set that is already parsed.
func Compile(rs *kubeproxy.Ruleset) *Rules { return nil }

// Eval says what can become of the packet; there is always at least one outcome.
func (r *Rules) Eval(q Query) []Outcome { return nil }

// Eval is [Rules.Eval] of a rule set that is asked only once.
func Eval(rs *kubeproxy.Ruleset, q Query) []Outcome { return Compile(rs).Eval(q) }

type table struct{}
