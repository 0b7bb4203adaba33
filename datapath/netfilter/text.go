package netfilter

// Text returns a rule as iptables-save shows it, or as nft takes it, by its number in the chain,
// from 1; number 0 is the chain's policy, "policy DROP". It is empty if there
// is no such rule.
func (r *Rules) Text(tableName, chainName string, number int) string {
	t := r.tables[tableName]
	if t == nil || t.chains[chainName] == nil {
		return ""
	}
	c := t.chains[chainName]
	switch {
	case number == 0:
		return "policy " + c.policy
	case number < 0 || number > len(c.lines)+len(c.nft):
		return ""
	case c.nft != nil:
		return c.nft[number-1].String()
	}
	return c.lines[number-1]
}
