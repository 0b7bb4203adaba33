// Package ordered walks maps in an order that does not change from run to run.
package ordered

import (
	"cmp"
	"maps"
	"slices"
)

// Keys returns the keys of a map, sorted.
func Keys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
