package report

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// pair is a fact: a name and what it is.
type pair struct{ Name, Value string }

// facts are the conditions in words. A cluster's are those of its nodes.
func (c Conditions) facts() []pair {
	out := []pair{{"running lab", c.Lab}, {"cluster", c.Cluster}, {"program", c.Slipway}, {"generator", c.Generator}}
	started := pair{"started", c.Started.UTC().Format("2006-01-02 15:04:05 UTC")}
	for _, n := range c.Nodes {
		out = append(out, pair{"node " + n.Name, n.String()})
	}
	if len(c.Nodes) > 0 {
		return told(append(out, started))
	}
	out = append(out, pair{"host", c.Host}, pair{"CPU", fmt.Sprintf("%s × %d", c.CPU, c.CPUs)}, pair{"kernel", c.Kernel}, started)
	if c.MemoryByte > 0 {
		out = append(out, pair{"memory", fmt.Sprintf("%.1f GiB", float64(c.MemoryByte)/(1<<30))})
	}
	out = append(out, pair{"load before", fmt.Sprintf("%.2f", c.LoadBefore)},
		pair{"stolen meanwhile", fmt.Sprintf("%.1f %%", c.StealPercent)}, pair{"idle meanwhile", fmt.Sprintf("%.1f %%", c.IdlePercent)})
	return told(out)
}

// String is a node in words.
func (n Node) String() string {
	return fmt.Sprintf("%s × %d, %s, load %.2f before, %.1f %% stolen and %.1f %% idle meanwhile", n.CPU, n.CPUs, n.Kernel, n.LoadBefore, n.StealPercent, n.IdlePercent)
}

// told leaves out facts that are not known.
func told(all []pair) []pair {
	return slices.DeleteFunc(all, func(p pair) bool { return p.Value == "" })
}

// facts are the plan in words.
func (p Plan) facts() []pair {
	out := []pair{
		{"variants", strings.Join(p.Variants, ", ")}, {"workloads", strings.Join(p.Workloads, ", ")}, {"paths", strings.Join(p.Paths, ", ")},
		{"rounds", fmt.Sprint(p.Rounds)}, {"one measurement", time.Duration(p.RoundNs).String()}, {"warm-up", time.Duration(p.WarmUpNs).String()},
		{"seed", fmt.Sprint(p.Seed)},
	}
	if p.MaxRounds > p.Rounds {
		out[3].Value = fmt.Sprintf("%d to %d, more while intervals are wide", p.Rounds, p.MaxRounds)
	}
	return told(out)
}

// Words about tables.
const (
	summaryTitle  = "Summary"
	aroundLegend  = "± is how far the interval goes to the farther side, in percent of the median."
	summaryLegend = "The metric that stands for each case. " + aroundLegend + " Of a curve it is the point that was measured first."
)

// curveLegend says what tables leave out of curves, if there are any.
func curveLegend(parts []part) string {
	for _, p := range parts {
		if p.curve != nil && len(p.curve.brief()) < len(p.curve.rows()) {
			return " Where a parameter is varied, tables have the main metric and its cost; the CSV, HTML and JSON forms have all."
		}
	}
	return ""
}

// legend says how to read the figures.
func (r *Report) legend() string {
	text := fmt.Sprintf("Medians; in brackets the interval of the median with 95 %% confidence (bootstrap, %d draws), or all rounds where n=… says that they are fewer than %d.", resamples, fewestRounds)
	if c := r.controls(); len(c) > 0 {
		text += fmt.Sprintf(" × is the ratio to %s of the same round; ≈ marks no evidence of a difference to it.", strings.Join(c, ", "))
	}
	return text + " ↑ higher is better, ↓ lower is."
}

// controls are the variants that ratios are to.
func (r *Report) controls() (out []string) {
	seen := map[string]bool{"": true}
	for _, s := range r.Series {
		for _, m := range s.Metrics {
			if !seen[m.Control] {
				seen[m.Control], out = true, append(out, m.Control)
			}
		}
	}
	return out
}

// heading is one line about the whole.
func (r *Report) heading() string {
	out := fmt.Sprintf("%s, %d rounds or more, interleaved; took %s", r.Started.UTC().Format("2 January 2006 15:04 UTC"), r.Plan.Rounds, time.Duration(r.TookNs).Round(time.Second))
	if r.Partial {
		out += "; CUT OFF, with the rounds that were complete"
	}
	return out
}

// line joins facts into one.
func line(facts []pair) string {
	var out []string
	for _, f := range facts {
		out = append(out, f.Name+" "+f.Value)
	}
	return strings.Join(out, " · ")
}
