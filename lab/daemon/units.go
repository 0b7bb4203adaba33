package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"slipway/datapath"
	"slipway/internal/ordered"
)

// unit is one running thing with the configuration it runs.
type unit[C any] struct {
	cfg C
	// update takes a changed configuration while running; false means that the
	// unit has to be stopped and started instead.
	update func(C) (bool, error)
	stop   func(context.Context) error
	// done is closed when the unit ended by itself; nil if it cannot.
	done <-chan struct{}
}

func (u *unit[C]) ended() bool {
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// units keeps one unit per key.
type units[C any] struct {
	object string // what a change is called: "tunnel", "bgp", "relay"
	have   map[string]*unit[C]
	start  func(key string, c C) (*unit[C], error)
}

// set makes the running units equal to want, and goes on after a failure, so
// that one bad node does not keep the others down.
func (us *units[C]) set(ctx context.Context, want map[string]C) (datapath.Diff, error) {
	var diff datapath.Diff
	var errs []error
	for _, key := range ordered.Keys(us.have) {
		if _, ok := want[key]; !ok {
			errs = append(errs, us.drop(ctx, key))
			diff = append(diff, us.change(key, datapath.Remove))
		}
	}
	for _, key := range ordered.Keys(want) {
		action, err := us.ensure(ctx, key, want[key])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", us.object, key, err))
		}
		if action != "" {
			diff = append(diff, us.change(key, action))
		}
	}
	return diff, errors.Join(errs...)
}

func (us *units[C]) ensure(ctx context.Context, key string, c C) (datapath.ChangeAction, error) {
	u := us.have[key]
	if u != nil && !u.ended() {
		if reflect.DeepEqual(u.cfg, c) {
			return "", nil
		}
		if u.update != nil {
			ok, err := u.update(c)
			if err != nil {
				return datapath.Update, err
			}
			if ok {
				u.cfg = c
				return datapath.Update, nil
			}
		}
	}
	action := datapath.Add
	if u != nil {
		action = datapath.Update
		if err := us.drop(ctx, key); err != nil {
			return action, err
		}
	}
	u, err := us.start(key, c)
	if err != nil {
		return action, err
	}
	u.cfg = c
	us.have[key] = u
	return action, nil
}

// drop stops a unit. How one ended by itself is no failure of stopping it.
func (us *units[C]) drop(ctx context.Context, key string) error {
	u := us.have[key]
	delete(us.have, key)
	ended := u.ended()
	if err := u.stop(ctx); err != nil && !ended {
		return err
	}
	return nil
}

func (us *units[C]) change(key string, a datapath.ChangeAction) datapath.Change {
	return datapath.Change{Node: key, Action: a, Object: us.object, Command: "slipwayd: " + us.object + " " + key}
}
