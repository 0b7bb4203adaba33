package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// scale is how the values of one row are printed: divided, and in which unit.
type scale struct {
	by   float64
	unit string
}

// format writes values with as many digits behind the point as the first that is
// not zero needs; whole numbers in their base unit have none.
func (s scale) format(values ...float64) []string {
	after := 0
	if i := slices.IndexFunc(values, func(v float64) bool { return v != 0 }); i >= 0 {
		after = digits(values[i] / s.by)
	}
	if s.by == 1 && !slices.ContainsFunc(values, func(v float64) bool { return v != math.Trunc(v) }) {
		after = 0
	}
	var out []string
	for _, v := range values {
		out = append(out, fmt.Sprintf("%.*f", after, v/s.by))
	}
	return out
}

// scaleOf picks the unit in which the largest of values, which are in base
// units, is a number from 1 to 1000.
func scaleOf(unit string, values ...float64) scale {
	top := 0.0
	for _, v := range values {
		top = max(top, math.Abs(v))
	}
	base, per, _ := strings.Cut(unit, "/")
	if per != "" {
		per = "/" + per
	}
	switch base {
	case "bit", "1":
		return large(top, base, per)
	case "s":
		return small(top, per)
	case "B":
		return binary(top, per)
	default:
		return scale{1, unit}
	}
}

// large scales by k, M, G. A rate is written without the 1: "k/s".
func large(top float64, base, per string) scale {
	if base == "1" && per == "" {
		return scale{1, ""}
	}
	word := map[bool]string{true: "", false: base}[base == "1"]
	for _, p := range []scale{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if top >= p.by {
			return scale{p.by, p.unit + word + per}
		}
	}
	return scale{1, base + per}
}

// small scales seconds by m, µ, n.
func small(top float64, per string) scale {
	if top == 0 {
		return scale{1, "s" + per}
	}
	for _, p := range []scale{{1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}} {
		if top >= p.by {
			return scale{p.by, p.unit + per}
		}
	}
	return scale{1e-9, "ns" + per}
}

// binary scales bytes by 1024 and its powers.
func binary(top float64, per string) scale {
	for _, p := range []scale{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if top >= p.by {
			return scale{p.by, p.unit + per}
		}
	}
	return scale{1, "B" + per}
}

// number writes a value with three digits or so.
func number(v float64) string {
	if a := math.Abs(v); a > 0 && a < 0.0005 {
		return fmt.Sprintf("%.1e", v)
	}
	return fmt.Sprintf("%.*f", digits(v), v)
}

// digits is how many to write behind the point, so that there are three in all.
func digits(v float64) int {
	switch a := math.Abs(v); {
	case a >= 99.95 || a == 0:
		return 0
	case a >= 9.995:
		return 1
	case a >= 0.9995:
		return 2
	default:
		return 3
	}
}
