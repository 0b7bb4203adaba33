package traceview

import (
	"encoding/json"
	"fmt"
	"strings"

	"slipway/datapath/trace"
)

// Model is a trace as pages show it.
type Model struct {
	// Page is what the page's script works on: the headline and, for each step
	// of each way, what happened, what decided, and the headers.
	Page json.RawMessage `json:"page"`
	// Drawing is an SVG element with the boxes, devices and arrows of the way,
	// whose ids the steps refer to, and the packet itself (#packet). It is
	// coloured by [DrawingCSS].
	Drawing string `json:"drawing"`
}

// NewModel makes what [HTML] is made of, for another page to show.
func NewModel(t *trace.Trace, sub Subtitles) (*Model, error) {
	all := ways(t)
	s := newScene(t, all, sub)
	arrows, arrived := s.moves(all)
	data, err := json.Marshal(newPage(t, s, all, arrived)) // escapes <, > and &, so that no text ends a script
	if err != nil {
		return nil, fmt.Errorf("show trace: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg id="drawing" viewBox="0 %d %d %d" role="img" aria-label="the packet's way">`+"\n", titleH-pad, s.w, s.h-titleH+pad)
	s.draw(&b, all, arrows)
	b.WriteString(`<g id="packet"><circle class="carrier" r="14"/><circle class="dot" r="9"/></g>` + "\n</svg>")
	return &Model{Page: data, Drawing: b.String()}, nil
}

// DrawingCSS are the colours of drawings, light and dark, by the class of the
// root element or else as the viewer prefers, and what they are used for.
func DrawingCSS() string {
	return light.variables(":root") + "@media(prefers-color-scheme:dark){" + dark.variables(":root") + "}\n" +
		light.variables(":root.light") + dark.variables(":root.dark") + drawingCSS
}
