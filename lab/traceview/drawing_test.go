package traceview

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"slipway/datapath/trace"
	"slipway/internal/ordered"
)

// drawn is a fixture in one format.
func drawn(t *testing.T, tr *trace.Trace, f func(io.Writer, *trace.Trace) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b, tr); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func noSubtitles(f func(io.Writer, *trace.Trace, Subtitles) error) func(io.Writer, *trace.Trace) error {
	return func(w io.Writer, t *trace.Trace) error { return f(w, t, nil) }
}

// everything is the fixtures and a trace that nothing is known of.
func everything() map[string]*trace.Trace {
	out := fixtures()
	out["empty"] = &trace.Trace{}
	return out
}

// What a reader looks for is in every drawing: the places, and what was done
// there to the packet.
func TestEveryFormatTellsTheStory(t *testing.T) {
	formats := map[string]func(io.Writer, *trace.Trace) error{
		"text": func(w io.Writer, t *trace.Trace) error { return Text(w, t, TextOptions{}) },
		"svg":  noSubtitles(SVG), "html": noSubtitles(HTML), "dot": noSubtitles(DOT), "mermaid": Mermaid,
	}
	for _, name := range ordered.Keys(formats) {
		got := drawn(t, vxlanService(), formats[name])
		for _, want := range []string{"default/client", "node01", "fabric", "node02", "default/nginx-7c5b", "DNAT 10.96.0.10:8080 → 10.244.2.3:80", "vxlan vni 1", "DELIVERED", "prediction and observation agree"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not tell %q", name, want)
			}
		}
		if got := drawn(t, forwardDrop(), formats[name]); !strings.Contains(got, "DROPPED at node02") {
			t.Errorf("%s does not say that the packet was dropped, and where", name)
		}
	}
}

