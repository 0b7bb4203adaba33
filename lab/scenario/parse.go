package scenario

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/txtar"

	"slipway/topology"
)

// Names of the parts of a scenario's file; every other part is a file that the
// lab is made of, such as a manifest.
const (
	clusterFile  = "cluster.yaml"
	breakPart    = "break"
	checksPart   = "checks"
	solutionPart = "solution"
	aboutPart    = "about"
	hintsPart    = "hints"
)

// stepPart is "step-2", its commands, or "step-2.zh.md", its prose.
var stepPart = regexp.MustCompile(`^step-([0-9]+)(?:\.(en|zh)\.md)?$`)

// otherPart is "solution-2": another right way.
var otherPart = regexp.MustCompile(`^solution-[0-9]+$`)

// prosePart is "about.en.md" or "hints.zh.md".
var prosePart = regexp.MustCompile(`^(about|hints)\.(en|zh)\.md$`)

// scenarioName may be part of a lab's name.
var scenarioName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$`)

// reader reads one file and collects what is wrong with it.
type reader struct {
	file  string
	lines []string
	diags topology.Diagnostics
	s     *Scenario
	steps map[int]*Step
	hints map[string][]string
}

// Parse reads a scenario. All that is wrong with it is said at once, as
// [topology.Diagnostics].
func Parse(file string, data []byte) (*Scenario, error) {
	base := filepath.Base(file)
	r := &reader{
		file: file, lines: strings.Split(string(data), "\n"), steps: map[int]*Step{}, hints: map[string][]string{},
		s: &Scenario{Name: strings.TrimSuffix(base, filepath.Ext(base)), source: data, files: map[string][]byte{}, About: Text{}},
	}
	if !scenarioName.MatchString(r.s.Name) {
		r.complain(1, 1, "name", "a scenario is called as its file, without ending: lower-case letters, digits and - in between, at most 40, not %q", r.s.Name)
	}
	archive := txtar.Parse(data)
	r.front(archive.Comment)
	line := 1 + bytes.Count(archive.Comment, []byte("\n"))
	seen := map[string]bool{}
	for _, f := range archive.Files {
		if seen[f.Name] {
			r.complain(line, 1, "part", "there is a part %q before", f.Name)
		}
		seen[f.Name] = true
		line++ // the part's own heading
		r.part(f.Name, line, f.Data)
		line += bytes.Count(f.Data, []byte("\n"))
	}
	r.finish(seen)
	if err := r.diags.Err(); err != nil {
		return nil, err
	}
	return r.s, nil
}

// complain notes an error at a place of the file.
func (r *reader) complain(line, col int, code, format string, args ...any) {
	d := topology.Diagnostic{File: r.file, Line: line, Col: col, Code: "scenario-" + code, Detail: fmt.Sprintf(format, args...), Severity: topology.SeverityError}
	if line > 0 && line <= len(r.lines) {
		d.Source = r.lines[line-1]
	}
	r.diags = append(r.diags, d)
}

// part reads one part, whose first line is the given one of the file.
func (r *reader) part(name string, line int, data []byte) {
	script := Script{File: r.file, Line: line, Text: string(data)}
	switch {
	case name == breakPart:
		r.s.Break = script
		r.lint(script)
	case name == solutionPart:
		r.s.Solution = script.parts()
		r.lint(script)
	case otherPart.MatchString(name):
		r.s.Others = append(r.s.Others, script)
		r.lint(script)
	case name == checksPart:
		r.lint(script)
		for _, p := range script.parts() {
			if p.Why.In(English) == "" || p.Script.Empty() {
				r.complain(p.Script.Line, 1, "check", "a check is a comment that says what is wanted (`# English | 中文`), and commands below it")
				continue
			}
			r.s.Checks = append(r.s.Checks, Check{Name: p.Why, Script: p.Script})
		}
	case prosePart.MatchString(name):
		m := prosePart.FindStringSubmatch(name)
		r.prose(m[1], m[2], string(data))
	case stepPart.MatchString(name):
		r.step(stepPart.FindStringSubmatch(name), script)
	case filepath.IsLocal(name):
		r.s.files[name] = data
	default:
		r.complain(line-1, 1, "part", "%q leaves the scenario's directory", name)
	}
	if name == clusterFile {
		r.cluster(line, data)
	}
}

