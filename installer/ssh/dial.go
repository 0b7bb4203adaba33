package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// dialer connects to hosts. What they share lies here: keys that were read, files
// of host keys, connections to jump hosts.
type dialer struct {
	o        Options
	settings *settings
	keys     keyring
	hosts    hostKeys

	mu    sync.Mutex
	jumps map[string]*jump
}

// jump is a connection that others go through.
type jump struct {
	mu   sync.Mutex // held while it is made
	conn *connection
	used int
}

func newDialer(o Options) (*dialer, error) {
	s, err := readSettings(o.ConfigFile)
	if err != nil {
		return nil, err
	}
	return &dialer{o: o, settings: s, keys: keyring{passphrase: o.Passphrase, read: map[string]keyFile{}}, jumps: map[string]*jump{}}, nil
}

// files are those that say how hosts are reached, for messages.
func (d *dialer) files() string { return strings.Join(d.settings.files, ", ") }

// connection is one to a host. It knows when it is lost.
type connection struct {
	client *gossh.Client
	lost   chan struct{} // closed when it is
	err    error         // why, then
	free   func()        // lets go of the jump host
}

// Keepalives go out while a host says nothing; one that answers none for so long
// is lost. Machines that swap or compile answer late.
const (
	keepaliveEvery = 15 * time.Second
	keepaliveLimit = 2 * time.Minute
)

func newConnection(c *gossh.Client, free func()) *connection {
	n := &connection{client: c, lost: make(chan struct{}), free: free}
	go func() {
		if n.err = c.Wait(); n.err == nil {
			n.err = io.EOF
		}
		close(n.lost)
		free()
	}()
	go n.keepalive()
	return n
}

func (n *connection) isLost() bool {
	select {
	case <-n.lost:
		return true
	default:
		return false
	}
}

// keepalive ends a connection at whose other end nobody is.
func (n *connection) keepalive() {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-n.lost:
			return
		case <-tick.C:
		}
		dead := time.AfterFunc(keepaliveLimit, func() { _ = n.client.Close() })
		// sshd answers what it does not know too (OpenSSH: serverloop.c).
		_, _, err := n.client.SendRequest("keepalive@openssh.com", true, nil)
		dead.Stop()
		if err != nil {
			_ = n.client.Close()
			return
		}
	}
}

func (n *connection) close() { _ = n.client.Close() }

// dialTries is how often a connection is begun that ends in the handshake: sshd
// drops some when many come at once (MaxStartups 10:30:100).
const dialTries = 5

// dial connects to a target.
func (d *dialer) dial(ctx context.Context, t Target) (*connection, route, error) {
	r, err := d.settings.route(t, d.o)
	if err == nil {
		err = d.ends(r)
	}
	if err != nil {
		return nil, r, &ConfigError{Host: t.Name, File: d.files(), Err: err}
	}
	pause := 300 * time.Millisecond
	for try := 1; ; try++ {
		conn, err := d.once(ctx, r)
		if err == nil {
			d.o.tell(Event{Host: t.Name, Kind: Connected, Text: r.user + "@" + r.address()})
			return conn, r, nil
		}
		if try == dialTries || ctx.Err() != nil || !dropped(err) {
			return nil, r, err
		}
		select {
		case <-ctx.Done():
			return nil, r, err
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// dropped reports whether a connection was there and then ended.
func dropped(err error) bool {
	var c *ConnectError
	return errors.As(err, &c) && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE))
}

func (d *dialer) once(ctx context.Context, r route) (*connection, error) {
	check, algos, err := d.hosts.callback(r, d.o)
	if err != nil {
		return nil, &ConfigError{Host: r.name, File: strings.Join(r.knownHosts, ", "), Err: err}
	}
	keys := d.keys.offer(ctx, r)
	defer keys.close()
	limit, cancel := context.WithTimeout(ctx, d.o.handshake())
	defer cancel()
	raw, via, free, err := d.open(limit, r)
	if err != nil {
		return nil, err
	}
	client, err := handshake(limit, raw, r, check, algos, keys)
	if err != nil {
		free()
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, context.Cause(ctx)
		}
		return nil, d.explain(err, limit, r, via, keys)
	}
	return newConnection(client, free), nil
}

// handshake logs in over an open connection, which it closes if it fails.
func handshake(ctx context.Context, raw net.Conn, r route, check gossh.HostKeyCallback, algos []string, keys *offer) (*gossh.Client, error) {
	// Channels through a jump host know no deadlines.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	var refused atomic.Pointer[error] // the library's own error hides the type
	config := &gossh.ClientConfig{
		User: r.user,
		HostKeyCallback: func(name string, addr net.Addr, key gossh.PublicKey) error {
			err := check(name, addr, key)
			if err != nil {
				refused.Store(&err)
			}
			return err
		},
		HostKeyAlgorithms: algos,
		ClientVersion:     "SSH-2.0-slipway",
	}
	if len(keys.signers) > 0 {
		config.Auth = []gossh.AuthMethod{gossh.PublicKeys(keys.signers...)}
	}
	conn, channels, requests, err := gossh.NewClientConn(raw, r.address(), config)
	if err != nil {
		_ = raw.Close()
		if r := refused.Load(); r != nil {
			return nil, *r
		}
		return nil, err
	}
	if !stop() { // cut off in the last moment
		_ = conn.Close()
		return nil, context.Cause(ctx)
	}
	return gossh.NewClient(conn, channels, requests), nil
}

// explain makes a typed error of what ended a handshake.
func (d *dialer) explain(err error, limit context.Context, r route, via string, keys *offer) error {
	var hostKey *HostKeyError
	switch {
	case errors.As(err, &hostKey):
		return err
	case errors.Is(limit.Err(), context.DeadlineExceeded):
		return &ConnectError{Host: r.name, Address: r.address(), Via: via, Err: fmt.Errorf("it answers, but the login was not done within %v", d.o.handshake()), hint: "the machine may be overloaded, or waits for a name server (sshd: UseDNS no); allow it more time"}
	case strings.Contains(err.Error(), "unable to authenticate"), strings.Contains(err.Error(), "no supported methods remain"), strings.Contains(err.Error(), "Too many authentication failures"):
		return &AuthError{Host: r.name, Address: r.address(), User: r.user, Tried: keys.names, Notes: keys.notes, Err: err}
	}
	hint := ""
	if strings.Contains(err.Error(), "overflow reading version string") || strings.Contains(err.Error(), "invalid") {
		hint = "something other than sshd listens there"
	}
	return &ConnectError{Host: r.name, Address: r.address(), Via: via, Err: err, hint: hint}
}
