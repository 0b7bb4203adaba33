package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Half is what one end of a job knows when its ends ran apart: in two processes,
// on two machines, by two clocks. [Join] puts two halves together.
type Half struct {
	// Figures are the client's of requests: it sees all that there is.
	Figures   Figures        `json:"figures,omitempty"`
	Streams   []HalfStream   `json:"streams,omitempty"`   // of tcp-stream
	Datagrams *HalfDatagrams `json:"datagrams,omitempty"` // of udp-stream and udp-pps
}

// HalfStream is one end of a connection.
type HalfStream struct {
	// The receiver's.
	Bytes  int64 `json:"bytes,omitempty"`
	TookNs int64 `json:"tookNs,omitempty"`
	// The sender's.
	Retransmits uint32 `json:"retransmits,omitempty"`
	Window      uint32 `json:"window,omitempty"`
	MSS         uint32 `json:"mss,omitempty"`
	MTU         uint32 `json:"mtu,omitempty"`
}

// HalfDatagrams is one end of a stream of datagrams.
type HalfDatagrams struct {
	// The receiver's.
	InWindow   int64   `json:"inWindow,omitempty"`
	Got        int64   `json:"got,omitempty"`
	Reordered  int64   `json:"reordered,omitempty"`
	Duplicates int64   `json:"duplicates,omitempty"`
	JitterNs   float64 `json:"jitterNs,omitempty"`
	Drops      uint32  `json:"drops,omitempty"`
	// The sender's.
	Sent int64 `json:"sent,omitempty"`
	Size int   `json:"size,omitempty"`
	MTU  int   `json:"mtu,omitempty"`
}

// Server is the server's end of one job whose client runs elsewhere.
type Server struct {
	job  Job
	s    socket
	port uint16
}

// Listen opens the server's end of a job at its server's place, to which one client
// may connect at once. The job's client says nothing here.
func Listen(j Job) (*Server, error) {
	j.Client, j.Far, j.Served = j.Server, false, false
	p, err := j.prepared()
	if err != nil {
		return nil, err
	}
	if p.Workload == Idle || workloads[p.Workload] == nil {
		return nil, fmt.Errorf("there is no server of a workload %q", p.Workload)
	}
	s := &Server{job: p}
	switch p.Workload {
	case UDPStream, UDPPackets:
		s.s, s.port, err = listenDatagrams(p)
	case UDPRequests:
		s.s, s.port, err = listen(p, unix.SOCK_DGRAM)
	default:
		if s.s, s.port, err = listen(p, unix.SOCK_STREAM); err == nil {
			err = s.s.buffer(unix.SO_RCVBUFFORCE, p.Buffer)
		}
	}
	return s, err
}

// Port is where the server listens.
func (s *Server) Port() uint16 { return s.port }

// Close ends the listening, after Run.
func (s *Server) Close() { s.s.close() }

// Run serves one client. A receiver of a stream ends by itself, when its window is
// over; others when ended is closed, which says that the client has sent all. What
// the server knows is told before connections are closed, so that a client that is
// still sending is not cut off: Run returns after told does.
func (s *Server) Run(ctx context.Context, ended <-chan struct{}, told func(Half) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.job.most())
	defer cancel()
	var h Half
	var err error
	switch s.job.Workload {
	case TCPStream:
		var conns []socket
		conns, err = s.accept(ctx)
		defer closeAll(conns)
		if err == nil {
			h, err = s.takeStreams(ctx, conns)
		}
	case UDPStream, UDPPackets:
		h, err = s.takeDatagrams(ctx, ended)
	default:
		err = s.answer(ctx, ended)
	}
	if err != nil {
		return fmt.Errorf("serve %s at %s: %w", s.job.Workload, s.job.Server.Label, err)
	}
	return told(h)
}

// accept takes the job's connections.
func (s *Server) accept(ctx context.Context) (conns []socket, err error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for range s.job.Streams {
		c, err := s.s.await(ctx)
		if err != nil {
			return conns, fmt.Errorf("accept: %w", err)
		}
		conns = append(conns, c)
		if err := c.noDelay(); err != nil {
			return conns, err
		}
	}
	return conns, nil
}

func closeAll(conns []socket) {
	for _, c := range conns {
		c.close()
	}
}

// takeStreams receives from all connections. The window begins when the last of
// them stands, so that it may end a moment after the client's: who goes on sending
// until it is told (see [Ask]).
func (s *Server) takeStreams(ctx context.Context, conns []socket) (Half, error) {
	streams := make([]stream, len(conns))
	group, ctx := errgroup.WithContext(ctx)
	w := s.job.open()
	for i, c := range conns {
		group.Go(func() error { return streams[i].receive(ctx, c, w, make([]byte, max(s.job.Write, DefaultWrite))) })
	}
	if err := group.Wait(); err != nil {
		return Half{}, err
	}
	var h Half
	for _, one := range streams {
		h.Streams = append(h.Streams, HalfStream{Bytes: one.bytes, TookNs: one.took.Nanoseconds()})
	}
	return h, nil
}

func (s *Server) takeDatagrams(ctx context.Context, ended <-chan struct{}) (Half, error) {
	d := &datagrams{run: s.job.Run, size: s.job.Size, opens: s.job.openAt}
	if d.size == 0 { // as the path's MTU lets the client choose
		d.size = maxDatagram
	}
	if err := d.receive(ctx, s.s, ended); err != nil {
		return Half{}, err
	}
	drops, err := s.s.drops()
	return Half{Datagrams: &HalfDatagrams{
		InWindow: d.inWindow, Got: d.got, Reordered: d.reordered, Duplicates: d.duplicates, JitterNs: d.jitter, Drops: drops,
	}}, err
}

