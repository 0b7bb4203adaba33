package load

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// pair is one TCP connection with both of its ends. Where somebody else serves,
// the server's end is -1.
type pair struct{ client, server socket }

// connect makes a job's connections, one after the other.
func connect(ctx context.Context, j Job) (pairs []pair, err error) {
	defer func() {
		if err != nil {
			closePairs(pairs)
			pairs = nil
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	l, port := socket(-1), j.Port
	if !j.alone() {
		if l, port, err = listen(j, unix.SOCK_STREAM); err != nil {
			return nil, err
		}
		defer l.close()
		if err = l.buffer(unix.SO_RCVBUFFORCE, j.Buffer); err != nil {
			return nil, fmt.Errorf("at %s: %w", j.Server.Label, err)
		}
	}
	for range j.Streams {
		p := pair{-1, -1}
		if p.client, err = dial(ctx, j, unix.SOCK_STREAM, j.target(port)); err != nil {
			return pairs, err
		}
		if err = p.client.buffer(unix.SO_SNDBUFFORCE, 2*j.Buffer); err != nil {
			p.client.close()
			return pairs, fmt.Errorf("at %s: %w", j.Client.Label, err)
		}
		if !j.alone() {
			if p.server, err = l.await(ctx); err != nil {
				p.client.close()
				return pairs, fmt.Errorf("accept at %s what %s connected to %s: %w", j.Server.Label, j.Client.Label, j.target(port), err)
			}
			if err = p.server.noDelay(); err != nil {
				p.client.close()
				p.server.close()
				return pairs, err
			}
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

func closePairs(pairs []pair) {
	for _, p := range pairs {
		p.client.close()
		if p.server >= 0 {
			p.server.close()
		}
	}
}
