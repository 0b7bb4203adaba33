package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"slipway/datapath"
)

// Client speaks to a lab's daemon over its Unix socket.
type Client struct {
	http http.Client
	path string
}

// ErrNotRunning reports that no daemon answers on the socket.
var ErrNotRunning = errors.New("the lab's daemon is not running")

// NewClient returns a client for the socket at path; it connects on first use.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
	return c
}

// Close lets go of the connections that the client keeps for its next question.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Set makes the daemon run what d says and returns what that changed.
func (c *Client) Set(ctx context.Context, d Desired) ([]datapath.Change, error) {
	var out Changes
	err := c.call(ctx, http.MethodPut, "/desired", d, &out)
	return out.Changes, err
}

// Status asks what the daemon runs.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var out Status
	err := c.call(ctx, http.MethodGet, "/status", nil, &out)
	return out, err
}

// Tunnel asks for a node's user-space tunnel. One that is not there is not running.
func (c *Client) Tunnel(ctx context.Context, node string) (Tunnel, error) {
	var out Tunnel
	err := c.call(ctx, http.MethodGet, "/tunnels/"+node, nil, &out)
	return out, err
}

// Wait returns when every BGP speaker has all its sessions and routes, or ctx ends.
func (c *Client) Wait(ctx context.Context) (Status, error) {
	var out Status
	err := c.call(ctx, http.MethodGet, "/converged", nil, &out)
	return out, err
}

// Shutdown asks the daemon to end and waits until it no longer answers.
func (c *Client) Shutdown(ctx context.Context) error {
	if err := c.call(ctx, http.MethodPost, "/shutdown", nil, nil); err != nil {
		return err
	}
	for {
		if _, err := c.Status(ctx); errors.Is(err, ErrNotRunning) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the daemon to end: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// away tells a daemon that is not there, or that ended while it was asked.
func away(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial" ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.EOF)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	body := &bytes.Buffer{}
	if in != nil {
		if err := json.NewEncoder(body).Encode(in); err != nil {
			return fmt.Errorf("daemon %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://slipwayd"+path, body)
	if err != nil {
		return fmt.Errorf("daemon %s: %w", path, err)
	}
	resp, err := c.http.Do(req)
	if away(err) {
		return fmt.Errorf("daemon %s: %w", path, ErrNotRunning)
	}
	if err != nil {
		return fmt.Errorf("daemon %s: %w", path, err)
	}
	defer resp.Body.Close() //nolint:errcheck // response was read
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return fmt.Errorf("daemon %s: %s", path, bytes.TrimSpace(said))
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("daemon %s: read answer: %w", path, err)
	}
	return nil
}