func TestSVGIsWellFormed(t *testing.T) {
	traces := everything()
	r := rand.New(rand.NewPCG(5, 6))
	for i := range 40 {
		traces[fmt.Sprint("random ", i)] = randomTrace(r)
	}
	for _, name := range ordered.Keys(traces) {
		dec := xml.NewDecoder(strings.NewReader(drawn(t, traces[name], noSubtitles(SVG))))
		for {
			_, err := dec.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if svg := drawn(t, vxlanService(), noSubtitles(SVG)); strings.Contains(svg, "var(--") {
		t.Error("a variable is left, which not every viewer of SVG knows")
	}
}

// Chips neither overlap nor stick out of their boxes, and boxes stay inside the
// drawing.
func TestSceneKeepsItsRoom(t *testing.T) {
	for _, name := range ordered.Keys(everything()) {
		tr := everything()[name]
		s := newScene(tr, ways(tr), nil)
		for i, a := range s.chips {
			for j, b := range s.chips[:i] {
				if a.x < b.x+b.w && b.x < a.x+a.w && a.y < b.y+b.h && b.y < a.y+a.h {
					t.Errorf("%s: chips %q and %q overlap", name, s.chips[i].label, s.chips[j].label)
				}
			}
		}
		for _, f := range s.frames {
			if f.x < 0 || f.y < 0 || f.x+f.w > s.w || f.y+f.h > s.h {
				t.Errorf("%s: %q sticks out of the drawing", name, f.label)
			}
			for _, c := range f.chips {
				c := s.chips[c]
				if c.x < f.x || c.y < f.y || c.x+c.w > f.x+f.w || c.y+c.h > f.y+f.h {
					t.Errorf("%s: %q sticks out of %q", name, c.label, f.label)
				}
			}
		}
	}
}

// The statements of the sequence diagrams that Mermaid knows and we use. (The
// goldens were also read by Mermaid 11's own parser when they were made.)
var mermaidLine = regexp.MustCompile(`^(sequenceDiagram|  accTitle: [^\n#;]*|  accDescr: [^\n#;]*|  participant (p\d+) as [^;]*|  Note over (p\d+): .*|  (p\d+)(?:->>|-->>)(p\d+): .+)$`)

// A statement ends at ";" and an entity begins with "#".
var mermaidEntity = regexp.MustCompile(`#(\d+|lt|gt|quot);`)

func TestMermaidIsValid(t *testing.T) {
	for _, name := range ordered.Keys(everything()) {
		got := drawn(t, everything()[name], Mermaid)
		declared := map[string]bool{}
		for i, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
			m := mermaidLine.FindStringSubmatch(line)
			if m == nil {
				t.Fatalf("%s: line %d is not a statement: %q", name, i+1, line)
			}
			if m[2] != "" {
				declared[m[2]] = true
			}
			for _, id := range m[3:] {
				if id != "" && !declared[id] {
					t.Errorf("%s: line %d uses %s, which is not declared: %q", name, i+1, id, line)
				}
			}
			if rest := mermaidEntity.ReplaceAllString(line, ""); strings.ContainsAny(rest, ";#<%") {
				t.Errorf("%s: line %d is not escaped: %q", name, i+1, line)
			}
		}
		if name != "empty" {
			golden(t, name+".mmd", []byte(got))
		}
	}
}

// A structural check of DOT; Graphviz itself is asked where it is installed.
var (
	dotQuoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	dotNode   = regexp.MustCompile(`(?m)^    (c\d+) \[`)
	dotEdgeOf = regexp.MustCompile(`(?m)^  (c\d+) -> (c\d+) \[`)
)

func TestDOTIsValid(t *testing.T) {
	graphviz, err := exec.LookPath("dot")
	if err != nil {
		t.Log("Graphviz is not installed: only the structure is checked")
	}
	for _, name := range ordered.Keys(everything()) {
		got := drawn(t, everything()[name], noSubtitles(DOT))
		bare := dotQuoted.ReplaceAllString(got, `""`)
		if strings.Count(bare, "{") != strings.Count(bare, "}") || strings.Count(bare, "[") != strings.Count(bare, "]") || strings.Count(bare, `"`)%2 != 0 {
			t.Errorf("%s: brackets or quotes do not match:\n%s", name, bare)
		}
		nodes := map[string]bool{}
		for _, m := range dotNode.FindAllStringSubmatch(got, -1) {
			nodes[m[1]] = true
		}
		for _, m := range dotEdgeOf.FindAllStringSubmatch(got, -1) {
			if !nodes[m[1]] || !nodes[m[2]] {
				t.Errorf("%s: edge %s -> %s has no such node", name, m[1], m[2])
			}
		}
		if graphviz != "" && name != "empty" {
			cmd := exec.Command(graphviz, "-Tcanon")
			cmd.Stdin = strings.NewReader(got)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: dot: %v: %s", name, err, out)
			}
		}
	}
}

// The page carries its data in a script element, which no text of a rule may
// end, and fetches nothing.
func TestHTMLIsSelfContained(t *testing.T) {
	for _, name := range ordered.Keys(everything()) {
		got := drawn(t, everything()[name], noSubtitles(HTML))
		if n := strings.Count(got, "<script"); n != 2 {
			t.Errorf("%s: %d script elements, want the data and the program", name, n)
		}
		if n := strings.Count(got, "</script>"); n != 2 {
			t.Errorf("%s: script ends %d times", name, n)
		}
		if strings.Contains(got, "{{") {
			t.Errorf("%s: a placeholder is left", name)
		}
		for _, outside := range []string{"https://", "src=", "@import", "url(http"} {
			if strings.Contains(got, outside) {
				t.Errorf("%s: the page holds %q", name, outside)
			}
		}
		_, rest, _ := strings.Cut(got, `type="application/json">`)
		data, _, _ := strings.Cut(rest, "</script>")
		var p page
		if err := json.Unmarshal([]byte(data), &p); err != nil {
			t.Errorf("%s: the data is not JSON: %v", name, err)
		}
	}
	if got := drawn(t, unknown(), noSubtitles(HTML)); strings.Contains(got, "<script>alert") {
		t.Error("a rule's text became part of the page")
	}
}
