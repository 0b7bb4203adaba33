package mesh

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/installer"
	"slipway/installer/facts"
)

// Options are how pairs are tried.
type Options struct {
	// Program is this program, for the hosts' processors.
	Program installer.Blob
	// Timeout is how long a pair is waited for.
	Timeout time.Duration
	// Facts say who holds ports, where they are known.
	Facts map[string]facts.Facts
}

// DefaultTimeout is enough for the first packets of a pair that are lost. Listeners
// do not stand much longer than MostTimeout.
const (
	DefaultTimeout = 3 * time.Second
	MostTimeout    = time.Minute
)

// HostError says on which host nothing could be tried.
type HostError struct {
	Host string
	Err  error
}

// Error names the host.
func (e *HostError) Error() string { return fmt.Sprintf("try ports on %s: %v", e.Host, e.Err) }

// Unwrap returns the cause.
func (e *HostError) Unwrap() error { return e.Err }

// trial is one mesh on its way.
type trial struct {
	Options
	hosts map[string]installer.Host
	pairs []Pair
	nonce string

	mu       sync.Mutex
	broken   map[string]error // hosts that cannot take part any more
	failed   map[string]map[string]Failure
	outcomes map[int]Outcome
	seen     map[int]bool
}

// Try tries pairs. The error is of hosts that could not take part, each a
// [HostError]; pairs with these are unknown in the matrix. The program is in the
// hosts' stores meanwhile, and no longer than that where it was not before.
func Try(ctx context.Context, hosts map[string]installer.Host, pairs []Pair, o Options) (*Matrix, error) {
	raw := make([]byte, 16)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	t := &trial{
		Options: o, hosts: map[string]installer.Host{}, pairs: pairs, nonce: hex.EncodeToString(raw),
		broken: map[string]error{}, failed: map[string]map[string]Failure{}, outcomes: map[int]Outcome{}, seen: map[int]bool{},
	}
	for _, p := range pairs {
		for _, name := range []string{p.From, p.To} {
			if h := hosts[name]; h != nil {
				t.hosts[name] = h
			} else {
				t.broken[name] = &HostError{name, errors.New("it is not connected")}
			}
		}
	}
	t.run(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var errs []error
	for _, err := range t.broken {
		errs = append(errs, err)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return t.matrix(), errors.Join(errs...)
}

// serveFor bounds a listener's life, whatever happens to whoever should end it.
const serveFor = 5 * time.Minute

// run goes through the parts: on all hosts each, before the next begins anywhere.
func (t *trial) run(ctx context.Context) {
	t.over(ctx, t.hosts, sendsAtOnce, func(ctx context.Context, _ string, h installer.Host) error {
		return installer.Lend(ctx, h, t.Program)
	})
	defer t.over(context.WithoutCancel(ctx), t.hosts, asksAtOnce, func(ctx context.Context, _ string, h installer.Host) error {
		ctx, stop := context.WithTimeout(ctx, time.Minute)
		defer stop()
		return installer.TakeBack(ctx, h, t.Program)
	})
	var serving sync.WaitGroup
	defer serving.Wait()
	// Whatever happens, listeners end here.
	ctx, end := context.WithTimeout(ctx, serveFor)
	defer end()
	t.each(ctx, func(ctx context.Context, name string, h installer.Host) error {
		return t.stand(ctx, name, h, &serving)
	})
	t.each(ctx, func(ctx context.Context, name string, h installer.Host) error {
		a, err := t.do(ctx, h, Spec{Do: Ask, Timeout: t.Timeout, Probes: t.probesOf(name)})
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, o := range a.Tried {
			t.outcomes[o.ID] = o
		}
		return err
	})
	t.each(ctx, func(ctx context.Context, name string, h installer.Host) error {
		a, err := t.do(ctx, h, Spec{Do: End, Timeout: t.Timeout, Expect: t.unanswered(name)})
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, id := range a.Seen {
			t.seen[id] = true
		}
		return err
	})
}

// each works on all hosts that can take part still.
func (t *trial) each(ctx context.Context, f func(ctx context.Context, name string, h installer.Host) error) {
	t.mu.Lock()
	part := map[string]installer.Host{}
	for name, h := range t.hosts {
		if t.broken[name] == nil {
			part[name] = h
		}
	}
	t.mu.Unlock()
	t.over(ctx, part, asksAtOnce, f)
}

// How many hosts are talked to at the same time: to send them the program, and
// else.
const (
	sendsAtOnce = 16
	asksAtOnce  = 128
)

// over works on hosts. One that fails takes no part from there on.
func (t *trial) over(ctx context.Context, hosts map[string]installer.Host, atOnce int, f func(ctx context.Context, name string, h installer.Host) error) {
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for name, h := range hosts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := f(ctx, name, h); err != nil {
				t.mu.Lock()
				defer t.mu.Unlock()
				if t.broken[name] == nil {
					t.broken[name] = &HostError{name, err}
				}
			}
		})
	}
	wg.Wait()
}

// stand starts a host's listeners and returns when they stand.
func (t *trial) stand(ctx context.Context, name string, h installer.Host, serving *sync.WaitGroup) error {
	ready, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	serving.Go(func() {
		_, err := t.do(ctx, h, Spec{Do: Serve, Timeout: serveFor, Listen: t.placesOf(name)})
		if err == nil {
			err = errors.New("the listeners have ended")
		}
		gone(err)
	})
	a, err := t.do(ready, h, Spec{Do: Ready, Timeout: time.Minute})
	if why := context.Cause(ready); err != nil && why != nil {
		return why
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed[name] = a.Failed
	return err
}

// do runs the program on a host.
func (t *trial) do(ctx context.Context, h installer.Host, s Spec) (Answer, error) {
	var a Answer
	s.Nonce = t.nonce
	in, err := json.Marshal(s)
	if err != nil {
		return a, err
	}
	r, err := h.Run(ctx, installer.Command{Argv: []string{installer.StorePath(t.Program.Sum), Command}, Stdin: in})
	if err != nil {
		return a, err
	}
	if r.Code != 0 {
		return a, fmt.Errorf("%s: exit code %d: %s", s.Do, r.Code, strings.TrimSpace(string(r.Stderr)))
	}
	if s.Do == Serve {
		return a, nil
	}
	if err := json.Unmarshal(r.Stdout, &a); err != nil {
		return a, fmt.Errorf("%s: its answer: %w", s.Do, err)
	}
	return a, nil
}

// placesOf are where a host has to listen.
func (t *trial) placesOf(name string) (out []Place) {
	for _, p := range t.pairs {
		place := Place{p.Protocol, p.Address, p.Port}
		if p.To == name && !slices.Contains(out, place) {
			out = append(out, place)
		}
	}
	return out
}

// probesOf are what a host tries: of others that stand.
func (t *trial) probesOf(name string) (out []Probe) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.pairs {
		if p.From != name || t.broken[p.To] != nil {
			continue
		}
		place := Place{p.Protocol, p.Address, p.Port}
		if f, failed := t.failed[p.To][place.String()]; !failed || f.Held {
			out = append(out, Probe{ID: id, Place: place, Held: failed && !f.Watched})
		}
	}
	return out
}

// unanswered are probes of a host that may have come, though no answer came back.
func (t *trial) unanswered(name string) (out []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.pairs {
		if p.To == name && p.Protocol != TCP && t.outcomes[id].State == Timeout {
			out = append(out, id)
		}
	}
	return out
}
