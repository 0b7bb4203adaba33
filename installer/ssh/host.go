package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"slipway/installer"
)

// Host is a machine over SSH. Its methods may be called from several goroutines.
type Host struct {
	target Target
	d      *dialer
	slots  chan struct{}

	mu     sync.Mutex // held while connecting
	conn   *connection
	route  route
	become become
	closed bool
}

// sessionsPerHost is how many programs run at once; sshd allows 10 sessions on one
// connection (MaxSessions), of which some are kept for ending others.
const sessionsPerHost = 6

// Open connects to a machine, and finds out how to be root there. Errors are
// *ConfigError, *ConnectError, *HostKeyError, *AuthError, *LoginError and
// *SudoError.
func Open(ctx context.Context, t Target, o Options) (*Host, error) {
	d, err := newDialer(o)
	if err != nil {
		return nil, &ConfigError{Host: t.Name, File: o.ConfigFile, Err: err}
	}
	return d.host(ctx, t)
}

// OpenAll connects to many machines, some at once, and reports everything that
// failed. Hosts that were opened are returned then too, and are to be closed.
func OpenAll(ctx context.Context, targets []Target, o Options) (map[string]*Host, error) {
	d, err := newDialer(o)
	if err != nil {
		return nil, &ConfigError{Host: "all hosts", File: o.ConfigFile, Err: err}
	}
	parallel := o.Parallel
	if parallel <= 0 {
		parallel = defaultParallel
	}
	slots := make(chan struct{}, parallel)
	hosts, errs := make([]*Host, len(targets)), make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			hosts[i], errs[i] = d.host(ctx, t)
		})
	}
	wg.Wait()
	out := map[string]*Host{}
	for i, h := range hosts {
		if h != nil {
			out[targets[i].Name] = h
		}
	}
	return out, errors.Join(errs...)
}

// CloseAll closes hosts.
func CloseAll(hosts map[string]*Host) {
	for _, h := range hosts {
		_ = h.Close()
	}
}

func (d *dialer) host(ctx context.Context, t Target) (*Host, error) {
	h := &Host{target: t, d: d, slots: make(chan struct{}, sessionsPerHost)}
	conn, err := h.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.findRoot(ctx, conn); err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

// Name is the target's name.
func (h *Host) Name() string { return h.target.Name }

// Address is "user@host:port", as it was resolved.
func (h *Host) Address() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.route.user + "@" + h.route.address()
}

// user is who logs in.
func (h *Host) user() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.route.user
}

// errClosed says that the host was closed.
var errClosed = errors.New("the host was closed")

// connect returns the connection, a new one if it was lost.
func (h *Host) connect(ctx context.Context) (*connection, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, fmt.Errorf("%s: %w", h.target.Name, errClosed)
	}
	if h.conn != nil {
		if !h.conn.isLost() {
			return h.conn, nil
		}
		h.d.o.tell(Event{Host: h.target.Name, Kind: Again, Text: fmt.Sprint(h.conn.err)})
	}
	conn, r, err := h.d.dial(ctx, h.target)
	if err != nil {
		return nil, err
	}
	h.conn, h.route = conn, r
	return conn, nil
}

// Close ends the connection. Programs that run are not ended by it.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	if h.conn != nil {
		h.conn.close()
		<-h.conn.lost
	}
	return nil
}

// Run runs a program as root, to its end. A *LostError with Began says that nobody
// knows how it ended. If ctx ends first, the program is ended.
func (h *Host) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	var out, errs bytes.Buffer
	code, err := h.Stream(ctx, c.Argv, bytes.NewReader(c.Stdin), &out, &errs)
	return installer.Result{Code: code, Stdout: out.Bytes(), Stderr: errs.Bytes()}, err
}

// Stream is Run with the program's input and output as they come. stdin may be
// nil; it is not read before the program runs. A reader that blocks is left
// waiting when the program has ended.
func (h *Host) Stream(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	if len(argv) == 0 {
		return 0, fmt.Errorf("%s: no program to run", h.target.Name)
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	for try := 1; ; try++ {
		conn, err := h.connect(ctx)
		if err != nil {
			return 0, err
		}
		code, err := h.session(ctx, conn, h.become, run{argv: argv, stdin: stdin, stdout: stdout, stderr: stderr})
		var lost *LostError
		if errors.As(err, &lost) && !lost.Began && try == 1 {
			conn.close() // whatever is left of it
			<-conn.lost
			continue
		}
		return code, err
	}
}

// Fetch writes a file of the host to w.
func (h *Host) Fetch(ctx context.Context, path string, w io.Writer) error {
	var said bytes.Buffer
	code, err := h.Stream(ctx, []string{"cat", "--", path}, nil, w, &said)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", path, err)
	}
	if code != 0 {
		return fmt.Errorf("%s: fetch %s: exit code %d: %s", h.target.Name, path, code, strings.TrimSpace(said.String()))
	}
	return nil
}
