package traceview

import (
	"embed"
	"fmt"
	"io"
	"strings"

	"slipway/datapath/trace"
)

//go:embed assets
var assets embed.FS

// page is what the page's script works on.
type page struct {
	From     string       `json:"from"`
	To       string       `json:"to"`
	About    string       `json:"about"`
	Verdict  string       `json:"verdict"` // the word: delivered, dropped …
	Headline string       `json:"headline"`
	Agree    string       `json:"agree"` // class of agreement: good | bad | warn
	Agreed   string       `json:"agreed"`
	Why      string       `json:"why"` // in a sentence
	Cause    []fact       `json:"cause"`
	Compared bool         `json:"compared"`
	Ways     []pageWay    `json:"ways"`
	Branches []pageBranch `json:"branches"`
	Notes    []string     `json:"notes"`
}

type pageWay struct {
	Name  string     `json:"name"`
	Reply bool       `json:"reply"`
	Steps []pageStep `json:"steps"`
}

// pageStep is one hop as the page shows it. Pred is the predicted side where it
// is not the one shown.
type pageStep struct {
	Chip    int       `json:"chip"`
	Arrow   int       `json:"arrow"`
	Place   string    `json:"place"`
	Node    string    `json:"node"`
	Device  string    `json:"device"`
	Stage   string    `json:"stage"`
	Mark    string    `json:"mark"`
	MarkIs  string    `json:"markIs"` // the mark in words
	HasPred bool      `json:"hasPred"`
	HasObs  bool      `json:"hasObs"`
	Ending  string    `json:"ending,omitempty"`
	Quiet   bool      `json:"quiet"`
	Text    string    `json:"text"`
	Since   string    `json:"since"`
	At      string    `json:"at"`
	Notes   []string  `json:"notes,omitempty"`
	Shown   pageSide  `json:"shown"`
	Pred    *pageSide `json:"pred,omitempty"`
}

// pageSide is one side of a step.
type pageSide struct {
	Did     string   `json:"did"`
	Facts   []fact   `json:"facts"`
	Changes []change `json:"changes"`
	Stack   []layer  `json:"stack"`
	Tunnel  bool     `json:"tunnel"`
}

type pageBranch struct {
	Probability string `json:"probability"`
	End         string `json:"end"`
	Pod         string `json:"pod"`
	Verdict     string `json:"verdict"`
	Text        string `json:"text"`
	Taken       bool   `json:"taken"`
}

// HTML writes one page that needs nothing else: the drawing on top with the
// packet moving in it, the hops, what decided at each, and its headers. It
// fetches nothing, and is stepped through by keyboard.
func HTML(w io.Writer, t *trace.Trace, sub Subtitles) error {
	m, err := NewModel(t, sub)
	if err != nil {
		return err
	}
	css := DrawingCSS() + asset("page.css")
	r := strings.NewReplacer("{{title}}", esc(clean(title(t))), "{{css}}", css, "{{drawing}}", m.Drawing, "{{data}}", string(m.Page), "{{script}}", asset("page.js"))
	if _, err := r.WriteString(w, asset("page.html")); err != nil {
		return fmt.Errorf("write trace page: %w", err)
	}
	return nil
}

func asset(name string) string {
	b, err := assets.ReadFile("assets/" + name)
	if err != nil {
		panic(err) // embedded: cannot be missing
	}
	return string(b)
}

var styleClasses = map[style]string{good: "good", bad: "bad", warn: "warn"}

func newPage(t *trace.Trace, s *scene, all []way, arrived [][]int) page {
	v, a := verdictSpan(t), agreementSpan(t)
	p := page{
		From: clean(endpointName(t.Source)), To: clean(endpointName(t.Destination)), About: about(t),
		Verdict: t.Verdict.String(), Headline: v.text, Agree: styleClasses[a.style], Agreed: a.text, Why: why(t),
		Cause: pageCause(t), Compared: compared(t), Ways: []pageWay{}, Branches: []pageBranch{}, Notes: pageNotes(t),
	}
	var c clock
	for w, d := range all {
		pw := pageWay{Name: "request", Reply: d.reply, Steps: []pageStep{}}
		if d.reply {
			pw.Name = "reply"
		}
		for i, st := range d.steps {
			ps := newPageStep(st, s.chipOf(st.Hop), arrived[w][i])
			if o := lastSeen([]step{st}); o != nil && timed(d.steps) {
				ps.Since, ps.At = c.since(o), micros(o.TimeNs)
			}
			pw.Steps = append(pw.Steps, ps)
		}
		p.Ways = append(p.Ways, pw)
	}
	for _, b := range t.Branches {
		end, pod := branchEnd(b)
		pb := pageBranch{Probability: percent(b.Probability), End: end, Pod: pod, Verdict: b.Verdict.String(), Taken: taken(t, b)}
		if b.Cause != nil {
			pb.Text = b.Cause.Text
		}
		p.Branches = append(p.Branches, pb)
	}
	return p
}

