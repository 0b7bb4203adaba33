package report

import (
	"strconv"
	"strings"
)

// units are what a parameter may be followed by: the dimension, in a word, and
// by how much it multiplies. Longer ones come before those that they end with.
var units = []struct {
	suffix, dimension string
	by                float64
}{
	{"KiB", "bytes", 1 << 10}, {"MiB", "bytes", 1 << 20}, {"GiB", "bytes", 1 << 30},
	{"Kbit", "bits", 1e3}, {"kbit", "bits", 1e3}, {"Mbit", "bits", 1e6}, {"Gbit", "bits", 1e9}, {"bit", "bits", 1},
	{"kB", "bytes", 1e3}, {"MB", "bytes", 1e6}, {"GB", "bytes", 1e9}, {"B", "bytes", 1},
	{"ns", "seconds", 1e-9}, {"µs", "seconds", 1e-6}, {"us", "seconds", 1e-6}, {"ms", "seconds", 1e-3}, {"s", "seconds", 1},
	{"k", "", 1e3}, {"M", "", 1e6}, {"G", "", 1e9}, {"%", "percent", 1}, {"", "", 1},
}

// quantity reads a parameter that is a number, with a unit or without: "128KiB",
// "10ms", "1Gbit/s", "1000".
func quantity(text string) (value float64, dimension string, ok bool) {
	number, perSecond := strings.CutSuffix(text, "/s")
	for _, u := range units {
		digits, is := strings.CutSuffix(number, u.suffix)
		if !is {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !finite(v) {
			return 0, "", false
		}
		if perSecond {
			return v * u.by, u.dimension + "/s", true
		}
		return v * u.by, u.dimension, true
	}
	return 0, "", false
}
