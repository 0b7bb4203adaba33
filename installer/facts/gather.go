package facts

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/installer"
)

// atOnce bounds how many hosts are asked at the same time.
const atOnce = 32

// HostError says which host's facts could not be had.
type HostError struct {
	Host string
	Err  error
}

// Error names the host.
func (e *HostError) Error() string { return fmt.Sprintf("learn about %s: %v", e.Host, e.Err) }

// Unwrap returns the cause.
func (e *HostError) Unwrap() error { return e.Err }

// Gather learns about several hosts. The error is of all that failed, each a
// [HostError]; the facts are of all others.
func Gather(ctx context.Context, hosts map[string]installer.Host) (map[string]Facts, error) {
	out := map[string]Facts{}
	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for name, h := range hosts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			f, err := Of(ctx, h)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, &HostError{name, err})
				return
			}
			out[name] = f
		})
	}
	wg.Wait()
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return out, errors.Join(errs...)
}

// Of learns about one host.
func Of(ctx context.Context, h installer.Host) (Facts, error) {
	before := time.Now()
	r, err := h.Run(ctx, installer.Command{Argv: []string{"sh", "-s"}, Stdin: []byte(script())})
	after := time.Now()
	if err != nil {
		return Facts{}, err
	}
	if r.Code != 0 {
		return Facts{}, fmt.Errorf("the script ended with exit code %d: %s", r.Code, shortened(strings.TrimSpace(string(r.Stderr))))
	}
	f, c, err := parse(string(r.Stdout))
	if err != nil {
		return Facts{}, fmt.Errorf("%w%s", err, said(r.Stderr))
	}
	f.Time.Skew, f.Time.Within = skew(before, after, c)
	return f, nil
}

// said is what a host complained of, for the end of a message.
func said(stderr []byte) string {
	text := strings.TrimSpace(string(stderr))
	if text == "" {
		return ""
	}
	return "; it said: " + shortened(text)
}

// skew is how far the host's clock is ahead of ours, and how well that is known:
// the script began and ended somewhere between before and after, and what it took
// by the host's clock is none of the way there and back.
func skew(before, after time.Time, c clocks) (ahead, within time.Duration) {
	way := after.Sub(before) - c.end.Sub(c.begin)
	if way < 0 { // the host's clock was set meanwhile, or shows whole seconds
		way = after.Sub(before)
	}
	return c.begin.Sub(before.Add(way / 2)).Round(time.Millisecond), (way/2 + c.coarse).Round(time.Millisecond)
}
