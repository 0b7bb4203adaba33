package traceview

import (
	"fmt"
	"strings"
)

// palette is the colours of a drawing and of the page, as CSS variables.
type palette [][2]string

// The palettes. Request and reply, and good and bad, differ in lightness as
// well as in hue, for those who do not see the hue.
var (
	light = palette{
		{"ground", "#ffffff"}, {"raised", "#f5f7f9"}, {"line", "#c3ccd5"}, {"ink", "#18222c"}, {"soft", "#55636f"},
		{"pod", "#e6f3e8"}, {"pod-line", "#4b8b57"}, {"node", "#edf3fa"}, {"node-line", "#3b6ea5"}, {"fabric", "#f1f1f3"}, {"fabric-line", "#8a97a5"},
		{"other", "#f6effb"}, {"other-line", "#7d5ba6"}, {"chip", "#ffffff"}, {"kernel", "#fff6df"}, {"kernel-line", "#b9892f"},
		{"request", "#1a5fb4"}, {"reply", "#8a4b08"}, {"good", "#1c7a38"}, {"bad", "#b3141d"}, {"odd", "#9a5b00"}, {"on", "#ffffff"}, {"mark", "#ffe58f"},
	}
	dark = palette{
		{"ground", "#12181e"}, {"raised", "#1a222a"}, {"line", "#3a4753"}, {"ink", "#e8eef3"}, {"soft", "#a2b0bc"},
		{"pod", "#16291b"}, {"pod-line", "#5fae6e"}, {"node", "#162433"}, {"node-line", "#5f97d3"}, {"fabric", "#20262c"}, {"fabric-line", "#77858f"},
		{"other", "#251b30"}, {"other-line", "#a884cf"}, {"chip", "#1e2830"}, {"kernel", "#2e2716"}, {"kernel-line", "#cfa049"},
		{"request", "#6cb0ff"}, {"reply", "#f0a35a"}, {"good", "#62cf80"}, {"bad", "#ff7b7b"}, {"odd", "#f2b84b"}, {"on", "#0d1216"}, {"mark", "#5c4a10"},
	}
)

// variables declares the palette for a CSS selector.
func (p palette) variables(selector string) string {
	var b strings.Builder
	b.WriteString(selector + "{")
	for _, c := range p {
		fmt.Fprintf(&b, "--%s:%s;", c[0], c[1])
	}
	b.WriteString("}\n")
	return b.String()
}

// resolve puts the colours in place of the variables, for viewers that do not
// know CSS variables.
func (p palette) resolve(css string) string {
	var pairs []string
	for _, c := range p {
		pairs = append(pairs, "var(--"+c[0]+")", c[1])
	}
	return strings.NewReplacer(pairs...).Replace(css)
}

// of is one colour of the palette.
func (p palette) of(name string) string {
	for _, c := range p {
		if c[0] == name {
			return c[1]
		}
	}
	return p[0][1]
}
