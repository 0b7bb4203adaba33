package topology

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity tells what must be corrected from what is only worth knowing.
type Severity string

// The severities of a diagnostic.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Diagnostic is one complaint about a cluster file or a manifest. Line and Col
// count from 1, in characters; they are 0 when the subject has no place in a
// file, as with a Cluster that was built in memory.
type Diagnostic struct {
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Col      int      `json:"col,omitempty"`
	Path     string   `json:"path,omitempty"` // "spec.nodes[2].address"
	Code     string   `json:"code"`           // stable, listed in docs/cluster-file.md
	Detail   string   `json:"detail"`
	Source   string   `json:"source,omitempty"` // the line at Line
	Severity Severity `json:"severity"`
}

// Warning is a diagnostic that stops nothing.
type Warning = Diagnostic

// String renders the complaint as "file:line:col: path: detail [code]" and,
// when the source is known, that line and one with a caret below the place.
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		b.WriteString(d.File)
		if d.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", d.Line, d.Col)
		}
		b.WriteString(": ")
	}
	if d.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	if d.Path != "" {
		b.WriteString(d.Path + ": ")
	}
	fmt.Fprintf(&b, "%s [%s]", d.Detail, d.Code)
	if d.Line > 0 && strings.TrimSpace(d.Source) != "" {
		line, caret := excerpt(d.Source, d.Col)
		fmt.Fprintf(&b, "\n    %s\n    %s", line, caret)
	}
	return b.String()
}

// excerptWidth is how much of a long line is shown around the caret, in
// characters: a minified JSON manifest is one line of any length.
const excerptWidth = 100

// excerpt returns the part of the line around col and a caret line that puts
// "^" below col. Tabs are kept in both, so that they stay aligned.
func excerpt(source string, col int) (line, caret string) {
	runes := []rune(source)
	at := min(max(col-1, 0), len(runes))
	from := 0
	if len(runes) > excerptWidth && at > excerptWidth/2 {
		from = at - excerptWidth/2
	}
	to := min(len(runes), from+excerptWidth)
	pad := make([]rune, 0, at-from+1)
	for _, r := range runes[from:at] {
		if r != '\t' {
			r = ' '
		}
		pad = append(pad, r)
	}
	return strings.TrimRight(string(runes[from:to]), " \t"), string(pad) + "^"
}

// Diagnostics are all complaints about one input, in the order of its lines.
type Diagnostics []Diagnostic

// Error renders every diagnostic, one after the other.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// Errors are the diagnostics that must be corrected.
func (ds Diagnostics) Errors() Diagnostics { return ds.only(SeverityError) }

// Warnings are the diagnostics that stop nothing.
func (ds Diagnostics) Warnings() Diagnostics { return ds.only(SeverityWarning) }

// Err returns the errors among the diagnostics as an error, or nil.
func (ds Diagnostics) Err() error {
	if errs := ds.Errors(); len(errs) > 0 {
		return errs
	}
	return nil
}

func (ds Diagnostics) only(s Severity) Diagnostics {
	var out Diagnostics
	for _, d := range ds {
		if d.Severity == s {
			out = append(out, d)
		}
	}
	return out
}

// sorted orders by place and drops repetitions, which arise when an alias
// brings the same mistake in at two paths.
func (ds Diagnostics) sorted() Diagnostics {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return slices.CompactFunc(ds, func(a, b Diagnostic) bool {
		return a.Line == b.Line && a.Col == b.Col && a.Code == b.Code && a.Detail == b.Detail
	})
}
