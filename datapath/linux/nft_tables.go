package linux

import (
	"context"
	"fmt"
	"slices"

	"slipway/datapath"
	"slipway/datapath/nft"
)

// tables compares the nftables table that can be ours with what is wanted, and
// adds the steps to make it so: one transaction.
func (s *steps) tables(st datapath.KernelState) {
	if st.NFTables == nil {
		return
	}
	for _, set := range s.cfg.RuleSets {
		if set.NFT != nil {
			s.wantNFT = set.NFT
		}
	}
	var have *datapath.NFTable
	if i := slices.IndexFunc(st.NFTables, func(t datapath.NFTable) bool { return t.Family == "ip" && t.Name == proxyTable.name }); i >= 0 {
		have = &st.NFTables[i]
	}
	var c tableChange
	switch {
	case have == nil && s.wantNFT == nil, s.wantNFT == nil && !ownsTable(s.cfg):
		return
	case s.wantNFT == nil:
		c = dropTable(have)
	case have == nil:
		c = newTable(s.wantNFT)
	default:
		c = changeTable(have, s.wantNFT)
	}
	for i, x := range c.changes {
		run := func(*Host) error { return nil } // made with the first
		if i == 0 {
			run = func(h *Host) error { return h.loadTable(c.load) }
		}
		s.add(stageTable, x.Action, "rules", x.Command, x.Was, run)
	}
}

// tableChange is what has to be done about a table.
type tableChange struct {
	changes []datapath.Change // to be told
	load    []operation       // to be done, in this order
}

func (c *tableChange) tell(action datapath.ChangeAction, was, format string, args ...any) {
	c.changes = append(c.changes, datapath.Change{Action: action, Command: fmt.Sprintf(format, args...), Was: was})
}

func dropTable(t *datapath.NFTable) (c tableChange) {
	c.tell(datapath.Remove, "", "nft delete table %s %s", t.Family, t.Name)
	c.load = []operation{{verb: del, table: t}}
	return c
}

// newTable makes the whole table; what there is of it goes first.
func newTable(t *datapath.NFTable) (c tableChange) {
	c.tell(datapath.Add, "", "nft add table %s %s # %d chains, %d sets and maps, %d rules and elements", t.Family, t.Name, len(t.Chains), len(t.Sets), t.Size())
	c.load = []operation{{verb: add, table: t}, {verb: del, table: t}, {verb: add, table: t}}
	for i := range t.Chains {
		c.load = append(c.load, operation{verb: add, table: t, chain: &t.Chains[i]})
	}
	for i := range t.Sets {
		c.load = append(c.load, operation{verb: add, table: t, set: &t.Sets[i]})
	}
	for i := range t.Sets {
		for k := range t.Sets[i].Elements {
			c.load = append(c.load, operation{verb: add, table: t, set: &t.Sets[i], element: &t.Sets[i].Elements[k]})
		}
	}
	for i := range t.Chains {
		for k := range t.Chains[i].Rules {
			c.load = append(c.load, operation{verb: add, table: t, chain: &t.Chains[i], rule: &t.Chains[i].Rules[k]})
		}
	}
	return c
}

// comparison is of one table as it is and as it shall be.
type comparison struct {
	tableChange
	have, want *datapath.NFTable
	// The load's parts, in order: nothing is referred to before it is there or
	// after it is gone.
	makes, empties, fills, drops []operation
	rebuild                      bool
}

// changeTable finds what differs. Where a chain's hook or a set's type does, the
// table is made anew, in the same transaction.
func changeTable(have, want *datapath.NFTable) tableChange {
	c := comparison{have: have, want: want}
	c.chains()
	c.sets()
	if c.rebuild {
		load := newTable(want).load
		return tableChange{changes: c.changes, load: load}
	}
	c.load = slices.Concat(c.makes, c.empties, c.fills, c.drops)
	return c.tableChange
}

func (c *comparison) of(name string) string {
	return c.want.Family + " " + c.want.Name + " " + name
}

func (c *comparison) chains() {
	have := make(map[string]*datapath.NFChain, len(c.have.Chains))
	for i := range c.have.Chains {
		have[c.have.Chains[i].Name] = &c.have.Chains[i]
	}
	for i := range c.want.Chains {
		w := &c.want.Chains[i]
		h := have[w.Name]
		delete(have, w.Name)
		switch {
		case h == nil:
			c.tell(datapath.Add, "", "nft add chain %s # %d rules", c.of(w.Name), len(w.Rules))
			c.makes = append(c.makes, operation{verb: add, table: c.want, chain: w})
			c.fill(w)
		case h.Type != w.Type || h.Hook != w.Hook || h.Priority != w.Priority || policy(h) != policy(w):
			c.tell(datapath.Update, fmt.Sprintf("type %s hook %s priority %d policy %s", h.Type, h.Hook, h.Priority, policy(h)), "nft delete chain %s # and add it again", c.of(w.Name))
			c.rebuild = true
		case !c.sameRules(h, w):
			c.empties = append(c.empties, operation{verb: flush, table: c.want, chain: w})
			c.fill(w)
		}
	}
	for i := range c.have.Chains {
		h := &c.have.Chains[i]
		if have[h.Name] == nil {
			continue
		}
		c.tell(datapath.Remove, "", "nft delete chain %s", c.of(h.Name))
		c.empties = append(c.empties, operation{verb: flush, table: c.want, chain: h})
		c.drops = append(c.drops, operation{verb: del, table: c.want, chain: h})
	}
}

