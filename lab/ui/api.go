package ui

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"slipway/lab"
	"slipway/lab/services"
	"slipway/lab/tracer"
	"slipway/lab/traceview"
)

// getLabs lists the labs of the machine.
func getLabs(w http.ResponseWriter, _ *http.Request) {
	names, err := lab.Names()
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, append([]string{}, names...))
}

// state is that of the lab that a request is about.
func (s *Server) state(r *http.Request) (*lab.State, error) {
	f, err := s.feedOf(r)
	if err != nil {
		return nil, err
	}
	st, _, err := f.state()
	return st, err
}

func (s *Server) getLab(w http.ResponseWriter, r *http.Request) {
	st, err := s.state(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	answer(w, newLabView(st, s.o.AllowChange))
}

// getStatus reads the whole lab back and compares it with what it should be.
func (s *Server) getStatus(w http.ResponseWriter, r *http.Request) {
	st, err := s.state(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	h, err := lab.Status(r.Context(), st.Lab)
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, h)
}

func (s *Server) getTables(w http.ResponseWriter, r *http.Request) {
	f, err := s.feedOf(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	t, err := f.tablesOf(r.Context(), r.PathValue("place"))
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	answer(w, t)
}

// serviceAnswer is a service as a node's rules have it.
type serviceAnswer struct {
	*services.View
	Nodes   []string              `json:"nodes"` // that carry services
	Explain *services.Explanation `json:"explain"`
}

func service(ctx context.Context, f *feed, name, node string) (*serviceAnswer, error) {
	st, _, err := f.state()
	if err != nil {
		return nil, err
	}
	found, err := services.Find(st.Snapshot, name)
	if err != nil {
		return nil, err
	}
	if err := services.HasRules(found.Service); err != nil {
		return nil, err
	}
	nodes := services.Nodes(st.Snapshot)
	if node == "" && len(nodes) > 0 {
		node = nodes[0]
	}
	if err := services.CheckNode(st.Snapshot, node); err != nil {
		return nil, err
	}
	loaded, err := services.LoadAll(ctx, st, []string{node})
	if err != nil {
		return nil, err
	}
	v, err := services.Look(st.Snapshot, found, loaded[0])
	if err != nil {
		return nil, err
	}
	return &serviceAnswer{v, nodes, services.Explain(v)}, nil
}

func (s *Server) getService(w http.ResponseWriter, r *http.Request) {
	f, err := s.feedOf(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	v, err := service(r.Context(), f, r.PathValue("namespace")+"/"+r.PathValue("name"), r.URL.Query().Get("node"))
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	answer(w, v)
}

// traceRequest is what the page may ask to be traced.
type traceRequest struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Predict  bool   `json:"predict"` // send nothing
}

// postTrace predicts a packet's way and unless told otherwise sends it. One
// packet of a probe changes nothing of the lab, so this is not held to be a
// change.
func (s *Server) postTrace(w http.ResponseWriter, r *http.Request) {
	var q traceRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		fail(w, http.StatusBadRequest, "the request cannot be read: "+err.Error())
		return
	}
	st, err := s.state(r)
	if err != nil {
		fail(w, http.StatusNotFound, err.Error())
		return
	}
	s.tracing.Lock()
	defer s.tracing.Unlock()
	b, err := tracer.New(st, tracer.Options{}).Trace(r.Context(), tracer.Request{From: q.From, To: q.To, Protocol: q.Protocol, Predict: q.Predict})
	if err != nil {
		fail(w, traceFault(err), err.Error())
		return
	}
	m, err := traceview.NewModel(b.Trace, traceview.SubtitlesOf(b.Snapshot))
	if err != nil {
		fail(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, m)
}

// traceFault tells what was asked wrongly from what went wrong.
func traceFault(err error) int {
	var name *tracer.NameError
	var target *lab.TargetError
	if errors.As(err, &name) || errors.As(err, &target) {
		return http.StatusUnprocessableEntity
	}
	return http.StatusInternalServerError
}

func (s *Server) getReports(w http.ResponseWriter, _ *http.Request) {
	if s.o.Reports == nil {
		answer(w, []Report{})
		return
	}
	answer(w, s.o.Reports)
}
