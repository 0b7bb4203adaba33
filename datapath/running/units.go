package running

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

// Unit is one running thing with the configuration it runs.
type Unit[C any] struct {
	Config C
	// Update takes a changed configuration while running; false means that the
	// unit has to be stopped and started instead.
	Update func(C) (bool, error)
	Stop   func(context.Context) error
	// Done is closed when the unit ended by itself; nil if it cannot.
	Done <-chan struct{}
}

// Ended reports whether it ended by itself.
func (u *Unit[C]) Ended() bool {
	select {
	case <-u.Done:
		return true
	default:
		return false
	}
}

// Units keeps one unit per key.
type Units[C any] struct {
	// Object is what a change is called: "tunnel", "bgp", "relay"; By is whose it is.
	Object, By string
	Start      func(key string, c C) (*Unit[C], error)
	// Order is in which units are started; nil: by key.
	Order func(a, b C) int
	// AtOnce is how many units are changed at the same time; zero: one.
	AtOnce int

	mu   sync.Mutex // guards have while units are changed
	have map[string]*Unit[C]
}

// Keys lists the units.
func (us *Units[C]) Keys() []string {
	us.mu.Lock()
	defer us.mu.Unlock()
	return ordered.Keys(us.have)
}

// Set makes the running units equal to want, and goes on after a failure, so
// that one bad node does not keep the others down.
func (us *Units[C]) Set(ctx context.Context, want map[string]C) (datapath.Diff, error) {
	gone := slices.DeleteFunc(us.Keys(), func(key string) bool {
		_, wanted := want[key]
		return wanted
	})
	removed, err := us.each(gone, func(key string) (datapath.ChangeAction, error) {
		return datapath.Remove, us.drop(ctx, key)
	})
	keys := ordered.Keys(want)
	if us.Order != nil {
		slices.SortStableFunc(keys, func(a, b string) int { return us.Order(want[a], want[b]) })
	}
	ensured, err2 := us.each(keys, func(key string) (datapath.ChangeAction, error) {
		return us.ensure(ctx, key, want[key])
	})
	return append(removed, ensured...), errors.Join(err, err2)
}

// each changes units, AtOnce at a time, beginning in the order of keys.
func (us *Units[C]) each(keys []string, change func(key string) (datapath.ChangeAction, error)) (datapath.Diff, error) {
	did := make([]datapath.ChangeAction, len(keys))
	errs := make([]error, len(keys))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(max(us.AtOnce, 1), len(keys)) {
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
			errs[i] = fmt.Errorf("%s %s: %w", us.Object, key, errs[i])
		}
		if did[i] != "" {
			diff = append(diff, us.change(key, did[i]))
		}
	}
	return diff, errors.Join(errs...)
}

// Get is the unit of a key; nil if there is none.
func (us *Units[C]) Get(key string) *Unit[C] {
	us.mu.Lock()
	defer us.mu.Unlock()
	return us.have[key]
}

func (us *Units[C]) put(key string, u *Unit[C]) {
	us.mu.Lock()
	defer us.mu.Unlock()
	if us.have == nil {
		us.have = map[string]*Unit[C]{}
	}
	if us.have[key] = u; u == nil {
		delete(us.have, key)
	}
}

func (us *Units[C]) ensure(ctx context.Context, key string, c C) (datapath.ChangeAction, error) {
	u := us.Get(key)
	if u != nil && !u.Ended() {
		if reflect.DeepEqual(u.Config, c) {
			return "", nil
		}
		if u.Update != nil {
			ok, err := u.Update(c)
			if err != nil {
				return datapath.Update, err
			}
			if ok {
				u.Config = c
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
	u, err := us.Start(key, c)
	if err != nil {
		return action, err
	}
	u.Config = c
	us.put(key, u)
	return action, nil
}

// drop stops a unit. How one ended by itself is no failure of stopping it.
func (us *Units[C]) drop(ctx context.Context, key string) error {
	u := us.Get(key)
	us.put(key, nil)
	ended := u.Ended()
	if err := u.Stop(ctx); err != nil && !ended {
		return err
	}
	return nil
}

func (us *Units[C]) change(key string, a datapath.ChangeAction) datapath.Change {
	return datapath.Change{Node: key, Action: a, Object: us.Object, Command: us.By + ": " + us.Object + " " + key}
}
