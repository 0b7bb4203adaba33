package scenario

import (
	"slices"
	"strings"

	"slipway/topology"
)

// The kinds of scenarios.
const (
	Lesson = "lesson"
	Drill  = "drill"
)

// Scenario is one file: a lab to walk through, or to mend.
type Scenario struct {
	Name string `json:"name"`
	// Path is where it was read from; empty for those that come with the program.
	Path  string            `json:"path,omitempty"`
	Kind  string            `json:"kind"`
	Level int               `json:"level"` // 1 easy, 3 hard
	Mode  topology.ModeName `json:"mode"`
	// Minutes is what a student needs.
	Minutes int `json:"minutes"`
	// Components is how much of Kubernetes really runs: none, light or full.
	Components topology.Components `json:"components"`
	// Order is a lesson's place among the lessons, from 1; 0 has none.
	Order     int      `json:"order,omitempty"`
	Languages []string `json:"languages"`
	Titles    Text     `json:"title"`
	About     Text     `json:"about"` // Markdown: the story and the task
	Steps     []Step   `json:"steps,omitempty"`
	Break     Script   `json:"-"`
	Checks    []Check  `json:"checks,omitempty"`
	Hints     []Text   `json:"-"`
	Solution  []Part   `json:"-"`
	// Others are other right ways, which tests go.
	Others []Script `json:"-"`

	source []byte
	files  map[string][]byte // cluster.yaml, manifests and whatever else is not the engine's
}

// Title is the scenario's title in a language.
func (s *Scenario) Title(lang string) string { return s.Titles.In(lang) }

// Prose is the story and the task in a language, as Markdown.
func (s *Scenario) Prose(lang string) string { return s.About.In(lang) }

// Step is one page of a lesson: prose, and commands to run.
type Step struct {
	Titles Text   `json:"title"`
	Prose  Text   `json:"prose"` // Markdown, without the title
	Parts  []Part `json:"parts"`
	Script Script `json:"-"`
}

// Title is the step's title in a language.
func (s Step) Title(lang string) string { return s.Titles.In(lang) }

// Part is a few commands and why they are run.
type Part struct {
	Why      Text     `json:"why"`
	Commands []string `json:"commands"` // lines of the script; [Session.Typed] is what a student types
	Script   Script   `json:"-"`
}

// Check is one thing that a scenario wants of its lab.
type Check struct {
	Name   Text   `json:"name"`
	Script Script `json:"-"`
}

// Script is a part of the scenario's file that is run.
type Script struct {
	File string // "lost-route.txtar"
	Line int    // of its first line there
	Text string
}

// Empty reports whether there is nothing to run.
func (s Script) Empty() bool { return strings.TrimSpace(s.Text) == "" }

// parts takes a script apart at its comments.
func (s Script) parts() []Part {
	var out []Part
	var why []string
	begin, from := 0, 0 // first line of the part, first that is no comment
	lines := strings.SplitAfter(s.Text, "\n")
	flush := func(to int) {
		script := Script{File: s.File, Line: s.Line + from, Text: strings.Join(lines[from:to], "")}
		if len(why) > 0 || !script.Empty() {
			out = append(out, Part{Why: bilingual(why), Commands: script.typed(), Script: script})
		}
		why, begin, from = nil, to, to
	}
	for i, l := range lines {
		comment, ok := strings.CutPrefix(l, "#")
		if !ok {
			continue
		}
		if i > begin && from < i { // a comment after commands
			flush(i)
		}
		why, from = append(why, strings.TrimSpace(comment)), i+1
	}
	flush(len(lines))
	return out
}

// quiet are commands of the engine that say what a command's output has to be;
// no student types them.
var quiet = []string{"stdout", "stderr", "wait", "!", "?", "env", "stop"}

// typed are the lines that a student types too.
func (s Script) typed() []string {
	var out []string
	for l := range strings.Lines(s.Text) {
		l = strings.TrimSpace(l)
		first, rest, _ := strings.Cut(l, " ")
		if first == "?" { // may fail
			l = strings.TrimSpace(rest)
			first, _, _ = strings.Cut(l, " ")
		}
		if first == "!" { // fails, which is what there is to see
			if verb, _, _ := strings.Cut(strings.TrimSpace(rest), " "); verb == "stdout" || verb == "stderr" {
				continue
			}
			l = strings.TrimSpace(rest)
			first, _, _ = strings.Cut(l, " ")
		}
		if first != "" && !strings.HasPrefix(first, "[") && !slices.Contains(quiet, first) {
			out = append(out, l)
		}
	}
	return out
}
