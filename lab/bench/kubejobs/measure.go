package kubejobs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"slipway/internal/netns"
	"slipway/lab/bench/load"
	"slipway/lab/bench/matrix"
)

// The bounds of a client.
const (
	// reachWithin is how long a way may take to come about: proxies write their
	// rules when they see fit.
	reachWithin  = 30 * time.Second
	dialWithin   = 5 * time.Second
	reachEvery   = 100 * time.Millisecond
	probeTime    = 5 * time.Millisecond
	answerWithin = 10 * time.Second // of a server that has seen all
)

// client is a client's pod on its way.
type client struct {
	Task
	address netip.Addr
	seen    *observer
	servers map[string]Machine // by node
}

// Measure is a client's pod: it measures what the task says, one after the other,
// and prints [Line]s. A measurement that fails is a line, too, and no error.
func Measure(ctx context.Context, t Task, node string, address netip.Addr, out io.Writer) error {
	seen, err := observe(node, clientLabel, address)
	if err != nil {
		return err
	}
	c := &client{Task: t, address: address, seen: seen, servers: map[string]Machine{}}
	say := json.NewEncoder(out)
	if err := say.Encode(Line{Machine: &seen.machine}); err != nil {
		return err
	}
	trouble := c.reach(ctx)
	for n, a := range t.Asks {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l := Line{N: &n}
		err := trouble[way{a.Control, a.To}]
		if err == nil {
			l.Figures, err = c.measure(ctx, a)
		}
		if err != nil {
			l.Error = err.Error()
		}
		if err := say.Encode(l); err != nil {
			return err
		}
	}
	m, err := seen.now()
	if err != nil {
		return err
	}
	all := []Machine{m}
	for _, s := range c.servers {
		all = append(all, s)
	}
	return say.Encode(Line{Machines: all})
}

// way is where traffic goes.
type way struct{ control, to netip.AddrPort }

// reach waits until a request is answered by every way that is measured, which
// also warms them up. A way that does not come about is none.
func (c *client) reach(ctx context.Context) map[way]error {
	trouble := map[way]error{}
	for _, a := range c.Asks {
		w := way{a.Control, a.To}
		if _, asked := trouble[w]; asked {
			continue
		}
		a.Job = Job{Workload: load.TCPRequests, DurationNs: probeTime.Nanoseconds()}
		for end := time.Now().Add(reachWithin); ; {
			_, trouble[w] = c.measure(ctx, a)
			if trouble[w] == nil || ctx.Err() != nil || time.Now().After(end) {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(reachEvery):
			}
		}
	}
	return trouble
}

// measure makes one measurement.
func (c *client) measure(ctx context.Context, a Ask) (load.Figures, error) {
	conn, err := (&net.Dialer{Timeout: dialWithin}).DialContext(ctx, "tcp4", a.Control.String())
	if err != nil {
		return nil, fmt.Errorf("reach the server: %w", err)
	}
	defer conn.Close() //nolint:errcheck // its end is all that it says
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	a.Job.Run = uint16(rand.Uint32())
	say, hear := json.NewEncoder(conn), json.NewDecoder(conn)
	if err := say.Encode(request{c.Token, a.Job}); err != nil {
		return nil, fmt.Errorf("tell the server: %w", err)
	}
	var r reply
	if err := heard(hear, &r); err != nil {
		return nil, err
	}
	before, err := c.seen.watch.Read()
	if err != nil {
		return nil, err
	}
	j := a.Job.load(load.Place{NS: netns.Own(), Addr: c.address, Label: clientLabel}, load.Place{Addr: a.Control.Addr(), Label: serverLabel})
	j.Port = r.Port
	if a.To.IsValid() {
		j.To = a.To
	}
	enough, last := c.await(hear)
	half, err := load.Ask(ctx, j, enough)
	if err != nil {
		_ = conn.Close()
		if s := <-last; s.err == nil || errors.As(s.err, new(*serverError)) { // its own reason says more
			err = errors.Join(err, s.err)
		}
		return nil, err
	}
	if err := say.Encode(ended{true}); err != nil {
		return nil, fmt.Errorf("tell the server: %w", err)
	}
	after, err := c.seen.watch.Read()
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerWithin)); err != nil {
		return nil, err
	}
	s := <-last
	if s.err != nil {
		return nil, s.err
	}
	return c.join(j, half, after.Since(before), s.reply)
}

// join puts the ends' figures and costs together.
func (c *client) join(j load.Job, half load.Half, cost load.Cost, r reply) (load.Figures, error) {
	if r.Half == nil || r.Cost == nil || r.Machine == nil {
		return nil, errors.New("the server left out what it saw")
	}
	c.servers[r.Machine.Node] = *r.Machine
	f, err := load.Join(j, half, *r.Half)
	if err != nil {
		return nil, err
	}
	matrix.WithCost(f, both(cost, *r.Cost, r.Machine.ID == c.seen.machine.ID), j)
	delete(f, load.ConntrackEntries) // nobody looked
	delete(f, load.DeviceDrops)
	return f, nil
}

// serverError is what a server says.
type serverError struct{ said string }

func (e *serverError) Error() string { return "the server: " + e.said }

type said struct {
	reply
	err error
}

// await waits for the server's last word, and closes enough when it comes.
func (c *client) await(hear *json.Decoder) (enough <-chan struct{}, last <-chan said) {
	e, l := make(chan struct{}), make(chan said, 1)
	go func() {
		defer close(e)
		var s said
		s.err = heard(hear, &s.reply)
		l <- s
	}()
	return e, l
}

// heard reads one reply.
func heard(hear *json.Decoder, r *reply) error {
	if err := hear.Decode(r); err != nil {
		return fmt.Errorf("hear from the server: %w", err)
	}
	if r.Error != "" {
		return &serverError{r.Error}
	}
	return nil
}
