package load

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// receiveBuffer is what the receiver of a stream of datagrams may leave waiting,
// in bytes of kernel memory: so much that short absences of its thread are no
// loss of the network's.
const receiveBuffer = 8 << 20

// sendBuffer is what the sender may have under way, in bytes of kernel memory.
// Over a veth pair a datagram counts as the sender's until the receiver's socket
// has it; with the usual 208 KiB the sender would be measured falling asleep.
const sendBuffer = 8 << 20

// udpPackets sends small datagrams as fast as one thread can.
func udpPackets(ctx context.Context, j Job) (Figures, error) { return udpStream(ctx, j) }

// udpStream sends datagrams, at a rate or as fast as it goes, and looks at what
// arrives.
func udpStream(ctx context.Context, j Job) (Figures, error) {
	server, port, err := listenDatagrams(j)
	if err != nil {
		return nil, err
	}
	defer server.close()
	client, mtu, err := dialDatagrams(ctx, &j, port)
	if err != nil {
		return nil, err
	}
	defer client.close()
	d := newDatagrams(j, uint16(rand.Uint32()))
	if err := d.exchange(ctx, j, client, server); err != nil {
		return nil, err
	}
	drops, err := server.drops()
	if err != nil {
		return nil, err
	}
	return d.figures(j, drops, mtu)
}

// listenDatagrams opens the server's socket.
func listenDatagrams(j Job) (socket, uint16, error) {
	s, port, err := listen(j, unix.SOCK_DGRAM)
	if err != nil {
		return -1, 0, err
	}
	if err := s.buffer(unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		s.close()
		return -1, 0, fmt.Errorf("at %s: %w", j.Server.Label, err)
	}
	return s, port, nil
}

// dialDatagrams opens the client's socket, reads the path's MTU, and makes the
// datagrams as large as that lets them be, unless the job says.
func dialDatagrams(ctx context.Context, j *Job, port uint16) (s socket, mtu int, err error) {
	if s, err = dial(ctx, *j, unix.SOCK_DGRAM, j.target(port)); err != nil {
		return -1, 0, err
	}
	if err = s.buffer(unix.SO_SNDBUFFORCE, sendBuffer); err != nil {
		s.close()
		return -1, 0, fmt.Errorf("at %s: %w", j.Client.Label, err)
	}
	if mtu, err = unix.GetsockoptInt(int(s), unix.IPPROTO_IP, unix.IP_MTU); err != nil {
		s.close()
		return -1, 0, fmt.Errorf("read path MTU from %s to %s: %w", j.Client.Label, j.target(port), err)
	}
	if j.Size == 0 {
		j.Size = min(mtu, maxDatagram) - ipHeader - udpHeader
	}
	return s, mtu, nil
}

// datagrams is one stream of them.
type datagrams struct {
	run   uint16
	size  int
	w     window
	opens func(start time.Time) window // of a receiver whose window begins with the first
	pace  pace
	sent  int64 // in the window
	arrivals
}

// newDatagrams is a job's stream, whose window begins now.
func newDatagrams(j Job, run uint16) *datagrams {
	d := &datagrams{run: run, size: j.Size, w: j.open()}
	d.pace = paceOf(d.w.start, j.Rate/8/float64(j.Size))
	return d
}

func (d *datagrams) exchange(ctx context.Context, j Job, client, server socket) error {
	group, ctx := errgroup.WithContext(ctx)
	sent := make(chan struct{})
	group.Go(func() error {
		defer close(sent)
		return d.sendFrom(ctx, j, client)
	})
	group.Go(func() error { return d.receiveAt(ctx, j, server, sent) })
	return group.Wait()
}

func (d *datagrams) sendFrom(ctx context.Context, j Job, client socket) error {
	if err := punctual(j.Client, func() error { return d.send(ctx, client) }); err != nil {
		return fmt.Errorf("send from %s: %w", j.Client.Label, err)
	}
	return nil
}

func (d *datagrams) receiveAt(ctx context.Context, j Job, server socket, sent <-chan struct{}) error {
	if err := d.receive(ctx, server, sent); err != nil {
		return fmt.Errorf("receive at %s: %w", j.Server.Label, err)
	}
	return nil
}

// send sends until the window closes.
func (d *datagrams) send(ctx context.Context, to socket) error {
	b := newBatch(d.size, false)
	for next := int64(0); ; {
		now := time.Now()
		if !now.Before(d.w.until) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n := batchSize
		if d.pace.interval > 0 {
			n = int(min(d.pace.due(now)-next, batchSize))
		}
		if n <= 0 {
			if err := sleepUntil(ctx, d.pace.at(next)); err != nil {
				return err
			}
			continue
		}
		for i := range n {
			stamp(b.payload(i), d.run, next+int64(i), now.Sub(d.w.start))
		}
		if err := sendAll(ctx, b, to, n); err != nil {
			return err
		}
		next += int64(n)
		if d.w.counts(now) {
			d.sent += int64(n)
		}
	}
}

// sendAll sends the first n of a batch, waiting while the socket is full. A
// datagram that a queue refused counts as sent: it is lost.
func sendAll(ctx context.Context, b *batch, to socket, n int) error {
	for i := 0; i < n; {
		sent, err := b.send(to, i, n)
		switch {
		case err == nil:
			i += sent
		case errors.Is(err, unix.ENOBUFS):
			i++
		case !stuck(err):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
	}
	return nil
}

// receive takes datagrams until nothing has come for stuckTimeout after the
// sender's end; no longer than drainTimeout, if a deep queue is on the way.
func (d *datagrams) receive(ctx context.Context, from socket, sent <-chan struct{}) error {
	b := newBatch(d.size, false)
	for {
		over := closed(sent) // before the silence begins
		n, err := b.receive(from)
		if err != nil && !stuck(err) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		for i := range n {
			d.arrive(b.received(i), d, now)
		}
		if over && (n == 0 || now.After(d.w.until.Add(drainTimeout))) {
			return nil
		}
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// figures puts both ends together, with what found the receiver's socket full and
// the path's MTU.
func (d *datagrams) figures(j Job, drops uint32, mtu int) (Figures, error) {
	if d.got == 0 {
		return nil, fmt.Errorf("nothing arrived at %s in %v", j.Server.Label, j.Duration)
	}
	seconds := j.Duration.Seconds()
	f := Figures{
		PacketsSent:   float64(d.sent) / seconds,
		PacketRate:    float64(d.inWindow) / seconds,
		Loss:          1 - float64(d.got)/float64(d.sent),
		Reordered:     float64(d.reordered) / float64(d.got),
		Duplicates:    float64(d.duplicates),
		ReceiverDrops: float64(drops),
		PathMTU:       float64(mtu),
	}
	if j.Workload == UDPStream {
		f[Offered] = f[PacketsSent] * float64(d.size) * 8
		f[Throughput] = f[PacketRate] * float64(d.size) * 8
		f[Jitter] = time.Duration(d.jitter).Seconds()
	}
	return f, nil
}
