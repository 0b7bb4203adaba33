package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/installer"
	"slipway/internal/ordered"
)

// Party is this program on some hosts, until it is closed: as it is lent, whatever
// becomes of this process or of the connection takes it away.
type Party struct {
	program installer.Blob
	guests  map[string]*guest
}

// guest is the program on one host.
type guest struct {
	agent *Agent
	guard *guard
	seen  *Seen
}

// Visit sends the program to all hosts at the same time and reads their state. A
// host that cannot be read is an error with what the others said. The party is to
// be closed also then.
func Visit(ctx context.Context, hosts []installer.Host, program installer.Blob) (*Party, error) {
	p := &Party{program: program, guests: map[string]*guest{}}
	all, errs := make([]*guest, len(hosts)), make([]error, len(hosts))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, h := range hosts {
		all[i] = &guest{}
		p.guests[h.Name()] = all[i]
		g.Go(func() error {
			errs[i] = all[i].come(ctx, h, program)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	return p, errors.Join(errs...)
}

func (g *guest) come(ctx context.Context, h installer.Host, program installer.Blob) (err error) {
	if s, ok := h.(Streamer); ok {
		if g.guard, err = post(ctx, h.Name(), s, program); err != nil {
			return err
		}
	}
	if g.agent, err = Send(ctx, h, program); err != nil {
		return err
	}
	g.seen, err = g.agent.look(ctx)
	return err
}

// Seen is what each host's agent saw; hosts that could not be read are not in it.
func (p *Party) Seen() map[string]*Seen {
	out := map[string]*Seen{}
	for name, g := range p.guests {
		if g.seen != nil {
			out[name] = g.seen
		}
	}
	return out
}

// Close takes the program away everywhere.
func (p *Party) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*leavePatience)
	defer cancel()
	var mu sync.Mutex
	var errs []error
	var all sync.WaitGroup
	for _, name := range ordered.Keys(p.guests) {
		g := p.guests[name]
		all.Go(func() {
			var err error
			if g.guard != nil {
				err = g.guard.relieve(ctx)
			}
			if g.agent != nil && (g.guard == nil || err != nil) {
				err = g.agent.Remove(ctx)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// guard is a script on a host that takes away what was lent to it when its stdin
// ends, which is when this process ends, however it does, or its connection. One
// whose connection is cut without a word waits no longer than guardLimit.
type guard struct {
	host  string
	stdin *io.PipeWriter
	ended chan error
	kill  context.CancelFunc
}

// guardLimit is more than agentLimit, and what it takes to send the program over a
// slow line.
const guardLimit = 30 * time.Minute

// Who logged in may have all his processes ended when he is gone (logind's
// KillUserProcesses): the script takes its time before it goes. An agent that is
// killed leaves the kernel's logger of packets set, in the host's namespace and in
// those of pods: where nobody reads what it says, it is put back.
const guardScript = `trap '' TERM HUP
log=/proc/sys/net/netfilter/nf_log/2
was=$(cat $log 2>/dev/null)
case $was in ''|nfnetlink_log) was=NONE ;; esac
put_back='[ "$(cat $1 2>/dev/null)" = nfnetlink_log ] && ! grep -q . /proc/self/net/netfilter/nfnetlink_log 2>/dev/null && echo "$2" >$1'
echo here
timeout %d cat >/dev/null
sleep 0.2
if sh -c "$put_back" sh $log "$was"; then
	for n in /run/netns/*; do nsenter --net="$n" sh -c "$put_back" sh $log "$was" 2>/dev/null; done
fi
`

// post posts a guard, before anything is sent.
func post(ctx context.Context, host string, s Streamer, program installer.Blob) (*guard, error) {
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	inR, inW := io.Pipe()
	g := &guard{host: host, stdin: inW, ended: make(chan error, 1), kill: kill}
	here := &firstWrite{c: make(chan struct{})}
	script := fmt.Sprintf(guardScript, int(guardLimit/time.Second)) + installer.TakeBackScript(program)
	go func() {
		code, err := s.Stream(running, []string{"sh", "-c", script}, inR, here, io.Discard)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s: what was lent was not taken back: exit code %d", host, code)
		}
		g.ended <- err
	}()
	select {
	case <-here.c:
		return g, nil
	case err := <-g.ended:
		kill()
		if err == nil {
			err = fmt.Errorf("%s: the guard has left its post", host)
		}
		return nil, err
	case <-ctx.Done():
		_ = inW.Close() // never fails
		kill()
		return nil, context.Cause(ctx)
	}
}

// relieve has the guard clean up and go.
func (g *guard) relieve(ctx context.Context) error {
	defer g.kill()
	_ = g.stdin.Close() // never fails
	select {
	case err := <-g.ended:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%s: the guard does not leave its post: %w", g.host, context.Cause(ctx))
	}
}

// firstWrite tells that something was written.
type firstWrite struct {
	once sync.Once
	c    chan struct{}
}

func (f *firstWrite) Write(b []byte) (int, error) {
	f.once.Do(func() { close(f.c) })
	return len(b), nil
}

// runner is how to run the agent that observes.
func (g *guest) runner() (runner, error) {
	s, ok := g.agent.host.(Streamer)
	if !ok {
		return nil, fmt.Errorf("%s: what a program prints does not come as it runs", g.agent.host.Name())
	}
	return func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
		return s.Stream(ctx, g.agent.Argv(ObserveJob), stdin, stdout, stderr)
	}, nil
}
