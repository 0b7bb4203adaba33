package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Match says which packets are wanted. The zero value takes every packet.
type Match struct {
	// Marker is found in the payload, of a UDP or ICMP probe, its echo, and any
	// ICMP error that quotes it. NAT and encapsulation leave a payload alone.
	Marker []byte
	// Client and Server are a TCP connection as its client sees it. Its
	// handshake is followed by the initial sequence number, which NAT and
	// encapsulation leave alone, from the client's first SYN on: the SYN, what
	// acknowledges it (SYN-ACK or RST), and ICMP errors about it.
	Client, Server netip.AddrPort
	// Seq is that number, where it is known from elsewhere: the client's SYN need
	// not be seen.
	Seq *uint32
}

// Collect reads what was captured, in the order in which it happened, and goes
// on until no wanted packet came for the time quiet (16 ms at least, which the
// kernel may take to hand packets over). If ctx ends first, it returns what it
// has with ctx's error.
func (c *Capture) Collect(ctx context.Context, match Match, quiet time.Duration) ([]Event, error) {
	w := &wanted{match: match}
	if match.Seq != nil {
		w.isn, w.known = *match.Seq, true
	}
	quiet = max(quiet, c.size.settle())
	last := time.Now()
	for {
		if c.drain(w) {
			last = time.Now()
		}
		left := quiet - time.Since(last)
		if left <= 0 || ctx.Err() != nil {
			break
		}
		if err := c.wait(left); err != nil {
			return nil, err
		}
	}
	if err := c.countDropped(); err != nil {
		return nil, err
	}
	return inOrder(w.chosen()), ctx.Err()
}

// maxWait bounds how long a wait can fail to notice that its context ended.
const maxWait = 20 * time.Millisecond

// wait blocks until a socket has something to read, for a little while at most.
func (c *Capture) wait(left time.Duration) error {
	fds := make([]unix.PollFd, len(c.queues))
	for i, q := range c.queues {
		fds[i] = unix.PollFd{Fd: int32(q.ring.fd), Events: unix.POLLIN}
	}
	ms := int(min(left, maxWait)/time.Millisecond) + 1
	if _, err := unix.Poll(fds, ms); err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait for packets: %w", err)
	}
	return nil
}

// drain reads what is there and reports whether anything of it is wanted.
func (c *Capture) drain(w *wanted) bool {
	found := false
	for i, q := range c.queues {
		take := func(f frame) { found = w.add(c.event(i, f)) || found }
		// One round of the ring, so that a busy device cannot keep the others waiting.
		for n := 0; n < c.size.blocks && q.ring.read(take); n++ {
			continue
		}
	}
	return found
}

// wanted keeps the events that match, and, while a connection's initial
// sequence number is not known yet, those that may.
type wanted struct {
	match  Match
	events []Event
	isn    uint32
	known  bool
}

// add keeps an event if it is wanted, or may be, and reports the former.
func (w *wanted) add(e Event) bool {
	if !w.match.Client.IsValid() {
		if len(w.match.Marker) > 0 && !bytes.Contains(e.Data, w.match.Marker) {
			return false
		}
		w.events = append(w.events, e)
		return true
	}
	ip := e.Packet.IP
	if !ofHandshake(ip) {
		return false
	}
	if !w.known && ip.TCP != nil && ip.TCP.SYN && !ip.TCP.ACK &&
		ip.Source() == w.match.Client && ip.Destination() == w.match.Server {
		w.isn, w.known = ip.TCP.Seq, true
	}
	if w.known && !w.ours(ip) {
		return false
	}
	w.events = append(w.events, e)
	return w.known
}

// chosen returns the events that turned out to be wanted.
func (w *wanted) chosen() []Event {
	if !w.match.Client.IsValid() {
		return w.events
	}
	var out []Event
	for _, e := range w.events {
		if w.known && w.ours(e.Packet.IP) {
			out = append(out, e)
		}
	}
	return out
}

// ofHandshake reports whether a packet can be part of any TCP handshake.
func ofHandshake(ip IPv4) bool {
	if ip.TCP != nil {
		return ip.TCP.SYN || ip.TCP.RST
	}
	return ip.ICMP != nil && ip.ICMP.Quoted != nil && ip.ICMP.Quoted.TCP != nil
}

// ours reports whether a packet is part of the handshake that begins with isn.
func (w *wanted) ours(ip IPv4) bool {
	switch {
	case ip.TCP == nil:
		return ip.ICMP.Quoted.TCP.Seq == w.isn
	case ip.TCP.SYN && !ip.TCP.ACK:
		return ip.TCP.Seq == w.isn
	default:
		return ip.TCP.ACK && ip.TCP.Ack == w.isn+1
	}
}

// inOrder merges the sockets' events into one sequence. Within a socket the
// order of arrival is the order in which things happened, even where two
// sightings carry one time stamp (a port of a bridge and the bridge itself).
// Between sockets time stamps decide, and on a tie the sender comes first.
func inOrder(events []Event) []Event {
	byQueue := map[int][]Event{}
	var queues []int
	for _, e := range events {
		if byQueue[e.queue] == nil {
			queues = append(queues, e.queue)
		}
		byQueue[e.queue] = append(byQueue[e.queue], e)
	}
	out := make([]Event, 0, len(events))
	for len(out) < len(events) {
		best := -1
		for _, q := range queues {
			if len(byQueue[q]) > 0 && (best < 0 || before(byQueue[q][0], byQueue[best][0])) {
				best = q
			}
		}
		out = append(out, byQueue[best][0])
		byQueue[best] = byQueue[best][1:]
	}
	return out
}

func before(a, b Event) bool {
	if !a.Time.Equal(b.Time) {
		return a.Time.Before(b.Time)
	}
	return a.Direction == Out && b.Direction == In
}
