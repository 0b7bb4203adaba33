package daemon

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

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
	start  func(key string, c C) (*unit[C], error)
	// order is in which units are started; nil: by key.
	order func(a, b C) int
	// atOnce is how many units are changed at the same time; zero: one.
	atOnce int

	mu   sync.Mutex // guards have while units are changed
	have map[string]*unit[C]
}

// set makes the running units equal to want, and goes on after a failure, so
// that one bad node does not keep the others down.
func (us *units[C]) set(ctx context.Context, want map[string]C) (datapath.Diff, error) {
	gone := slices.DeleteFunc(ordered.Keys(us.have), func(key string) bool {
		_, wanted := want[key]
		return wanted
	})
	removed, err := us.each(gone, func(key string) (datapath.ChangeAction, error) {
		return datapath.Remove, us.drop(ctx, key)
	})
	keys := ordered.Keys(want)
	if us.order != nil {
		slices.SortStableFunc(keys, func(a, b string) int { return us.order(want[a], want[b]) })
	}
	ensured, err2 := us.each(keys, func(key string) (datapath.ChangeAction, error) {
		return us.ensure(ctx, key, want[key])
	})
	return append(removed, ensured...), errors.Join(err, err2)
}

// each changes units, atOnce at a time, beginning in the order of keys.
func (us *units[C]) each(keys []string, change func(key string) (datapath.ChangeAction, error)) (datapath.Diff, error) {
	did := make([]datapath.ChangeAction, len(keys))
	errs := make([]error, len(keys))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(max(us.atOnce, 1), len(keys)) {
		workers.Go(func() {
			for i := range next {
				did[i], errs[i] = change(keys[i])
			}
		})
	}
	for i := range keys {
		next <- i
	}
	close(next)
	workers.Wait()
	var diff datapath.Diff
	for i, key := range keys {
		if errs[i] != nil {
			errs[i] = fmt.Errorf("%s %s: %w", us.object, key, errs[i])
		}
		if did[i] != "" {
			diff = append(diff, us.change(key, did[i]))
		}
	}
	return diff, errors.Join(errs...)
}

func (us *units[C]) get(key string) *unit[C] {
	us.mu.Lock()
	defer us.mu.Unlock()
	return us.have[key]
}

func (us *units[C]) put(key string, u *unit[C]) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.have[key] = u; u == nil {
		delete(us.have, key)
	}
}

func (us *units[C]) ensure(ctx context.Context, key string, c C) (datapath.ChangeAction, error) {
	u := us.get(key)
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
	us.put(key, u)
	return action, nil
}

// drop stops a unit. How one ended by itself is no failure of stopping it.
func (us *units[C]) drop(ctx context.Context, key string) error {
	u := us.get(key)
	us.put(key, nil)
	ended := u.ended()
	if err := u.stop(ctx); err != nil && !ended {
		return err
	}
	return nil
}

func (us *units[C]) change(key string, a datapath.ChangeAction) datapath.Change {
	return datapath.Change{Node: key, Action: a, Object: us.object, Command: "slipwayd: " + us.object + " " + key}
}
