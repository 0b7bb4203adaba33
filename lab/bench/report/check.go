package report

import (
	"errors"
	"fmt"
	"slices"
)

// check returns the first thing that cannot be, and its field.
func (r *Report) check() (string, error) {
	if r.Kind != Kind {
		return "kind", fmt.Errorf("want %q, got %q", Kind, r.Kind)
	}
	if r.APIVersion != APIVersion {
		return "apiVersion", fmt.Errorf("want %q, got %q", APIVersion, r.APIVersion)
	}
	seen := map[string]int{}
	for i := range r.Series {
		at := fmt.Sprintf("series[%d]", i)
		s := &r.Series[i]
		if field, err := s.check(); err != nil {
			return at + field, err
		}
		key := s.key()
		if j, twice := seen[key]; twice {
			return at, fmt.Errorf("the same variant, workload, path, target and params as series[%d]", j)
		}
		seen[key] = i
	}
	return "", nil
}

func (s *Series) check() (string, error) {
	switch {
	case s.Variant == "":
		return ".variant", errors.New("is empty")
	case s.Workload == "":
		return ".workload", errors.New("is empty")
	}
	var names []string
	for i := range s.Metrics {
		at := fmt.Sprintf(".metrics[%d]", i)
		m := &s.Metrics[i]
		if slices.Contains(names, m.Name) {
			return at + ".name", fmt.Errorf("%q is there twice", m.Name)
		}
		names = append(names, m.Name)
		if field, err := m.check(); err != nil {
			return at + field, err
		}
	}
	return "", nil
}

func (m *Metric) check() (string, error) {
	if m.Name == "" {
		return ".name", errors.New("is empty")
	}
	if !slices.Contains([]Better{Higher, Lower, Neither}, m.Better) {
		return ".better", fmt.Errorf("%q is not one of %q, %q and the empty string", m.Better, Higher, Lower)
	}
	have := 0
	for i, v := range m.Rounds {
		if v == nil {
			continue
		}
		have++
		if !finite(*v) {
			return fmt.Sprintf(".rounds[%d]", i), fmt.Errorf("%v is no figure", *v)
		}
	}
	if m.Summary.N != have {
		return ".summary.n", fmt.Errorf("is %d, but %d rounds have a figure", m.Summary.N, have)
	}
	if field, err := m.Summary.check(); err != nil {
		return ".summary" + field, err
	}
	if m.Ratio == nil {
		return "", nil
	}
	if m.Control == "" {
		return ".control", errors.New("is empty, but there is a ratio")
	}
	field, err := m.Ratio.check()
	return ".ratio" + field, err
}

func (s *Summary) check() (string, error) {
	switch {
	case !finite(s.Median) || !finite(s.Low) || !finite(s.High):
		return "", errors.New("is not finite")
	case s.Low > s.Median || s.Median > s.High:
		return "", fmt.Errorf("the median %g is not within its interval %g to %g", s.Median, s.Low, s.High)
	case s.Confidence < 0 || s.Confidence > 1:
		return ".confidence", fmt.Errorf("%g is not within 0 to 1", s.Confidence)
	}
	return "", nil
}
