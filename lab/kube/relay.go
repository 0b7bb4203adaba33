package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"slipway/lab/kubeapi"
)

// Relay carries connections from a loopback port of this machine to the lab's
// API, until ctx ends: kubectl and its like need no namespace to reach it. The
// bytes are TLS from end to end. The port is the former one if it is free, so
// that kubeconfigs stay good.
func Relay(ctx context.Context, name string, log *slog.Logger) error {
	l, err := listen(ctx, name)
	if err != nil {
		return fmt.Errorf("relay to the API: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	if err := os.WriteFile(relayPath(name)+".part", []byte(l.Addr().String()), 0o600); err != nil {
		return err
	}
	if err := os.Rename(relayPath(name)+".part", relayPath(name)); err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("relay to the API: %w", err)
		}
		go func() {
			if err := relay(ctx, name, c.(*net.TCPConn)); err != nil && ctx.Err() == nil {
				log.Warn("relay to the API", "err", err)
			}
		}()
	}
}

func listen(ctx context.Context, name string) (net.Listener, error) {
	var lc net.ListenConfig
	if former, err := os.ReadFile(relayPath(name)); err == nil {
		if l, err := lc.Listen(ctx, "tcp", string(former)); err == nil {
			return l, nil
		}
	}
	return lc.Listen(ctx, "tcp", "127.0.0.1:0")
}

// dialPatience bounds the way to an API server that does not answer.
const dialPatience = 5 * time.Second

func relay(ctx context.Context, name string, c *net.TCPConn) error {
	defer c.Close() //nolint:errcheck // nothing is left to be said
	dial, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	api, err := kubeapi.Dial(dial, name)
	if err != nil {
		return err
	}
	defer api.Close() //nolint:errcheck // as above
	stop := context.AfterFunc(ctx, func() { _ = errors.Join(c.Close(), api.Close()) })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pipe(api, c) })
	both.Go(func() { pipe(c, api) })
	both.Wait()
	return nil
}

// pipe copies until there is no more and says so to the other side.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = to.Close()
}
