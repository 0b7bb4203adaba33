package nft

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/datapath"
)

// Read reads tables from what `nft -j list ruleset` or `list table` printed.
// Texts are spelled so that those of kube-proxy's own rules are kube-proxy's.
// Comments of tables and chains are missing where nft does not print them.
func Read(listing []byte) ([]datapath.NFTable, error) {
	var doc struct {
		Objects []object `json:"nftables"`
	}
	if err := json.Unmarshal(listing, &doc); err != nil {
		return nil, fmt.Errorf("nft's JSON: %w", err)
	}
	r := &reader{tables: map[string]*tableReader{}}
	for i := range doc.Objects {
		if err := r.object(&doc.Objects[i]); err != nil {
			return nil, fmt.Errorf("nft's JSON: object %d: %w", i, err)
		}
	}
	out := make([]datapath.NFTable, len(r.order))
	for i, t := range r.order {
		out[i] = t.out
	}
	return out, nil
}

// object is one of the listing's, by its kind.
type object struct {
	Table *struct {
		Family, Name, Comment string
	}
	Chain *struct {
		Family, Table, Name, Comment string
		Type, Hook, Policy           string
		Prio                         int
	}
	Set, Map *setObject
	Rule     *struct {
		Family, Table, Chain, Comment string
		Expr                          []json.RawMessage
	}
}

type setObject struct {
	Family, Table, Name, Comment string
	Type                         json.RawMessage
	Map                          json.RawMessage
	Flags                        json.RawMessage
	Timeout                      int
	Elem                         []json.RawMessage
}

type reader struct {
	tables map[string]*tableReader
	order  []*tableReader
}

type tableReader struct {
	out    datapath.NFTable
	chains map[string]int
}

func (r *reader) table(family, name string) *tableReader {
	key := family + " " + name
	t := r.tables[key]
	if t == nil {
		t = &tableReader{out: datapath.NFTable{Family: family, Name: name}, chains: map[string]int{}}
		r.tables[key] = t
		r.order = append(r.order, t)
	}
	return t
}

func (r *reader) object(o *object) error {
	switch {
	case o.Table != nil:
		r.table(o.Table.Family, o.Table.Name).out.Comment = o.Table.Comment
	case o.Chain != nil:
		c := o.Chain
		t := r.table(c.Family, c.Table)
		t.chains[c.Name] = len(t.out.Chains)
		t.out.Chains = append(t.out.Chains, datapath.NFChain{Name: c.Name, Comment: c.Comment, Type: c.Type, Hook: c.Hook, Priority: c.Prio, Policy: c.Policy})
	case o.Set != nil:
		return r.set(o.Set)
	case o.Map != nil:
		return r.set(o.Map)
	case o.Rule != nil:
		t := r.table(o.Rule.Family, o.Rule.Table)
		at, ok := t.chains[o.Rule.Chain]
		if !ok {
			return fmt.Errorf("rule of chain %q, which is not listed", o.Rule.Chain)
		}
		c := &t.out.Chains[at]
		c.Rules = append(c.Rules, datapath.NFRule{Text: spellRule(o.Rule.Expr), Comment: o.Rule.Comment})
	}
	return nil
}

func (r *reader) set(o *setObject) error {
	s := datapath.NFSet{Name: o.Name, Comment: o.Comment, Type: typeText(o.Type), Value: typeText(o.Map), Timeout: time.Duration(o.Timeout) * time.Second}
	var flags []string
	if len(o.Flags) > 0 && json.Unmarshal(o.Flags, &flags) != nil {
		flags = []string{strings.Trim(string(o.Flags), `"`)}
	}
	// nft 1.0.6 leaves "dynamic" out of its JSON; it goes with a timeout here.
	s.Dynamic = slices.Contains(flags, "dynamic") || slices.Contains(flags, "timeout")
	s.Elements = make([]datapath.NFElement, 0, len(o.Elem))
	for _, raw := range o.Elem {
		e, err := elementOf(raw, s.Value != "")
		if err != nil {
			return fmt.Errorf("set %s: %w", o.Name, err)
		}
		s.Elements = append(s.Elements, e)
	}
	t := r.table(o.Family, o.Table)
	t.out.Sets = append(t.out.Sets, s)
	return nil
}

// typeText spells a type: a name, or a list of those of a concatenation.
func typeText(raw json.RawMessage) string {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return one
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		return strings.Join(list, " . ")
	}
	return string(raw) // typeof
}

func elementOf(raw json.RawMessage, mapped bool) (e datapath.NFElement, err error) {
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return e, err
	}
	key := v
	if mapped {
		pair, ok := v.([]any)
		if !ok || len(pair) != 2 {
			return e, fmt.Errorf("element is not a key with a value: %s", raw)
		}
		key, e.Value = pair[0], verdictOr(pair[1])
	}
	if inner, ok := member(key, "elem").(map[string]any); ok {
		e.Comment, _ = inner["comment"].(string)
		key = inner["val"]
	}
	e.Key = value(key)
	return e, nil
}

// member is the value under a key of an object that has only that key.
func member(v any, key string) any {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return nil
	}
	return m[key]
}

// verdictOr spells a verdict, or a value if it is none.
func verdictOr(v any) string {
	m, ok := v.(map[string]any)
	if !ok || len(m) != 1 {
		return value(v)
	}
	for kind, to := range m {
		switch kind {
		case "accept", "drop", "return", "continue":
			return kind
		case "jump", "goto":
			if target, ok := member(to, "target").(string); ok {
				return kind + " " + target
			}
		}
	}
	return value(v)
}

// value spells a constant.
func value(v any) string {
	switch x := v.(type) {
	case string:
		return x
	case float64:
		return strconv.FormatInt(int64(x), 10)
	case []any:
		return join(x, ",", value)
	case map[string]any:
		if s, ok := compound(x); ok {
			return s
		}
	}
	return raw(v)
}

func compound(m map[string]any) (string, bool) {
	if len(m) != 1 {
		return "", false
	}
	if list, ok := m["concat"].([]any); ok {
		return join(list, " . ", value), true
	}
	if list, ok := m["set"].([]any); ok {
		return "{ " + join(list, " , ", value) + " }", true
	}
	if list, ok := m["range"].([]any); ok && len(list) == 2 {
		return join(list, "-", value), true
	}
	if p, ok := m["prefix"].(map[string]any); ok {
		return fmt.Sprintf("%v/%v", p["addr"], p["len"]), true
	}
	return "", false
}

func join(list []any, sep string, spell func(any) string) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = spell(v)
	}
	return strings.Join(out, sep)
}

// raw is what is not understood, as it was read.
func raw(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("{%q}", fmt.Sprint(v))
	}
	return string(b)
}
