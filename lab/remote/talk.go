package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"slipway/datapath/skbtrace"
)

// Streamer is a host that gives what a program prints as it comes, and takes its
// input as long.
type Streamer interface {
	Stream(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
}

// runner runs an agent to its end.
type runner func(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer) (int, error)

// leavePatience is how long a program on a host may take to end when its stdin does.
const leavePatience = 10 * time.Second

// talk is a conversation with the agent of one host, for as long as that runs.
type talk struct {
	host string
	in   *io.PipeWriter // the agent's stdin: closing it ends the agent
	kill context.CancelFunc
	done chan struct{} // closed when the agent has ended, and all it said was taken in

	write sync.Mutex

	mu     sync.Mutex
	next   int
	asked  map[int]chan report
	events []skbtrace.Event
	latest time.Time // when the last event came here
	err    error     // why it ended, when done is closed or about to be
}

// begin starts an agent. It does not end with ctx: whoever talks leaves.
func begin(ctx context.Context, host string, run runner) *talk {
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	t := &talk{host: host, in: inW, kill: kill, done: make(chan struct{}), asked: map[int]chan report{}}
	var said bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		code, err := run(running, inR, outW, &said)
		if err == nil && code != 0 {
			err = fmt.Errorf("the agent ended with code %d: %s", code, strings.TrimSpace(said.String()))
		}
		_ = outW.Close() // never fails
		_ = inR.Close()  // so that nobody waits for what it does not read
		ended <- err
	}()
	go func() {
		rerr := t.read(outR)
		if rerr != nil {
			_ = inW.Close() // it is not understood: it shall end
		}
		_, _ = io.Copy(io.Discard, outR)
		err := errors.Join(rerr, <-ended)
		if err == nil {
			err = errEnded
		}
		t.end(fmt.Errorf("%s: %w", host, err))
	}()
	return t
}

// errEnded is why there is nothing more to hear where nothing went wrong.
var errEnded = errors.New("the agent has ended")

// end wakes whoever waits for an answer.
func (t *talk) end(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	for id, c := range t.asked {
		close(c)
		delete(t.asked, id)
	}
	close(t.done)
}

// longestLine bounds what an agent can make the operator's machine remember.
const longestLine = 64 << 20

// read takes in what the agent prints.
func (t *talk) read(out io.Reader) error {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, longestLine)
	for lines.Scan() {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return fmt.Errorf("read what the agent prints: %w", err)
		}
		t.take(r)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read what the agent prints: %w", err)
	}
	return nil
}

// mostEvents bounds what is remembered of an agent that reports what nobody wanted.
const mostEvents = 1 << 18

func (t *talk) take(r report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(r.Events) > 0 && len(t.events) < mostEvents {
		t.events, t.latest = append(t.events, r.Events...), time.Now()
	}
	if c := t.asked[r.ID]; c != nil {
		c <- r
		if r.Fired == nil || r.Answer != nil { // firing is answered twice
			delete(t.asked, r.ID)
		}
	}
}

// seen are the events until now.
func (t *talk) seen() ([]skbtrace.Event, time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.events[:len(t.events):len(t.events)], t.latest
}

// why is why the agent ended.
func (t *talk) why() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// send gives an order; its answers come by the channel, which is closed early if
// the agent ends.
func (t *talk) send(o order) (<-chan report, error) {
	c := make(chan report, 2)
	t.mu.Lock()
	if t.err != nil {
		defer t.mu.Unlock()
		return nil, t.err
	}
	t.next++
	o.ID = t.next
	t.asked[o.ID] = c
	t.mu.Unlock()
	line, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	t.write.Lock()
	defer t.write.Unlock()
	if _, err := t.in.Write(append(line, '\n')); err != nil {
		<-t.done
		return nil, t.why()
	}
	return c, nil
}

// refusal is an error that an agent has told.
type refusal struct {
	host, text string
	missing    bool // the kernel has not what it takes
}

func (e *refusal) Error() string { return e.host + ": " + e.text }

// next is the next answer.
func (t *talk) answer(ctx context.Context, c <-chan report) (report, error) {
	select {
	case r, ok := <-c:
		switch {
		case !ok:
			return r, t.why()
		case r.Error != "":
			return r, &refusal{t.host, r.Error, r.Missing}
		}
		return r, nil
	case <-ctx.Done():
		return report{}, fmt.Errorf("%s: the agent does not answer: %w", t.host, context.Cause(ctx))
	}
}

// ask gives an order and waits for its answer.
func (t *talk) ask(ctx context.Context, o order) (report, error) {
	c, err := t.send(o)
	if err != nil {
		return report{}, err
	}
	return t.answer(ctx, c)
}

// leave has the agent end, and waits until it has.
func (t *talk) leave() {
	_ = t.in.Close() // never fails
	late := time.AfterFunc(leavePatience, t.kill)
	defer late.Stop()
	<-t.done
	t.kill()
}
