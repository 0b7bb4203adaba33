package kubejobs

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"slipway/internal/netns"
	"slipway/lab/bench/load"
)

// ServerConfig is a server's: in its environment, as JSON.
type ServerConfig struct {
	Token string `json:"token"`
	// Control and Data are the ports of what is coming, and of the traffic.
	Control uint16 `json:"control"`
	Data    uint16 `json:"data"`
	// Until bounds the server's life, whatever becomes of who started it.
	LifeNs int64 `json:"lifeNs"`
}

// The names of labels in what both ends count.
const (
	clientLabel = "client"
	serverLabel = "server"
)

// helloWithin is how long one who connects may take to say what he wants.
const helloWithin = 10 * time.Second

// server is one on its way. It serves one measurement at a time.
type server struct {
	ServerConfig
	node    string
	address netip.Addr
	seen    *observer
	busy    sync.Mutex
}

// Serve is the server's pod: it waits for clients at its address until the context
// or its life ends.
func Serve(ctx context.Context, c ServerConfig, node string, address netip.Addr) error {
	if c.Token == "" || c.Control == 0 || c.Data == 0 || c.LifeNs <= 0 {
		return errors.New("a server needs a token, two ports and an end")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(c.LifeNs))
	defer cancel()
	seen, err := observe(node, serverLabel, address)
	if err != nil {
		return err
	}
	s := &server{ServerConfig: c, node: node, address: address, seen: seen}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", net.JoinHostPort(address.String(), strconv.Itoa(int(c.Control))))
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // which ends accepting
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was to end
		}
		if err != nil {
			return fmt.Errorf("accept a client: %w", err)
		}
		all.Go(func() { s.handle(ctx, conn) })
	}
}

// handle serves one measurement.
func (s *server) handle(ctx context.Context, conn net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close() //nolint:errcheck // nobody listens any more
	say := json.NewEncoder(conn)
	if err := s.serve(ctx, cancel, conn, say); err != nil {
		_ = say.Encode(reply{Error: err.Error()}) // if he is gone, he does not need it
	}
}

var errToken = errors.New("the token is not this bench's")

func (s *server) serve(ctx context.Context, cancel context.CancelFunc, conn net.Conn, say *json.Encoder) error {
	if err := conn.SetReadDeadline(time.Now().Add(helloWithin)); err != nil {
		return err
	}
	hear := json.NewDecoder(conn)
	var q request
	if err := hear.Decode(&q); err != nil {
		return fmt.Errorf("read what is wanted: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(q.Token), []byte(s.Token)) != 1 {
		return errToken
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	s.busy.Lock()
	defer s.busy.Unlock()
	before, err := s.seen.watch.Read()
	if err != nil {
		return err
	}
	place := load.Place{NS: netns.Own(), Addr: s.address, Label: serverLabel}
	j := q.Job.load(place, place)
	j.Port = s.Data
	end, err := load.Listen(j)
	if err != nil {
		return err
	}
	defer end.Close()
	if err := say.Encode(reply{Port: end.Port()}); err != nil {
		return err
	}
	sent, released := listenOn(hear, cancel)
	return end.Run(ctx, sent, func(h load.Half) error {
		after, err := s.seen.watch.Read()
		if err != nil {
			return err
		}
		m, err := s.seen.now()
		if err != nil {
			return err
		}
		cost := after.Since(before)
		if err := say.Encode(reply{Half: &h, Cost: &cost, Machine: &m}); err != nil {
			return err
		}
		select {
		case <-released:
		case <-ctx.Done():
		case <-time.After(helloWithin):
		}
		return nil
	})
}

// listenOn waits for the client to say that it has sent all, and then for its end.
// One that goes away before ends the measurement.
func listenOn(hear *json.Decoder, gone context.CancelFunc) (sent, released <-chan struct{}) {
	s, r := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(r)
		var e ended
		if err := hear.Decode(&e); err != nil || !e.Ended {
			gone()
			return
		}
		close(s)
		_ = hear.Decode(&e) // there is nothing more to come
	}()
	return s, r
}
