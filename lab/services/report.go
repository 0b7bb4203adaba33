package services

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Write writes a result for reading, in lines of at most 100 columns.
func (r *Result) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, port %s: %d connections from %s to %s (%s) in %s\n", r.Service, r.Port, r.Tried, r.From, r.To, viaNames[r.Via], r.Took.Round(time.Millisecond))
	fmt.Fprintf(&b, "decided by the rules of %s, hook %s\n", r.Rules.Node, strings.ToUpper(r.Rules.Hook))
	if len(r.Endpoints) > 0 {
		fmt.Fprintf(&b, "\n%-74s%7s%10s%9s\n", "ENDPOINT", "GOT", "EXPECTED", "SHARE")
	}
	for _, e := range r.Endpoints {
		fmt.Fprintf(&b, "%-74s%7d%10.1f%9s\n", clip(e.Address.String()+"  "+e.who(), 73), e.Connections, e.Expected, Fraction(e.Probability))
	}
	if x := r.ChiSquare; x != nil {
		fmt.Fprintf(&b, "\nchi-square %.2f with %d degrees of freedom, p = %.3g\n", x.Statistic, x.Freedom, x.P)
	}
	b.WriteString("\n")
	for _, n := range r.Notes {
		hang(&b, "", n)
	}
	for _, f := range r.Findings {
		hang(&b, "NOT AS IT SHOULD BE: ", f)
	}
	b.WriteString(r.verdict() + "\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// hang writes a text behind a head, broken into lines.
func hang(b *strings.Builder, head, text string) {
	for i, line := range wrap(head+text, treeWidth-2) {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(line + "\n")
	}
}

func (r *Result) verdict() string {
	switch {
	case !r.OK && r.ChiSquare != nil && r.ChiSquare.P < Significance:
		return "verdict: not consistent with the rules at 1 %"
	case !r.OK:
		return "verdict: not as it should be"
	case r.ChiSquare != nil:
		return "verdict: consistent with the rules at 1 %"
	default:
		return "verdict: consistent with the rules"
	}
}
