package initd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"syscall"
)

// Client talks to a node's first process.
type Client struct{ socket string }

// NewClient returns a client of the process that listens at a socket.
func NewClient(socket string) *Client { return &Client{socket} }

// ErrNotRunning says that the node's first process does not answer.
var ErrNotRunning = errors.New("the node does not run")

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr []byte
}

// Run runs a command in the node. If ctx ends first, the command is killed.
func (c *Client) Run(ctx context.Context, argv []string, stdin []byte) (Result, error) {
	a, err := c.ask(ctx, request{Do: "run", Argv: argv, Stdin: stdin})
	return Result{a.Code, a.Stdout, a.Stderr}, err
}

// Ping reports whether the node is up.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.ask(ctx, request{Do: "ping"})
	return err
}

// End stops the node's services, the last first, and ends the node.
func (c *Client) End(ctx context.Context) error {
	_, err := c.ask(ctx, request{Do: "end"})
	return err
}

// Services lists the node's services.
func (c *Client) Services(ctx context.Context) ([]Status, error) {
	a, err := c.ask(ctx, request{Do: "list"})
	return a.Statuses, err
}

func (c *Client) ask(ctx context.Context, r request) (answer, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		return answer{}, ErrNotRunning
	}
	if err != nil {
		return answer{}, err
	}
	defer conn.Close() //nolint:errcheck // everything is read
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return answer{}, fmt.Errorf("ask the node: %w", err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		if ctx.Err() != nil {
			return answer{}, ctx.Err()
		}
		return answer{}, fmt.Errorf("the node's answer: %w", err)
	}
	switch {
	case a.NoUnit != "":
		return a, &NoUnitError{a.NoUnit}
	case a.Error != "":
		return a, errors.New(a.Error)
	}
	return a, nil
}
