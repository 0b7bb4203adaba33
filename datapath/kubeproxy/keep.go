package kubeproxy

// keeper copies what a ruleParser gives into memory that stays. Rules are many
// and small, so they are laid into common blocks rather than allocated one by
// one; which also means that one kept rule keeps its neighbours.
type keeper struct {
	words    block[string]
	options  block[Option]
	matches  block[Match]
	counters block[Counters]
}

// block hands out parts of a larger slice.
type block[T any] struct{ free []T }

const blockLen = 1024

// copy returns a slice of its own with the same elements; nil if there are none.
func (b *block[T]) copy(in []T) []T {
	n := len(in)
	if n == 0 {
		return nil
	}
	if n > len(b.free) {
		b.free = make([]T, max(n, blockLen))
	}
	out := b.free[:n:n]
	b.free = b.free[n:]
	copy(out, in)
	return out
}

func (b *block[T]) one(v T) *T { return &b.copy([]T{v})[0] }

func (k *keeper) rule(r Rule) Rule {
	r.Header = k.list(r.Header)
	r.Matches = k.matches.copy(r.Matches)
	for i := range r.Matches {
		r.Matches[i].Options = k.list(r.Matches[i].Options)
	}
	r.Target.Options = k.list(r.Target.Options)
	return r
}

func (k *keeper) list(in []Option) []Option {
	out := k.options.copy(in)
	for i := range out {
		out[i].Values = k.words.copy(out[i].Values)
	}
	return out
}
