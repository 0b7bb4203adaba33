package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"slipway/lab/scenario"
	"slipway/topology"
)

// scenarioLine is a scenario in the list.
type scenarioLine struct {
	Name       string              `json:"name"`
	Kind       string              `json:"kind"`
	Level      int                 `json:"level"`
	Minutes    int                 `json:"minutes"`
	Mode       topology.ModeName   `json:"mode"`
	Components topology.Components `json:"components,omitempty"`
	Title      string              `json:"title"`
	Running    bool                `json:"running"`
}

// scenarioPage is a scenario to read and play.
type scenarioPage struct {
	scenarioLine
	Lab    string          `json:"lab"`
	Prose  string          `json:"prose"` // Markdown, like all that is to be read
	Steps  []stepPage      `json:"steps"`
	Checks []string        `json:"checks"`
	Hints  int             `json:"hints"`
	State  *scenario.State `json:"state"` // nil: it does not run
}

type stepPage struct {
	Title string     `json:"title"`
	Prose string     `json:"prose"`
	Parts []partPage `json:"parts"`
}

type partPage struct {
	Why      string   `json:"why"`
	Commands []string `json:"commands"` // as they are typed
}

// language is the one that the page is shown in.
func language(r *http.Request) string {
	if l := r.URL.Query().Get("lang"); slices.Contains(scenario.Languages, l) {
		return l
	}
	return scenario.English
}

func (s *Server) getScenarios(w http.ResponseWriter, r *http.Request) {
	all, err := scenario.All()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	running, err := scenario.Running()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	out := []scenarioLine{}
	for _, sc := range all {
		out = append(out, newScenarioLine(sc, language(r), slices.Contains(running, sc.Name)))
	}
	answer(w, out)
}

func newScenarioLine(sc *scenario.Scenario, lang string, running bool) scenarioLine {
	return scenarioLine{
		Name: sc.Name, Kind: sc.Kind, Level: sc.Level, Minutes: sc.Minutes, Mode: sc.Mode, Components: sc.Components,
		Title: sc.Title(lang), Running: running,
	}
}

// session finds one of the scenarios that come with the program by its name: a
// page never names a file.
func (s *Server) session(r *http.Request) (*scenario.Session, error) {
	all, err := scenario.All()
	if err != nil {
		return nil, err
	}
	name := r.PathValue("name")
	i := slices.IndexFunc(all, func(sc *scenario.Scenario) bool { return sc.Name == name })
	if i < 0 {
		return nil, &scenario.UnknownError{Name: name}
	}
	return scenario.New(all[i], scenario.Options{Lang: language(r)})
}

func (s *Server) getScenario(w http.ResponseWriter, r *http.Request) {
	x, err := s.session(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	st, err := x.State()
	if err != nil && !errors.Is(err, scenario.ErrNotRunning) {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	lang := language(r)
	p := scenarioPage{
		scenarioLine: newScenarioLine(x.Scenario, lang, err == nil), Lab: x.Lab(), Prose: x.Scenario.Prose(lang),
		Steps: []stepPage{}, Checks: []string{}, Hints: len(x.Scenario.Hints), State: st,
	}
	for _, step := range x.Scenario.Steps {
		sp := stepPage{Title: step.Title(lang), Prose: step.Prose.In(lang), Parts: []partPage{}}
		for _, part := range step.Parts {
			pp := partPage{Why: part.Why.In(lang), Commands: []string{}}
			for _, c := range part.Commands {
				pp.Commands = append(pp.Commands, x.Typed(c))
			}
			sp.Parts = append(sp.Parts, pp)
		}
		p.Steps = append(p.Steps, sp)
	}
	for _, c := range x.Scenario.Checks {
		p.Checks = append(p.Checks, c.Name.In(lang))
	}
	answer(w, p)
}

// play makes a handler of what can be done with a scenario.
func (s *Server) play(do func(ctx context.Context, x *scenario.Session, step int) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Step int `json:"step"` // from 0
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			fail(w, http.StatusBadRequest, "the request cannot be read: "+err.Error())
			return
		}
		x, err := s.session(r)
		if err != nil {
			fail(w, http.StatusNotFound, err.Error())
			return
		}
		v, err := do(r.Context(), x, q.Step)
		switch {
		case errors.Is(err, scenario.ErrNotRunning), errors.Is(err, scenario.ErrRuns), errors.Is(err, scenario.ErrHalfway):
			fail(w, http.StatusConflict, err.Error())
		case err != nil:
			fail(w, http.StatusInternalServerError, err.Error())
		default:
			answer(w, v)
		}
	}
}

// explained is what was run and why, as it is shown.
type explained struct {
	Why string `json:"why"`
	Ran []ran  `json:"ran"`
}

// ran is a command that was run; of `slipway graph`, with the lab drawn.
type ran struct {
	scenario.Ran
	Drawing string `json:"drawing,omitempty"` // SVG
}

// drawn adds the drawings to what was run.
func drawn(ctx context.Context, x *scenario.Session, list []scenario.Explained) ([]explained, error) {
	out := []explained{}
	for _, e := range list {
		shown := explained{Why: e.Why, Ran: []ran{}}
		for _, r := range e.Ran {
			svg := ""
			if r.Stdout != "" { // else it failed, as some must
				var err error
				if svg, err = x.Drawing(ctx, r.Command); err != nil {
					return nil, err
				}
			}
			shown.Ran = append(shown.Ran, ran{r, svg})
		}
		out = append(out, shown)
	}
	return out, nil
}

// done is the answer to what has nothing to tell.
type done struct {
	Lab string `json:"lab"`
}

// scenarioRoutes: to check and to take a hint changes nothing of a lab.
func (s *Server) scenarioRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/scenarios", s.getScenarios)
	mux.HandleFunc("GET /api/scenarios/{name}", s.getScenario)
	route := func(action string) string { return fmt.Sprintf("POST /api/scenarios/{name}/%s", action) }
	mux.HandleFunc(route("check"), s.play(func(ctx context.Context, x *scenario.Session, _ int) (any, error) { return x.Check(ctx) }))
	mux.HandleFunc(route("hint"), s.play(func(ctx context.Context, x *scenario.Session, _ int) (any, error) { return x.Hint(ctx) }))
	mux.HandleFunc(route("start"), s.changes(s.play(func(ctx context.Context, x *scenario.Session, _ int) (any, error) {
		return done{x.Lab()}, x.Start(ctx)
	})))
	mux.HandleFunc(route("step"), s.changes(s.play(func(ctx context.Context, x *scenario.Session, step int) (any, error) {
		list, err := x.Step(ctx, step)
		if err != nil {
			return nil, err
		}
		return drawn(ctx, x, list)
	})))
	mux.HandleFunc(route("solve"), s.changes(s.play(func(ctx context.Context, x *scenario.Session, _ int) (any, error) { return x.Solve(ctx) })))
	mux.HandleFunc(route("reset"), s.changes(s.play(func(ctx context.Context, x *scenario.Session, _ int) (any, error) {
		return done{x.Lab()}, x.Reset(ctx)
	})))
}
