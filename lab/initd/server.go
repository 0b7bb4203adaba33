package initd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// request is one line from a client; the connection's end cancels it.
type request struct {
	Do    string   `json:"do"`
	Name  string   `json:"name,omitempty"` // of a unit
	Argv  []string `json:"argv,omitempty"` // run
	Stdin []byte   `json:"stdin,omitempty"`
}

// answer is one line back.
type answer struct {
	Error    string   `json:"error,omitempty"`
	NoUnit   string   `json:"noUnit,omitempty"` // the unit that there is not
	Code     int      `json:"code,omitempty"`
	Stdout   []byte   `json:"stdout,omitempty"`
	Stderr   []byte   `json:"stderr,omitempty"`
	Statuses []Status `json:"statuses,omitempty"`
}

type server struct {
	node    *node
	manager *manager
	end     func()
}

func (s *server) serve(ctx context.Context, l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go s.handle(ctx, conn)
	}
}

func (s *server) handle(ctx context.Context, conn net.Conn) {
	defer conn.Close() //nolint:errcheck // the answer is written, or nobody waits for it
	in := json.NewDecoder(conn)
	var r request
	if err := in.Decode(&r); err != nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, in.Buffered())
		_, _ = io.Copy(io.Discard, conn) // until the client is gone
		cancel()
	}()
	_ = json.NewEncoder(conn).Encode(s.answer(ctx, r))
}

func (s *server) answer(ctx context.Context, r request) answer {
	m := s.manager
	var a answer
	var err error
	switch r.Do {
	case "ping":
	case "run":
		a, err = s.node.command(ctx, r)
	case "start":
		err = m.start(ctx, r.Name)
	case "stop":
		err = m.stop(ctx, r.Name)
	case "restart":
		err = m.restart(ctx, r.Name)
	case "reload":
		err = withService(m, r.Name, func(v *service) error { return v.reload(ctx) })
	case "enable":
		err = m.enable(r.Name)
	case "disable":
		err = m.disable(r.Name)
	case "reset-failed":
		err = m.resetFailed(r.Name)
	case "daemon-reload":
		err = m.reloadUnits()
	case "status":
		err = withService(m, r.Name, func(v *service) error { a.Statuses = []Status{v.status()}; return nil })
	case "list":
		a.Statuses = m.list()
	case "end":
		s.end()
	default:
		err = fmt.Errorf("there is no %q", r.Do)
	}
	if err != nil {
		a.Error = err.Error()
		var none *NoUnitError
		if errors.As(err, &none) {
			a.NoUnit = none.Name
		}
	}
	return a
}

func withService(m *manager, name string, f func(*service) error) error {
	s, err := m.find(name)
	if err != nil {
		return err
	}
	return f(s)
}

// command runs a program for a client and returns what it said. The program is
// ended when the client goes.
func (n *node) command(ctx context.Context, r request) (answer, error) {
	if len(r.Argv) == 0 {
		return answer{}, errors.New("there is no command")
	}
	env := append(append([]string{}, baseEnvironment...), n.extra...)
	path, err := lookPath(r.Argv[0])
	if err != nil {
		return answer{}, err
	}
	pipes, err := newPipes()
	if err != nil {
		return answer{}, err
	}
	p, err := n.reaper.start(append([]string{path}, r.Argv[1:]...), env, "/", pipes.theirs())
	pipes.closeTheirs()
	if err != nil {
		pipes.closeOurs()
		return answer{}, err
	}
	go func() {
		select {
		case <-ctx.Done():
			killSession(p.pid, syscall.SIGKILL)
		case <-p.done:
		}
	}()
	out, errs := pipes.talk(r.Stdin)
	<-p.done
	return answer{Code: p.code(), Stdout: out, Stderr: errs}, ctx.Err()
}

// lookPath finds a program in the node's path, whatever this process's is.
func lookPath(name string) (string, error) {
	if err := os.Setenv("PATH", Path); err != nil {
		return "", err
	}
	return exec.LookPath(name)
}
