package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"

	gossh "golang.org/x/crypto/ssh"
)

// maxJumps bounds a way, which may lead back to itself.
const maxJumps = 8

// open makes the connection that the handshake goes over: to the host itself, or
// through the last jump host. free lets go of that.
func (d *dialer) open(ctx context.Context, r route) (conn net.Conn, via string, free func(), err error) {
	if len(r.jumps) == 0 {
		conn, err := d.tcp(ctx, r.address())
		if err != nil {
			return nil, "", nil, d.unreachable(ctx, r, "", err)
		}
		return conn, "", func() {}, nil
	}
	last := r.jumps[len(r.jumps)-1]
	via = last.Name
	through, free, err := d.through(ctx, r)
	if err != nil {
		return nil, via, nil, err
	}
	conn, err = through.client.DialContext(ctx, "tcp", r.address())
	if err != nil {
		free()
		return nil, via, nil, d.unreachable(ctx, r, via, err)
	}
	return conn, via, free, nil
}

func (d *dialer) tcp(ctx context.Context, address string) (net.Conn, error) {
	if d.o.Dial != nil {
		return d.o.Dial(ctx, "tcp", address)
	}
	var n net.Dialer
	return n.DialContext(ctx, "tcp", address)
}

func (d *dialer) unreachable(ctx context.Context, r route, via string, err error) error {
	e := &ConnectError{Host: r.name, Address: r.address(), Via: via, Err: err}
	var refused *gossh.OpenChannelError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		e.Err = fmt.Errorf("no answer within %v: %w", d.o.handshake(), err)
	case errors.As(err, &refused) && refused.Reason == gossh.Prohibited:
		e.hint = "the jump host lets nobody through (sshd there: AllowTcpForwarding, PermitOpen)"
	}
	return e
}

// hop is the last jump host of a way, with the way to it.
func (d *dialer) hop(r route) (route, error) {
	last, before := r.jumps[len(r.jumps)-1], r.jumps[:len(r.jumps)-1]
	hop, err := d.settings.route(last, d.o)
	if err != nil {
		return hop, err
	}
	if len(before) > 0 { // a list says the whole way
		hop.jumps = before
	}
	return hop, nil
}

// ends follows a way to its beginning.
func (d *dialer) ends(r route) error {
	for range maxJumps + 1 {
		if len(r.jumps) == 0 {
			return nil
		}
		var err error
		if r, err = d.hop(r); err != nil {
			return err
		}
	}
	return errors.New("the jump hosts lead in a circle, or are too many")
}

// through returns the connection to the last jump host of a way. All hosts behind
// it share it.
func (d *dialer) through(ctx context.Context, r route) (*connection, func(), error) {
	hop, err := d.hop(r)
	if err != nil {
		return nil, nil, &ConfigError{Host: r.name, File: d.files(), Err: err}
	}
	id := fmt.Sprint(hop.user, "@", hop.address(), hop.jumps)
	d.mu.Lock()
	j := d.jumps[id]
	if j == nil {
		j = &jump{}
		d.jumps[id] = j
	}
	d.mu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.conn == nil || j.conn.isLost() {
		conn, err := d.once(ctx, hop)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: jump host: %w", r.name, err)
		}
		j.conn, j.used = conn, 0
	}
	conn := j.conn
	j.used++
	return conn, func() { j.release(conn) }, nil
}

// release closes a jump host's connection after the last host behind it.
func (j *jump) release(conn *connection) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.conn != conn {
		return
	}
	if j.used--; j.used == 0 {
		conn.close()
		j.conn = nil
	}
}
