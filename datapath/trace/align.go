package trace

import "fmt"

// hopKey is what makes two hops the same passage.
type hopKey struct {
	namespace, device string
	stage             Stage
}

// step is a hop to be aligned.
type step struct {
	key hopKey
	// required: the other side must have it, else the ways differ.
	required bool
}

// pair is one line of an alignment; an index of -1 says that the side has no
// such hop.
type pair struct {
	predicted, observed int
	required            bool
}

// align puts two sequences of hops side by side so that as many as possible are
// common, required ones first (longest common subsequence).
func align(a, b []step) []pair {
	weight := func(i, j int) int {
		if a[i].key != b[j].key {
			return 0
		}
		if a[i].required || b[j].required {
			return 1000 // more than any number of optional hops
		}
		return 1
	}
	best := make([][]int, len(a)+1)
	for i := range best {
		best[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			best[i][j] = max(best[i+1][j], best[i][j+1])
			if w := weight(i, j); w > 0 {
				best[i][j] = max(best[i][j], w+best[i+1][j+1])
			}
		}
	}
	var out []pair
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && weight(i, j) > 0 && best[i][j] == weight(i, j)+best[i+1][j+1]:
			out = append(out, pair{i, j, true})
			i, j = i+1, j+1
		case j == len(b) || (i < len(a) && best[i+1][j] >= best[i][j+1]):
			out = append(out, pair{i, -1, a[i].required})
			i++
		default:
			out = append(out, pair{-1, j, b[j].required})
			j++
		}
	}
	return out
}

// common reports whether both sides have the hop.
func (p pair) common() bool { return p.predicted >= 0 && p.observed >= 0 }

// gap returns the first required hop of each side between the common hops
// around a line; -1 where a side has none.
func gap(pairs []pair, at int) (predicted, observed int) {
	predicted, observed = -1, -1
	for _, p := range pairs[at:] {
		if p.common() {
			break
		}
		if p.required && p.predicted >= 0 && predicted < 0 {
			predicted = p.predicted
		}
		if p.required && p.observed >= 0 && observed < 0 {
			observed = p.observed
		}
	}
	return predicted, observed
}

// around returns the common lines before and after a gap; nil at the ends.
func around(pairs []pair, at int) (before, after *pair) {
	for i := at - 1; i >= 0 && before == nil; i-- {
		if pairs[i].common() {
			before = &pairs[i]
		}
	}
	for i := at; i < len(pairs) && after == nil; i++ {
		if pairs[i].common() {
			after = &pairs[i]
		}
	}
	return before, after
}

// pathText says how two ways part.
func pathText(before, after *pair, p, o int, predicted, observed []Hop) string {
	from := "at the start"
	if before != nil {
		from = "after " + predicted[before.predicted].At()
	}
	switch {
	case p >= 0 && o >= 0:
		return fmt.Sprintf("%s the prediction goes to %s, the packet was seen at %s", from, predicted[p].At(), observed[o].At())
	case p >= 0 && after == nil:
		return fmt.Sprintf("%s the prediction goes to %s, the packet was not seen any more", from, predicted[p].At())
	case p >= 0:
		return fmt.Sprintf("%s the prediction goes to %s, where the packet was not seen: it was next at %s", from, predicted[p].At(), observed[after.observed].At())
	case after == nil:
		return fmt.Sprintf("%s the prediction ends, the packet was seen at %s", from, observed[o].At())
	default:
		return fmt.Sprintf("%s the packet was seen at %s, the prediction goes straight to %s", from, observed[o].At(), predicted[after.predicted].At())
	}
}

// At names where a hop is, for people: "node01/cni0 prerouting".
func (h Hop) At() string {
	place := h.Place
	if place == "" {
		place = h.Namespace
	}
	if h.Device != "" {
		place += "/" + h.Device
	}
	return place + " " + string(h.Stage)
}
