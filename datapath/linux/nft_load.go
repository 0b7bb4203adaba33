package linux

import (
	"context"
	"fmt"
	"strings"

	"sigs.k8s.io/knftables"

	"slipway/datapath"
)

type verb int

const (
	add verb = iota
	del
	flush
)

// operation is one command of a transaction: on an element of a set, a set, a
// rule of a chain, a chain, or the table.
type operation struct {
	verb    verb
	table   *datapath.NFTable
	chain   *datapath.NFChain
	rule    *datapath.NFRule
	set     *datapath.NFSet
	element *datapath.NFElement
}

// loadTable makes changes in one transaction. It leaves nftSeen zero if anything
// else has changed nftables since that was noted.
func (h *Host) loadTable(list []operation) error {
	if len(list) == 0 {
		return nil
	}
	return h.ns.Do(func() error { // nft is started in the namespace
		t := list[0].table
		k, err := knftables.New(knftables.Family(t.Family), t.Name)
		if err != nil {
			return fmt.Errorf("load nftables: %w", err)
		}
		tx := k.NewTransaction()
		for _, o := range list {
			o.into(tx)
		}
		before, err := generation()
		if err != nil {
			return err
		}
		if err := k.Run(context.Background(), tx); err != nil {
			return fmt.Errorf("load nftables: %w", err)
		}
		after, err := generation()
		if before != h.nftSeen || after != before+1 {
			after = 0
		}
		h.nftSeen = after
		return err
	})
}

func (o operation) into(tx *knftables.Transaction) {
	switch obj := o.object(); o.verb {
	case add:
		tx.Add(obj)
	case del:
		tx.Delete(obj)
	case flush:
		tx.Flush(obj)
	}
}

func (o operation) object() knftables.Object {
	switch {
	case o.element != nil:
		e := &knftables.Element{Key: strings.Split(o.element.Key, " . "), Comment: orNil(o.element.Comment)}
		if o.set.Value == "" {
			e.Set = o.set.Name
		} else {
			e.Map, e.Value = o.set.Name, []string{o.element.Value}
		}
		return e
	case o.set != nil:
		return o.setObject()
	case o.rule != nil:
		return &knftables.Rule{Chain: o.chain.Name, Rule: o.rule.Text, Comment: orNil(o.rule.Comment)}
	case o.chain != nil:
		c := &knftables.Chain{Name: o.chain.Name}
		if o.verb == add {
			c.Comment = orNil(o.chain.Comment)
			if o.chain.Base() {
				c.Type, c.Hook = knftables.PtrTo(knftables.BaseChainType(o.chain.Type)), knftables.PtrTo(knftables.BaseChainHook(o.chain.Hook))
				c.Priority = knftables.PtrTo(knftables.BaseChainPriority(fmt.Sprint(o.chain.Priority)))
			}
		}
		return c
	default:
		t := &knftables.Table{}
		if o.verb == add {
			t.Comment = orNil(o.table.Comment)
		}
		return t
	}
}

func (o operation) setObject() knftables.Object {
	if o.set.Value != "" {
		return &knftables.Map{Name: o.set.Name, Type: o.set.Type + " : " + o.set.Value, Comment: orNil(o.set.Comment)}
	}
	s := &knftables.Set{Name: o.set.Name, Type: o.set.Type, Comment: orNil(o.set.Comment)}
	if o.set.Dynamic {
		s.Flags = []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag}
	}
	if o.set.Timeout > 0 {
		s.Timeout = &o.set.Timeout
	}
	return s
}

func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
