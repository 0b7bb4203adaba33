package units

import (
	"cmp"
	"fmt"
	"slices"
)

// Order sorts services so that each comes after those named in its After that
// are among them; otherwise by name. A cycle is an error.
func Order(services []*Service) ([]*Service, error) {
	byName := map[string]*Service{}
	for _, s := range services {
		byName[s.Name] = s
	}
	sorted := slices.SortedFunc(slices.Values(services), func(a, b *Service) int { return cmp.Compare(a.Name, b.Name) })
	var out []*Service
	const open, done = 1, 2
	state := map[string]int{}
	var visit func(s *Service) error
	visit = func(s *Service) error {
		switch state[s.Name] {
		case done:
			return nil
		case open:
			return fmt.Errorf("unit %s comes after itself", s.Name)
		}
		state[s.Name] = open
		for _, a := range s.After {
			if before := byName[a]; before != nil {
				if err := visit(before); err != nil {
					return err
				}
			}
		}
		state[s.Name] = done
		out = append(out, s)
		return nil
	}
	for _, s := range sorted {
		if err := visit(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}