// answer answers requests until the client has ended.
func (s *Server) answer(ctx context.Context, ended <-chan struct{}) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		select {
		case <-ended:
		case <-serving.Done():
		}
	}()
	err := s.answerAll(serving)
	if ctx.Err() == nil && closed(ended) { // what was under way is cut off as it should be
		return nil
	}
	if err == nil {
		err = errors.Join(ctx.Err(), io.ErrUnexpectedEOF)
	}
	return err
}

func (s *Server) answerAll(ctx context.Context) error {
	group, each := errgroup.WithContext(ctx)
	switch s.job.Workload {
	case UDPRequests:
		return echoDatagrams(ctx, s.s, s.job.Size)
	case TCPConnects:
		for range s.job.Streams {
			group.Go(func() error { return answerConnects(each, s.s, make([]byte, s.job.Size)) })
		}
		return group.Wait()
	}
	serve := echoing(s.job)
	if s.job.Workload == HTTP {
		serve = servingHTTP(s.job)
	}
	conns, err := s.accept(ctx)
	defer closeAll(conns)
	if err != nil {
		return err
	}
	for _, c := range conns {
		group.Go(func() error { return serve(each, c) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	<-ctx.Done() // the client closes before it says that it has ended
	return nil
}

// Ask runs the client's end of a job whose server is a [Server] at j.Server.Addr and
// j.Port, or behind j.To. A sender of a stream goes on until enough is closed, which
// says that the receiver's window is over, too. The job's server has no namespace here.
func Ask(ctx context.Context, j Job, enough <-chan struct{}) (Half, error) {
	j.Server.NS, j.Far, j.Served = j.Client.NS, true, false
	run := workloads[j.Workload]
	if run == nil || j.Workload == Idle {
		return Half{}, fmt.Errorf("there is no client of a workload %q", j.Workload)
	}
	p, err := j.prepared()
	if err != nil {
		return Half{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.most())
	defer cancel()
	var h Half
	switch p.Workload {
	case TCPStream:
		h.Streams, err = p.sendStreams(ctx, enough)
	case UDPStream, UDPPackets:
		h.Datagrams, err = p.sendDatagrams(ctx)
	default:
		h.Figures, err = run(ctx, p)
	}
	if err != nil {
		return Half{}, fmt.Errorf("%s from %s to %s: %w", p.Workload, p.Client.Label, p.Server.Label, err)
	}
	return h, nil
}

func (j Job) sendStreams(ctx context.Context, enough <-chan struct{}) ([]HalfStream, error) {
	pairs, err := connect(ctx, j)
	if err != nil {
		return nil, err
	}
	defer closePairs(pairs)
	streams := make([]stream, len(pairs))
	group, ctx := errgroup.WithContext(ctx)
	w := j.open()
	for i, p := range pairs {
		group.Go(func() error {
			buf := make([]byte, j.Write)
			if err := streams[i].send(ctx, p.client, w, buf); err != nil {
				return fmt.Errorf("send: %w", err)
			}
			return fill(ctx, p.client, buf, enough, w.until.Add(drainTimeout))
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []HalfStream
	for _, s := range streams {
		out = append(out, HalfStream{Retransmits: s.retransmits, Window: s.window, MSS: s.info.Snd_mss, MTU: s.info.Pmtu})
	}
	return out, nil
}

// fill keeps a connection busy until the receiver has had enough.
func fill(ctx context.Context, to socket, buf []byte, enough <-chan struct{}, end time.Time) error {
	for !closed(enough) && time.Now().Before(end) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := unix.Write(int(to), buf); err != nil && !stuck(err) {
			return fmt.Errorf("send: %w", err)
		}
	}
	return nil
}

func (j Job) sendDatagrams(ctx context.Context) (*HalfDatagrams, error) {
	s, mtu, err := dialDatagrams(ctx, &j, j.Port)
	if err != nil {
		return nil, err
	}
	defer s.close()
	d := newDatagrams(j, j.Run)
	err = d.sendFrom(ctx, j, s)
	return &HalfDatagrams{Sent: d.sent, Size: j.Size, MTU: mtu}, err
}

// Join makes a job's figures of what its client and its server know.
func Join(j Job, client, server Half) (Figures, error) {
	switch j.Workload {
	case TCPStream:
		return joinStreams(j, client.Streams, server.Streams)
	case UDPStream, UDPPackets:
		c, s := client.Datagrams, server.Datagrams
		if c == nil || s == nil || c.Sent == 0 {
			return nil, errors.New("one end says nothing of its datagrams")
		}
		d := &datagrams{size: c.Size, sent: c.Sent}
		d.inWindow, d.got, d.reordered, d.duplicates, d.jitter = s.InWindow, s.Got, s.Reordered, s.Duplicates, s.JitterNs
		return d.figures(j, s.Drops, c.MTU)
	}
	if len(client.Figures) == 0 {
		return nil, errors.New("the client has no figures")
	}
	return client.Figures, nil
}

func joinStreams(j Job, client, server []HalfStream) (Figures, error) {
	if len(client) == 0 || len(client) != len(server) {
		return nil, fmt.Errorf("the client has %d streams, the server %d", len(client), len(server))
	}
	streams := make([]stream, len(client))
	for i, c := range client {
		info := &unix.TCPInfo{Snd_mss: c.MSS, Pmtu: c.MTU}
		streams[i] = stream{bytes: server[i].Bytes, took: time.Duration(server[i].TookNs), retransmits: c.Retransmits, window: c.Window, info: info}
	}
	return streamFigures(streams, j)
}