// prose reads the story, or the hints, which lines of "---" part.
func (r *reader) prose(what, lang, text string) {
	if what == aboutPart {
		r.s.About[lang] = strings.TrimSpace(text)
		return
	}
	for _, h := range regexp.MustCompile(`(?m)^---+\s*$`).Split(text, -1) {
		r.hints[lang] = append(r.hints[lang], strings.TrimSpace(h))
	}
}

// step reads one part of a step.
func (r *reader) step(name []string, script Script) {
	n, err := strconv.Atoi(name[1])
	if err != nil {
		r.complain(script.Line-1, 1, "step", "%v", err)
		return
	}
	st := r.steps[n]
	if st == nil {
		st = &Step{Titles: Text{}, Prose: Text{}}
		r.steps[n] = st
	}
	lang := name[2]
	if lang == "" {
		st.Script, st.Parts = script, script.parts()
		r.lint(script)
		return
	}
	title, rest, _ := strings.Cut(strings.TrimSpace(script.Text), "\n")
	if t, ok := strings.CutPrefix(title, "# "); ok {
		st.Titles[lang], st.Prose[lang] = strings.TrimSpace(t), strings.TrimSpace(rest)
		return
	}
	r.complain(script.Line, 1, "step", "a step begins with its title, `# …`")
}

// cluster checks the cluster file, and says where in this file it is wrong.
func (r *reader) cluster(line int, data []byte) {
	c, diags := topology.Parse(r.file, data)
	for _, d := range diags.Errors() {
		if d.Line > 0 {
			d.Line += line - 1
		}
		r.diags = append(r.diags, d)
	}
	if c == nil {
		return
	}
	r.s.Mode = c.Spec.Network.Mode
	if r.s.Components = c.Spec.Components; r.s.Components == "" {
		r.s.Components = topology.ComponentsNone
	}
}

// finish checks what only the whole file can tell.
func (r *reader) finish(seen map[string]bool) {
	if !seen[clusterFile] {
		r.complain(1, 1, "part", "there is no part %q", clusterFile)
	}
	for _, n := range slices.Sorted(maps.Keys(r.steps)) {
		r.s.Steps = append(r.s.Steps, *r.steps[n])
	}
	langs := r.s.Languages
	for _, l := range langs {
		if r.s.About[l] == "" {
			r.complain(1, 1, "language", "there is no part %q", aboutPart+"."+l+".md")
		}
		if len(r.hints[l]) != len(r.hints[langs[0]]) {
			r.complain(1, 1, "language", "%d hints in %s and %d in %s", len(r.hints[l]), l, len(r.hints[langs[0]]), langs[0])
			return
		}
		for i, st := range r.s.Steps {
			if st.Titles[l] == "" {
				r.complain(1, 1, "language", "step %d has no prose in %s", i+1, l)
			}
		}
	}
	for i := range r.hints[English] {
		h := Text{}
		for _, l := range langs {
			h[l] = r.hints[l][i]
		}
		r.s.Hints = append(r.s.Hints, h)
	}
	if r.s.Kind == Drill && (len(r.s.Checks) == 0 || len(r.s.Solution) == 0 || r.s.Break.Empty() || len(r.s.Hints) == 0) {
		r.complain(1, 1, "part", "a drill has %s, %s, %s and %s.en.md", breakPart, checksPart, solutionPart, hintsPart)
	}
	if r.s.Kind == Lesson && len(r.s.Steps) == 0 {
		r.complain(1, 1, "part", "a lesson has steps: parts step-1.en.md, step-1 and so on")
	}
}
