package capture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/datapath/observe"
	"slipway/installer"
	"slipway/lab"
	"slipway/lab/remote"
)

// Streamer is a host that gives what a program prints as it comes, and takes its
// input as long. On others, packets come when the capture is over.
type Streamer interface {
	Stream(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error)
}

// errNoEnd reports a capture that nothing would end.
var errNoEnd = errors.New("on hosts whose programs' output does not come as they run, a capture needs a duration")

// RunOn is [Run] on real hosts: an agent listens on each host that a place is on, and
// is taken away again. Times are those of the hosts' clocks, put right by how far
// each was found to be ahead; packets of different hosts come as they arrive. st
// names nodes and pods.
func RunOn(ctx context.Context, st *lab.State, hosts []installer.Host, program installer.Blob, o Options) (*Summary, error) {
	r := &relay{o: o, st: st, in: make(chan arrival), dropped: map[string]int{}}
	orders, err := r.orders(hosts)
	if err != nil {
		return nil, err
	}
	until, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for _, h := range hosts {
		if order, ok := orders[h.Name()]; ok {
			all.Go(func() { r.in <- arrival{host: h.Name(), err: r.listen(until, h, program, order), over: true} })
		}
	}
	go func() { all.Wait(); close(r.in) }()
	return r.collect(until, stop, len(orders))
}

// relay brings what agents print together.
type relay struct {
	o       Options
	st      *lab.State
	in      chan arrival
	session *session

	mu      sync.Mutex
	dropped map[string]int
}

// arrival is something from an agent: one of the three.
type arrival struct {
	host   string
	begun  []listening
	events []observe.Event
	late   bool // events that were kept until the agent had ended
	err    error
	over   bool // the agent has ended
}

// Dropped implements counted.
func (r *relay) Dropped() (n int) {
	for _, v := range r.DroppedIn() {
		n += v
	}
	return n
}

// DroppedIn implements counted.
func (r *relay) DroppedIn() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// orders are what agents are told, by host.
func (r *relay) orders(hosts []installer.Host) (map[string]*Order, error) {
	out := map[string]*Order{}
	for _, c := range r.o.Places {
		t := c.Target
		if !slices.ContainsFunc(hosts, func(h installer.Host) bool { return h.Name() == t.Node }) {
			if c.Maybe || t.Label == lab.ExternalName || t.Fabric() {
				continue
			}
			return nil, &NameError{t.Label, fmt.Errorf("%s is on none of the hosts", t.Label)}
		}
		if out[t.Node] == nil {
			out[t.Node] = &Order{Ethernet: r.o.Filter.ethernet, Raw: r.o.Filter.raw, Duration: r.o.Duration, Count: r.o.Count}
		}
		p := OrderPlace{Label: t.Label, Devices: c.Devices, Maybe: c.Maybe}
		if t.Pod != nil {
			p.Pod = t.Pod.Address
		}
		out[t.Node].Places = append(out[t.Node].Places, p)
	}
	if len(out) == 0 {
		return nil, &NameError{"", errors.New("no place on any host was named")}
	}
	return out, nil
}

// leavePatience is how long an agent may take to end when it is told.
const leavePatience = 10 * time.Second

// listen runs an agent to its end.
func (r *relay) listen(ctx context.Context, h installer.Host, program installer.Blob, order *Order) (err error) {
	a, err := remote.Send(ctx, h, program)
	defer func() {
		out, cancel := context.WithTimeout(context.WithoutCancel(ctx), leavePatience)
		defer cancel()
		err = errors.Join(err, a.Remove(out))
	}()
	if err != nil {
		return err
	}
	ahead, err := a.Ahead(ctx)
	if err != nil {
		return err
	}
	argv := a.Argv(remote.CaptureJob)
	s, streams := h.(Streamer)
	if order.Live = streams; streams {
		order.Duration, order.Count = 0, 0 // it is told when to end
	}
	text, err := json.Marshal(order)
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if !streams {
		if order.Duration == 0 {
			return fmt.Errorf("%s: %w", h.Name(), errNoEnd)
		}
		res, err := h.Run(context.WithoutCancel(ctx), installer.Command{Argv: argv, Stdin: text})
		if err == nil && res.Code != 0 {
			err = fmt.Errorf("%s: %s", h.Name(), strings.TrimSpace(string(res.Stderr)))
		}
		return errors.Join(err, r.read(h.Name(), ahead, true, bytes.NewReader(res.Stdout)))
	}
	return r.live(ctx, h.Name(), ahead, func(ctx context.Context, in io.Reader, out, said io.Writer) (int, error) {
		return s.Stream(ctx, argv, io.MultiReader(bytes.NewReader(text), in), out, said)
	})
}

