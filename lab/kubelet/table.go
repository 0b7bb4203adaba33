package kubelet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// object is a pointer to an object of the API.
type object interface {
	metav1.Object
	runtime.Object
}

// table is what the API last said of one kind. It is the store of a reflector;
// what is in it is never changed, only replaced.
type table[T object] struct {
	changed func()

	mu     sync.Mutex
	items  map[string]T
	synced bool // the first list has come
}

func newTable[T object](changed func()) *table[T] {
	return &table[T]{changed: changed, items: map[string]T{}}
}

func key(o metav1.Object) string { return o.GetNamespace() + "/" + o.GetName() }

// Add puts in an object that is new.
func (t *table[T]) Add(o any) error { return t.Update(o) }

// Update puts in an object.
func (t *table[T]) Update(o any) error {
	v, ok := o.(T)
	if !ok {
		return fmt.Errorf("the API sent a %T", o)
	}
	t.mu.Lock()
	t.items[key(v)] = v
	t.mu.Unlock()
	t.changed()
	return nil
}

// Delete takes out an object.
func (t *table[T]) Delete(o any) error {
	v, ok := o.(T)
	if !ok {
		return fmt.Errorf("the API sent a %T", o)
	}
	t.mu.Lock()
	delete(t.items, key(v))
	t.mu.Unlock()
	t.changed()
	return nil
}

// Replace puts a list in the place of everything.
func (t *table[T]) Replace(list []any, _ string) error {
	items := make(map[string]T, len(list))
	for _, o := range list {
		v, ok := o.(T)
		if !ok {
			return fmt.Errorf("the API sent a %T", o)
		}
		items[key(v)] = v
	}
	t.mu.Lock()
	t.items, t.synced = items, true
	t.mu.Unlock()
	t.changed()
	return nil
}

// Resync has nothing to do: who reads the table reads all of it.
func (*table[T]) Resync() error { return nil }

// all lists the objects by namespace and name; ok is false before the first list
// has come.
func (t *table[T]) all() (list []T, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list = make([]T, 0, len(t.items))
	for _, v := range t.items {
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return list, t.synced
}

// Between attempts to reach an API that is away: soon, as it is on the same
// machine, and the lab's `up` waits for what happens when it is there.
const (
	firstRest = 50 * time.Millisecond
	lastRest  = 500 * time.Millisecond
)

// follow keeps the table equal to what the API has, through its absences, until
// ctx ends.
func (t *table[T]) follow(ctx context.Context, from cache.Getter, resource, selector string) error {
	fs, err := fields.ParseSelector(selector)
	if err != nil {
		return err
	}
	var kind T
	cache.NewReflectorWithOptions(cache.NewListWatchFromClient(from, resource, metav1.NamespaceAll, fs), kind, t, cache.ReflectorOptions{
		Name:    resource,
		Backoff: &wait.Backoff{Duration: firstRest, Factor: 1.5, Jitter: 0.1, Steps: 20, Cap: lastRest},
	}).RunWithContext(ctx)
	return nil
}