// why is the one sentence that a headline has room for.
func why(t *trace.Trace) string {
	if d := firstDisagreement(t); d != nil {
		return d.Text
	}
	if c := mergeCauses(t.PredictedCause, t.ObservedCause); c != nil {
		return first(c.Text, string(c.Reason))
	}
	return ""
}

func pageNotes(t *trace.Trace) []string {
	out := []string{}
	if t.AnswerNs > 0 {
		out = append(out, "answered after "+micros(t.AnswerNs)+" µs")
	}
	if t.Observer != "" {
		out = append(out, "observed with "+observerName(t.Observer))
	}
	for _, e := range t.WhatIf {
		out = append(out, "what if: "+e)
	}
	for _, h := range t.Copies {
		out = append(out, fmt.Sprintf("%s, device %s, saw a flooded copy that was not for it", placeOf(h), orUnknown(h.Device)))
	}
	return append(out, t.Notes...)
}

func pageCause(t *trace.Trace) []fact {
	out := []fact{}
	for _, d := range t.Disagreements {
		out = append(out, fact{Name: "differs", Value: d.Text})
	}
	for _, c := range causes(t) {
		if c.who != "" {
			out = append(out, fact{Name: c.who, Value: verdictWord(c.verdict, c.cause).text})
		}
		if c.cause == nil {
			continue
		}
		where := words([]span{{first(c.cause.Place, c.cause.Namespace, c.cause.Node, "unknown place"), 0}, {c.cause.Device, 0}, {"at " + orUnknown(string(c.cause.Stage)), 0}})
		for _, f := range []fact{
			{"where", where, false}, {"why", first(c.cause.Text, string(c.cause.Reason), "unknown"), false},
			{ruleName(c.cause.Table), c.cause.Rule, true}, {"kernel", c.cause.Kernel, true}, {"hint", c.cause.Hint, false},
		} {
			if f.Value != "" {
				out = append(out, f)
			}
		}
	}
	return out
}

var markWords = map[mark]string{
	both: "predicted and observed", onlyPredicted: "only predicted: not observed", onlyObserved: "only observed: not predicted", differs: "prediction and observation differ",
}

func newPageStep(s step, chip, arrow int) pageStep {
	p := pageStep{
		Chip: chip, Arrow: arrow, Place: placeOf(s.Hop), Node: s.Node, Device: s.Device, Stage: string(s.Stage),
		Mark: strings.TrimSpace(s.mark.String()), MarkIs: markWords[s.mark], HasPred: s.pred != nil, HasObs: s.obs != nil,
		Ending: ending(s), Quiet: quiet(s) || mergeable([]step{s}), Text: explain(s), Notes: s.notes, Shown: newPageSide(s),
	}
	if s.pred != nil && s.obs != nil && s.mark == differs {
		pred := newPageSide(side(s, s.pred))
		p.Pred = &pred
	}
	return p
}

func ending(s step) string {
	switch s.Action {
	case trace.Drop, trace.Reject:
		return "lost"
	case trace.UnknownAction:
		return "odd"
	case trace.DeliverAction:
		return "done"
	}
	return ""
}

func newPageSide(s step) pageSide {
	p := pageSide{Facts: facts(s), Changes: changes(s.before, s.Packet), Stack: stack(s.before, s.Packet), Tunnel: s.Packet.Outer != nil}
	if !quiet(s) && !mergeable([]step{s}) {
		p.Did = words(outcome(s))
	}
	return p
}
