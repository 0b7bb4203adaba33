package capture

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"slipway/lab"
)

// Choice is a place to listen in.
type Choice struct {
	Target  lab.Target
	Devices []string // names or patterns; empty for all
	// Maybe says that the place was found by a pattern: it is left out if it has
	// none of the devices.
	Maybe bool
}

// NameError says that a name means no place, or no device of one.
type NameError struct {
	Name string
	Err  error
}

// Error says what was looked for.
func (e *NameError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *NameError) Unwrap() error { return e.Err }

// Select finds the places that names mean: PLACE or PLACE/DEVICE, where PLACE
// is what lab.Resolve takes or a pattern (path.Match) over the labels of places,
// without the namespace for those of the namespace default, and DEVICE a name or
// a pattern. A place that is named more than once has all of its names' devices.
func Select(st *lab.State, names []string) ([]Choice, error) {
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, err
	}
	var out []Choice
	for _, name := range names {
		found, device, err := resolve(st, targets, name)
		if err != nil {
			return nil, &NameError{Name: name, Err: err}
		}
		for _, t := range found {
			out = add(out, t, device, isPattern(name))
		}
	}
	return out, nil
}

// All is every place of a lab.
func All(st *lab.State) ([]Choice, error) {
	targets, err := lab.Targets(st)
	if err != nil {
		return nil, err
	}
	var out []Choice
	for _, t := range targets {
		out = append(out, Choice{Target: t})
	}
	return out, nil
}

// add adds a device, all if it is empty, of a place.
func add(choices []Choice, t lab.Target, device string, maybe bool) []Choice {
	var devices []string
	if device != "" {
		devices = []string{device}
	}
	i := slices.IndexFunc(choices, func(c Choice) bool { return c.Target.Label == t.Label })
	switch {
	case i < 0:
		return append(choices, Choice{Target: t, Devices: devices, Maybe: maybe})
	case device == "" || len(choices[i].Devices) == 0:
		choices[i].Devices = nil
	default:
		choices[i].Devices = append(choices[i].Devices, device)
		choices[i].Maybe = choices[i].Maybe && maybe
	}
	return choices
}

// resolve takes a name for a place first, and for a place and a device if it is
// none.
func resolve(st *lab.State, targets []lab.Target, name string) (found []lab.Target, device string, err error) {
	found, err = places(st, targets, name)
	if err == nil {
		return found, "", nil
	}
	var unknown *lab.TargetError
	if errors.As(err, &unknown) && len(unknown.Candidates) > 0 {
		return nil, "", err
	}
	at := strings.LastIndexByte(name, '/')
	if at <= 0 || at == len(name)-1 {
		return nil, "", err
	}
	if found, placeErr := places(st, targets, name[:at]); placeErr == nil {
		return found, name[at+1:], nil
	} else if errors.As(placeErr, &unknown) && len(unknown.Candidates) > 0 {
		return nil, "", placeErr
	}
	return nil, "", err
}

// places finds the places of a name or a pattern.
func places(st *lab.State, targets []lab.Target, name string) ([]lab.Target, error) {
	if !isPattern(name) {
		t, err := lab.Resolve(st, name)
		if err != nil {
			return nil, err
		}
		return []lab.Target{*t}, nil
	}
	var out []lab.Target
	for _, t := range targets {
		short := strings.TrimPrefix(t.Label, "default/")
		for _, label := range slices.Compact([]string{t.Label, short}) {
			ok, err := path.Match(name, label)
			if err != nil {
				return nil, fmt.Errorf("%q is no pattern: %w", name, err)
			}
			if ok {
				out = append(out, t)
				break
			}
		}
	}
	if len(out) == 0 {
		return nil, &lab.TargetError{Name: name}
	}
	return out, nil
}

func isPattern(s string) bool { return strings.ContainsAny(s, `*?[`) }