func policy(c *datapath.NFChain) string {
	if c.Policy == "" && c.Base() {
		return "accept"
	}
	return c.Policy
}

func (c *comparison) fill(w *datapath.NFChain) {
	for k := range w.Rules {
		c.fills = append(c.fills, operation{verb: add, table: c.want, chain: w, rule: &w.Rules[k]})
	}
}

// sameRules compares a chain's rules and tells of the first that differs.
func (c *comparison) sameRules(h, w *datapath.NFChain) bool {
	for i := range max(len(h.Rules), len(w.Rules)) {
		switch {
		case i >= len(w.Rules):
			c.tell(datapath.Remove, h.Rules[i].String(), "nft delete rule %s # number %d", c.of(w.Name), i+1)
		case i >= len(h.Rules):
			c.tell(datapath.Add, "", "nft add rule %s %s", c.of(w.Name), w.Rules[i])
		case h.Rules[i] != w.Rules[i] && (h.Rules[i].Comment != w.Rules[i].Comment || !nft.Same(h.Rules[i].Text, w.Rules[i].Text)):
			c.tell(datapath.Update, h.Rules[i].String(), "nft replace rule %s %s # number %d", c.of(w.Name), w.Rules[i], i+1)
		default:
			continue
		}
		return false
	}
	return true
}

func (c *comparison) sets() {
	have := make(map[string]*datapath.NFSet, len(c.have.Sets))
	for i := range c.have.Sets {
		have[c.have.Sets[i].Name] = &c.have.Sets[i]
	}
	for i := range c.want.Sets {
		w := &c.want.Sets[i]
		h := have[w.Name]
		delete(have, w.Name)
		switch {
		case h == nil:
			c.tell(datapath.Add, "", "nft add set %s # %d elements", c.of(w.Name), len(w.Elements))
			c.makes = append(c.makes, operation{verb: add, table: c.want, set: w})
			h = &datapath.NFSet{}
		case h.Type != w.Type || h.Value != w.Value || h.Timeout != w.Timeout || h.Dynamic != w.Dynamic:
			c.tell(datapath.Update, "", "nft delete set %s # and add it again", c.of(w.Name))
			c.rebuild = true
			continue
		}
		if !w.Dynamic {
			c.elements(h, w)
		}
	}
	for i := range c.have.Sets {
		h := &c.have.Sets[i]
		if have[h.Name] == nil {
			continue
		}
		c.tell(datapath.Remove, "", "nft delete set %s", c.of(h.Name))
		c.drops = append(c.drops, operation{verb: del, table: c.want, set: h})
	}
}

// elements compares a set's or map's. An element of another value is deleted
// before it is added.
func (c *comparison) elements(h, w *datapath.NFSet) {
	have := make(map[string]*datapath.NFElement, len(h.Elements))
	for i := range h.Elements {
		have[h.Elements[i].Key] = &h.Elements[i]
	}
	fresh := len(h.Elements) == 0 && h.Name == "" // told with the set
	for i := range w.Elements {
		e := &w.Elements[i]
		is := have[e.Key]
		delete(have, e.Key)
		switch {
		case is == nil && !fresh:
			c.tell(datapath.Add, "", "nft add element %s { %s }", c.of(w.Name), e)
		case is != nil && *is == *e:
			continue
		case is != nil:
			c.tell(datapath.Update, is.String(), "nft add element %s { %s }", c.of(w.Name), e)
			c.empties = append(c.empties, operation{verb: del, table: c.want, set: h, element: is})
		}
		c.fills = append(c.fills, operation{verb: add, table: c.want, set: w, element: e})
	}
	for i := range h.Elements {
		e := &h.Elements[i]
		if have[e.Key] == nil {
			continue
		}
		c.tell(datapath.Remove, e.String(), "nft delete element %s { %s }", c.of(w.Name), e.Key)
		c.empties = append(c.empties, operation{verb: del, table: c.want, set: h, element: e})
	}
}

// loadedTables are the tables after a transaction: what was wanted, if that was
// the only change to nftables since they were read, which its generation says;
// else they are read again.
func (h *Host) loadedTables(ctx context.Context, want *datapath.NFTable) ([]datapath.NFTable, error) {
	if h.nftSeen == 0 {
		return h.readTables(ctx)
	}
	if want == nil {
		return []datapath.NFTable{}, nil
	}
	return []datapath.NFTable{*want}, nil
}
