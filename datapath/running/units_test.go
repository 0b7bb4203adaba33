package running

import (
	"context"
	"errors"
	"strings"
	"testing"

	"slipway/datapath"
)

// world records what the units were told to do.
type world struct {
	did  []string
	fail map[string]bool
	end  map[string]chan struct{}
}

func (w *world) units() *Units[string] {
	us := &Units[string]{Object: "thing", By: "test"}
	us.Start = func(key, c string) (*Unit[string], error) {
		if w.fail[key] {
			return nil, errors.New("cannot start")
		}
		w.did = append(w.did, "start "+key+"="+c)
		w.end[key] = make(chan struct{})
		return &Unit[string]{
			Done: w.end[key],
			Update: func(to string) (bool, error) {
				w.did = append(w.did, "update "+key+"="+to)
				return !strings.HasPrefix(to, "new"), nil
			},
			Stop: func(context.Context) error { w.did = append(w.did, "stop "+key); return nil },
		}, nil
	}
	return us
}

func TestUnitsFollowWhatIsWanted(t *testing.T) {
	w := &world{fail: map[string]bool{}, end: map[string]chan struct{}{}}
	us := w.units()
	for _, step := range []struct {
		name   string
		want   map[string]string
		before func()
		did    string
	}{
		{"new ones are started, in order", map[string]string{"b": "1", "a": "1"}, nil, "start a=1, start b=1"},
		{"equal ones are left alone", map[string]string{"a": "1", "b": "1"}, nil, ""},
		{"a change is taken while running", map[string]string{"a": "2", "b": "1"}, nil, "update a=2"},
		{"one that cannot take it is started anew", map[string]string{"a": "new", "b": "1"}, nil, "update a=new, stop a, start a=new"},
		{"one that ended by itself is started again", map[string]string{"a": "new", "b": "1"}, func() { close(w.end["b"]) }, "stop b, start b=1"},
		{"unwanted ones are stopped", map[string]string{"b": "1"}, nil, "stop a"},
	} {
		if step.before != nil {
			step.before()
		}
		w.did = nil
		if _, err := us.Set(t.Context(), step.want); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := strings.Join(w.did, ", "); got != step.did {
			t.Errorf("%s: did %q, want %q", step.name, got, step.did)
		}
	}
}

// One bad node must not keep the others down, and must be named.
func TestUnitsGoOnAfterAFailure(t *testing.T) {
	w := &world{fail: map[string]bool{"a": true}, end: map[string]chan struct{}{}}
	us := w.units()
	_, err := us.Set(t.Context(), map[string]string{"a": "1", "b": "1"})
	if err == nil || !strings.Contains(err.Error(), "thing a") {
		t.Errorf("error %v does not name the unit", err)
	}
	if got := strings.Join(w.did, ", "); got != "start b=1" {
		t.Errorf("did %q", got)
	}
	w.fail["a"], w.did = false, nil
	diff, err := us.Set(t.Context(), map[string]string{"a": "1", "b": "1"})
	if err != nil || len(diff) != 1 || diff[0].Action != datapath.Add || diff[0].Node != "a" {
		t.Errorf("second try: %v, %v", diff, err)
	}
}
