package traceview

import (
	"strings"
	"unicode"

	"charm.land/lipgloss/v2"
)

// style is how a span looks on a terminal with colours.
type style int

const (
	normal style = iota
	faint
	strong
	good    // delivered, agreed
	bad     // dropped, differs
	warn    // unknown, predicted only
	rewrite // NAT
	tunnel  // encapsulation
	verbatim
)

// The ANSI colours are those of the terminal's own palette, so that they are
// legible on light and dark grounds alike.
var styles = map[style]lipgloss.Style{
	faint:    lipgloss.NewStyle().Faint(true),
	strong:   lipgloss.NewStyle().Bold(true),
	good:     lipgloss.NewStyle().Foreground(lipgloss.Green),
	bad:      lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true),
	warn:     lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true),
	rewrite:  lipgloss.NewStyle().Foreground(lipgloss.Yellow),
	tunnel:   lipgloss.NewStyle().Foreground(lipgloss.Cyan),
	verbatim: lipgloss.NewStyle().Foreground(lipgloss.Blue),
}

// span is text of one style.
type span struct {
	text  string
	style style
}

// pen writes lines that never pass its width.
type pen struct {
	b      strings.Builder
	width  int
	colour bool
	// right is the width of the column of times at the right edge; zero: none.
	right int
}

// paragraph writes words after a head, wrapped and hanging under the first one.
// margin stands in the right column of the first line.
func (p *pen) paragraph(head []span, margin string, words ...span) {
	indent := 0
	for _, s := range head {
		indent += lipgloss.Width(s.text)
	}
	room := max(p.width-p.right-indent, 1)
	lines := fold(words, room)
	if len(lines) == 0 {
		lines = [][]span{nil}
	}
	for i, line := range lines {
		used := indent
		if i == 0 {
			p.spans(head)
		} else {
			p.b.WriteString(strings.Repeat(" ", indent))
		}
		for _, s := range line {
			used += lipgloss.Width(s.text)
		}
		p.spans(line)
		if i == 0 && margin != "" && p.right > 0 {
			p.b.WriteString(strings.Repeat(" ", max(p.width-used-lipgloss.Width(margin), 0)))
			p.spans([]span{{margin, faint}})
		}
		p.b.WriteByte('\n')
	}
}

// line writes words from an indent on.
func (p *pen) line(indent int, words ...span) {
	p.paragraph([]span{{strings.Repeat(" ", indent), normal}}, "", words...)
}

func (p *pen) blank() { p.b.WriteByte('\n') }

func (p *pen) spans(list []span) {
	for _, s := range list {
		st, ok := styles[s.style]
		if !p.colour || !ok || strings.TrimSpace(s.text) == "" {
			p.b.WriteString(s.text)
			continue
		}
		p.b.WriteString(st.Render(s.text))
	}
}

// String is what was written, without blanks at the ends of lines.
func (p *pen) String() string {
	var b strings.Builder
	for line := range strings.Lines(p.b.String()) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

// fold puts words on lines of at most room columns. A word that is longer than
// a line is cut. Neighbouring words of one style become one span. Several blanks
// stay several: rules are verbatim.
func fold(words []span, room int) [][]span {
	var lines [][]span
	used := 0
	put := func(text string, st style) {
		w := lipgloss.Width(text)
		if len(lines) == 0 || used+1+w > room {
			lines = append(lines, []span{{text, st}})
			used = w
			return
		}
		last := &lines[len(lines)-1]
		end := &(*last)[len(*last)-1]
		if end.style == st {
			end.text += " " + text
		} else {
			end.text += " "
			*last = append(*last, span{text, st})
		}
		used += 1 + w
	}
	for _, s := range words {
		for _, word := range strings.Split(clean(s.text), " ") {
			for _, piece := range cut(word, room) {
				put(piece, s.style)
			}
		}
	}
	return lines
}

// cut splits a word into pieces of at most room columns.
func cut(word string, room int) []string {
	if lipgloss.Width(word) <= room {
		return []string{word}
	}
	var out []string
	from, used := 0, 0
	for i, r := range word {
		w := lipgloss.Width(string(r))
		if used+w > room && i > from {
			out = append(out, word[from:i])
			from, used = i, 0
		}
		used += w
	}
	return append(out, word[from:])
}

// clean takes out what would steer a terminal: rules hold comments that others
// wrote.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t' || r == '\n':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar:
			return '·'
		}
		return r
	}, s)
}

// clip shortens s to width columns.
func clip(s string, width int) string {
	s = clean(s)
	if lipgloss.Width(s) <= width {
		return s
	}
	return cut(s, max(width-1, 1))[0] + "…"
}

// column is s in a column of that width, with a blank behind it.
func column(s string, width int) string {
	s = clip(s, width-1)
	return s + strings.Repeat(" ", width-lipgloss.Width(s))
}

// clipMiddle shortens s to about width columns and keeps its end, which tells
// one pod of a Deployment from another.
func clipMiddle(s string, width int) string {
	r := []rune(clean(s))
	const tail = 6
	if len(r) <= width || width < 2*tail {
		return clip(s, width)
	}
	return string(r[:width-tail-1]) + "…" + string(r[len(r)-tail:])
}