// live runs an agent whose stdin says for how long.
func (r *relay) live(ctx context.Context, host string, ahead time.Duration, run func(ctx context.Context, in io.Reader, out, said io.Writer) (int, error)) error {
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	stop := context.AfterFunc(ctx, func() {
		_ = inW.Close()                     // never fails
		time.AfterFunc(leavePatience, kill) // if it does not end by itself
	})
	defer stop()
	var said bytes.Buffer
	done := make(chan error, 1)
	go func() {
		code, err := run(running, inR, outW, &said)
		if err == nil && code != 0 {
			err = fmt.Errorf("%s: %s", host, strings.TrimSpace(said.String()))
		}
		_ = outW.Close() // never fails
		done <- err
	}()
	rerr := r.read(host, ahead, false, outR)
	_, _ = io.Copy(io.Discard, outR) // so that it can end
	return errors.Join(<-done, rerr, inR.Close())
}

// read takes in what an agent prints.
func (r *relay) read(host string, ahead time.Duration, late bool, out io.Reader) error {
	ports := observe.Ports{UDP: uint16(r.st.Snapshot.Network.UDP.Port), VXLAN: uint16(r.st.Snapshot.Network.VXLAN.Port)} //nolint:gosec // checked by the cluster file
	for dec := json.NewDecoder(bufio.NewReader(out)); ; {
		var line report
		if err := dec.Decode(&line); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: read what the agent prints: %w", host, err)
		}
		switch {
		case line.Listening != nil:
			r.in <- arrival{host: host, begun: *line.Listening}
		case line.Packet != nil:
			p := line.Packet
			e := observe.Event{
				Time: p.Time.Add(-ahead), Place: observe.Place{Label: p.Place, Node: host}, Device: p.Device, Direction: p.Direction,
				OtherHost: p.OtherHost, LinkType: p.Link, Data: p.Data, WireLength: p.WireLength, PartialChecksum: p.PartialChecksum,
			}
			if r.o.Print != nil {
				e.Packet = observe.Decode(e.LinkType, e.Data, ports)
			}
			r.in <- arrival{host: host, events: []observe.Event{e}, late: late}
		case line.End != nil:
			r.mu.Lock()
			for place, n := range *line.End {
				r.dropped[place] += n
			}
			r.mu.Unlock()
		}
	}
}

// collect begins when all listen, and takes packets until the agents have ended.
// Those of a count are then shared fairly: who listened first is not ahead.
func (r *relay) collect(ctx context.Context, stop context.CancelCauseFunc, agents int) (*Summary, error) {
	var sources []source
	var early []observe.Event
	var err error
	for waiting := agents; ; {
		a, more := <-r.in
		if !more {
			break
		}
		switch {
		case a.over && a.err != nil:
			err = errors.Join(err, a.err)
		case a.over:
			continue
		case a.begun != nil:
			for _, l := range a.begun {
				sources = append(sources, source{place: observe.Place{Label: l.Place, Node: a.host}, devices: l.Devices})
			}
			if waiting--; waiting == 0 && err == nil {
				if err = r.begin(sources); err == nil {
					err = r.session.take(early)
				}
				if r.o.Duration > 0 { // of all listening together
					over := time.AfterFunc(r.o.Duration, func() { stop(errDuration) })
					defer over.Stop()
				}
			}
		case r.session == nil && !a.late:
			continue // not all listen yet
		case r.session == nil:
			early = append(early, a.events...)
			continue
		case err == nil:
			err = r.session.take(a.events)
		}
		if err != nil {
			stop(nil) // what still comes is let go
		}
	}
	if r.session == nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	return r.session.end(ctx, r, err)
}

func (r *relay) begin(sources []source) error {
	r.session = &session{o: r.o, summary: newSummary(r.st.Lab, r.o, sources)}
	r.session.tally = newTally(r.session.summary)
	if r.o.File != nil {
		r.session.file = observe.NewPcapngWriter(r.o.File, observe.PcapngOptions{
			Filter: r.o.Filter.Expression, SnapLen: r.o.Filter.SnapLen, Comment: "hosts of " + r.st.Lab + ", mode " + string(r.st.Snapshot.Network.Mode),
		})
	}
	return r.session.begin(sources)
}
