package traceview

import (
	"fmt"
	"io"
	"strings"

	"slipway/datapath/trace"
)

// DOT writes a graph for Graphviz: a cluster for each place, numbered edges,
// dashed where only predicted, and what happened as the graph's label.
func DOT(w io.Writer, t *trace.Trace, sub Subtitles) error {
	all := ways(t)
	s := newScene(t, all, sub)
	arrows, arrived := s.moves(all)
	var b strings.Builder
	b.WriteString("digraph trace {\n  rankdir=LR; compound=true; fontname=\"sans-serif\"; labelloc=b; labeljust=l;\n  node [shape=box, style=\"rounded,filled\", fillcolor=white, fontname=\"sans-serif\"]; edge [fontname=\"sans-serif\"];\n")
	lines := []string{title(t), verdictSpan(t).text + ", " + agreementSpan(t).text}
	for _, n := range legend(all, arrived) {
		lines = append(lines, strings.TrimSpace(n.number+" "+n.text))
	}
	b.WriteString("  label=\"")
	for _, l := range lines {
		b.WriteString(dotText(clip(l, 160)) + `\l`)
	}
	b.WriteString("\";\n")
	ends := s.endings(all)
	for i, f := range s.frames {
		fmt.Fprintf(&b, "  subgraph cluster_%d {\n    label=\"%s\"; style=\"rounded,filled\"; color=\"%s\"; fillcolor=\"%s\";\n", i, dotText(strings.TrimSpace(f.label+"  "+f.subtitle())), light.of(string(f.kind)+"-line"), light.of(string(f.kind)))
		for _, c := range f.chips {
			fmt.Fprintf(&b, "    c%d [label=\"%s\"%s];\n", c, dotText(s.chips[c].label), dotEnding(ends[c]))
		}
		b.WriteString("  }\n")
	}
	for _, a := range arrows {
		fmt.Fprintf(&b, "  c%d -> c%d [label=\"%d\", %s];\n", a.from, a.to, a.number, dotEdge(a))
	}
	b.WriteString("}\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("draw trace: %w", err)
	}
	return nil
}

func dotEnding(ending string) string {
	switch ending {
	case "lost":
		return fmt.Sprintf(", color=\"%s\", penwidth=3, xlabel=\"✗\"", light.of("bad"))
	case "odd":
		return fmt.Sprintf(", color=\"%s\", penwidth=3, xlabel=\"?\"", light.of("odd"))
	}
	return ""
}

func dotEdge(a arrow) string {
	c := light.of("request")
	if a.reply {
		c = light.of("reply")
	}
	style := "solid"
	if !a.obs {
		style = "dashed"
	}
	if !a.pred {
		c, style = light.of("odd"), "bold"
	}
	return fmt.Sprintf("color=\"%s\", fontcolor=\"%s\", style=%s", c, c, style)
}

// dotText makes text safe inside a quoted DOT string.
func dotText(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(clean(s))
}
