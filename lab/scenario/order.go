package scenario

import (
	"cmp"
	"slices"
)

// Lessons are the lessons that come with the program, in the order in which they
// are taught.
func Lessons() ([]*Scenario, error) {
	all, err := All()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(s *Scenario) bool { return s.Kind != Lesson })
	slices.SortStableFunc(all, func(a, b *Scenario) int { return cmp.Compare(a.Order, b.Order) })
	return all, nil
}

// Next is the lesson after this one; nil after the last, and for drills.
func (s *Scenario) Next() (*Scenario, error) {
	if s.Order == 0 {
		return nil, nil
	}
	lessons, err := Lessons()
	if err != nil {
		return nil, err
	}
	for _, l := range lessons {
		if l.Order > s.Order {
			return l, nil
		}
	}
	return nil, nil
}
