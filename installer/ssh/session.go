package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	gossh "golang.org/x/crypto/ssh"
)

// run is a program to run.
type run struct {
	argv   []string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

// began is what the marker says of a program: it runs, or there is none.
type began struct {
	missing bool
	process process
}

// session runs a program in one session of a connection.
func (h *Host) session(ctx context.Context, conn *connection, b become, r run) (int, error) {
	s, err := openSession(ctx, conn)
	if err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, h.notOpened(conn, r, err)
	}
	defer s.Close() //nolint:errcheck // it has ended
	x := &exchange{h: h, conn: conn, session: s, become: b, run: r, mark: newMark(), ready: make(chan began, 1), broken: make(chan error, 2)}
	return x.do(ctx)
}

// openSession opens one; a connection that hangs does not hold up who gave up. Nor
// does one that is lost at this moment, whose news the library can miss.
func openSession(ctx context.Context, conn *connection) (*gossh.Session, error) {
	type opened struct {
		s   *gossh.Session
		err error
	}
	c := make(chan opened, 1)
	go func() {
		s, err := conn.client.NewSession()
		c <- opened{s, err}
	}()
	select {
	case o := <-c:
		return o.s, o.err
	case <-conn.lost:
		return nil, fmt.Errorf("it is gone: %w", conn.err)
	case <-ctx.Done():
		go func() {
			select {
			case o := <-c:
				if o.s != nil {
					_ = o.s.Close()
				}
			case <-conn.lost:
			}
		}()
		return nil, context.Cause(ctx)
	}
}

func (h *Host) notOpened(conn *connection, r run, err error) error {
	var refused *gossh.OpenChannelError
	if errors.As(err, &refused) {
		return &LoginError{Host: h.target.Name, User: h.user(), What: "opens no session for a program: " + refused.Error()}
	}
	return &LostError{Host: h.target.Name, What: r.argv[0], Err: err}
}

// exchange is one program's run.
type exchange struct {
	h       *Host
	conn    *connection
	session *gossh.Session
	become  become
	run     run
	mark    string

	out, errs gate
	ready     chan began // one message, when the mark has come
	broken    chan error // it cannot be listened to any more
	started   *began
}

// do starts the program, feeds it, and waits for its end.
func (x *exchange) do(ctx context.Context) (int, error) {
	prompt := newMark()
	via := x.become.command(prompt)
	x.out = gate{mark: x.mark + " out ", to: x.run.stdout, opens: x.opened, breaks: x.breaks}
	x.errs = gate{mark: x.mark + " err", to: lines(x.h, x.run.stderr), breaks: x.breaks}
	x.session.Stdout, x.session.Stderr = &x.out, &x.errs
	in, err := x.session.StdinPipe()
	if err != nil {
		return 0, x.lost(err, false)
	}
	if via != "" && x.become.password != "" {
		x.errs.noise = x.become.answer(prompt, in)
	}
	if err := x.session.Start(framed(via, x.mark, x.run.argv)); err != nil {
		return 0, x.lost(err, false)
	}
	ended := make(chan error, 1)
	go func() { ended <- x.session.Wait() }()
	late := time.NewTimer(x.h.d.o.handshake())
	defer late.Stop()
	for {
		select {
		case b := <-x.ready:
			x.started = &b
			late.Stop()
			go feed(in, x.run.stdin)
		case err := <-ended:
			return x.end(err)
		case err := <-x.broken:
			x.stop(context.WithoutCancel(ctx), ended)
			return 0, x.unheard(err)
		case <-ctx.Done():
			x.stop(context.WithoutCancel(ctx), ended)
			return 0, fmt.Errorf("%s: %s: %w", x.h.target.Name, x.run.argv[0], context.Cause(ctx))
		case <-late.C:
			x.stop(context.WithoutCancel(ctx), ended)
			return 0, x.notStarted(fmt.Sprintf("did not start a program within %v", x.h.d.o.handshake()))
		}
	}
}

// feed gives the word, and the program its input. The program may end before it has read it.
func feed(in io.WriteCloser, from io.Reader) {
	if _, err := io.WriteString(in, "go\n"); err == nil && from != nil {
		_, _ = io.Copy(in, from)
	}
	_ = in.Close()
}

func (x *exchange) opened(rest string) {
	state, stat, _ := strings.Cut(strings.TrimSpace(rest), " ")
	b := began{missing: state != "run"}
	b.process, _ = parseProcess(stat)
	x.ready <- b
}

// notice takes the mark, if it has come.
func (x *exchange) notice() {
	select {
	case b := <-x.ready:
		x.started = &b
	default:
	}
}

// breaks is called by the gates, each once.
func (x *exchange) breaks(err error) {
	select {
	case x.broken <- err:
	default:
	}
}

// unheard is the error of a program that cannot be listened to.
func (x *exchange) unheard(err error) error {
	if errors.Is(err, errNoise) {
		return x.notStarted("prints without an end")
	}
	return fmt.Errorf("%s: what %s prints: %w", x.h.target.Name, x.run.argv[0], err)
}

// end makes a result of how the session ended. What happened at the same moment
// was before that.
func (x *exchange) end(err error) (int, error) {
	word := x.started != nil
	x.notice()
	select {
	case err := <-x.broken:
		return 0, x.unheard(err)
	default:
	}
	var exit *gossh.ExitError
	switch {
	case err != nil && !errors.As(err, &exit):
		return 0, x.lost(err, word)
	case x.started == nil:
		code := 0
		if exit != nil {
			code = exit.ExitStatus()
		}
		return 0, x.become.refused(x, code)
	case x.started.missing:
		return 0, fmt.Errorf("%s: there is no program %s", x.h.target.Name, x.run.argv[0])
	case exit != nil:
		return exit.ExitStatus(), nil
	}
	return 0, nil
}

func (x *exchange) lost(err error, word bool) error {
	var missing *gossh.ExitMissingError
	if errors.As(err, &missing) || err == nil {
		err = errors.New("it ended without an exit code")
	}
	return &LostError{Host: x.h.target.Name, What: x.run.argv[0], Began: word, Err: err}
}

// notStarted is the error of a login that did something else.
func (x *exchange) notStarted(what string) error {
	said := strings.TrimSpace(x.out.said() + "\n" + x.errs.said())
	return &LoginError{Host: x.h.target.Name, User: x.h.user(), What: what, Said: said}
}

// lines tells of the lines that go to stderr.
func lines(h *Host, to io.Writer) io.Writer {
	if h.d.o.Tell == nil {
		return to
	}
	return &teller{h: h, to: to}
}

// teller passes text on and tells of each line.
type teller struct {
	h    *Host
	to   io.Writer
	line []byte
}

// maxLine is how much of a line is told of.
const maxLine = 1000

// Write passes p on.
func (t *teller) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != '\n' {
			if len(t.line) < maxLine {
				t.line = append(t.line, c)
			}
			continue
		}
		t.h.d.o.tell(Event{Host: t.h.target.Name, Kind: Stderr, Text: string(t.line)})
		t.line = t.line[:0]
	}
	if t.to == nil {
		return len(p), nil
	}
	return t.to.Write(p)
}
