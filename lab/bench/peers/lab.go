package peers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/lab/bench/load"
)

// The bounds of a lab's life: far more than two or three nodes take.
const (
	upPatience   = 2 * time.Minute
	downPatience = time.Minute
)

// labPrefix is followed by the process that made the lab, so that the next run
// knows which ones nobody will take down any more.
const labPrefix = "peers-"

// Lab is a lab of a few nodes that the real programs of others run in.
type Lab struct {
	Name  string
	State *lab.State
	open  map[string]*netns.NS
}

// Up brings a lab up from a cluster file's spec and its objects, by the program
// itself. suffix tells it from the other labs of this process.
func Up(ctx context.Context, exe, suffix, spec, objects string) (l *Lab, err error) {
	l = &Lab{Name: labPrefix + strconv.Itoa(os.Getpid()) + "-" + suffix, open: map[string]*netns.NS{}}
	dir, err := os.MkdirTemp("", "slipway-peers")
	if err != nil {
		return nil, fmt.Errorf("make a directory for the cluster file: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "cluster.yaml")
	text := "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: peers}\nspec:\n" + spec + "  manifests: [objects.yaml]\n"
	for path, text := range map[string]string{file: text, filepath.Join(dir, "objects.yaml"): objects} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return nil, fmt.Errorf("write cluster file: %w", err)
		}
	}
	up, cancel := context.WithTimeout(ctx, upPatience)
	defer cancel()
	cmd := exec.CommandContext(up, exe, "up", "-f", file, "-L", l.Name, "-o", "json")
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = downPatience
	// What is typed at the terminal reaches this process, which passes it on once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		if up.Err() != nil {
			err = up.Err()
		}
		return nil, errors.Join(fmt.Errorf("slipway up -L %s: %w: %s", l.Name, err, bytes.TrimSpace(said.Bytes())), l.Close(ctx))
	}
	if l.State, err = lab.ReadState(l.Name); err != nil {
		return nil, errors.Join(err, l.Close(ctx))
	}
	return l, nil
}

// At opens the namespace of a node or pod ("node01", "client"); it stays open
// as long as the lab.
func (l *Lab) At(name string) (*netns.NS, *lab.Target, error) {
	t, err := lab.Resolve(l.State, name)
	if err != nil {
		return nil, nil, err
	}
	if l.open[t.Label] == nil {
		if l.open[t.Label], err = netns.Open(t.NetNS); err != nil {
			return nil, nil, err
		}
	}
	return l.open[t.Label], t, nil
}

// Dir is a directory for files of the programs in the lab. It goes with the lab.
func (l *Lab) Dir() string { return filepath.Join(filepath.Dir(lab.SocketPath(l.Name)), "peers") }

// Start runs a program in a node until it ends or the lab goes down: it carries
// the lab's mark, by which `slipway down` finds it also after this process was
// killed. What it says is in Dir()/log.
func (l *Lab) Start(node, log string, argv ...string) (*Process, error) {
	ns, _, err := l.At(node)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.Dir(), 0o700); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", argv[0], node, err)
	}
	p := &Process{log: filepath.Join(l.Dir(), log), ended: make(chan struct{})}
	f, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", argv[0], node, err)
	}
	defer f.Close() //nolint:errcheck // the program has its own descriptor
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = f, f, l.Dir()
	p.cmd.Env = append(os.Environ(), lab.Mark(l.State), "XTABLES_LOCKFILE="+filepath.Join(l.Dir(), "xtables-"+node))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
	if err := ns.Do(p.cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s in %s: %w", argv[0], node, err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended, the process's state tells
		close(p.ended)
	}()
	return p, nil
}

// Process is a program that runs in a lab.
type Process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Check fails when the program has ended, with what it said last.
func (p *Process) Check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended (%s); it said last: %s", filepath.Base(p.cmd.Path), p.cmd.ProcessState, p.said())
	default:
		return nil
	}
}

// saidLines is how much of a program's log an error has.
const saidLines = 5

func (p *Process) said() string {
	raw, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-saidLines):], " / ")
}

// Stop ends the program, and waits for it.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end %s: %w", p.cmd.Path, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopPatience):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", p.cmd.Path, err)
	}
	<-p.ended
	return nil
}

// stopPatience is how long a program may take to end when asked.
const stopPatience = 5 * time.Second

// Reaches waits until a TCP segment gets from a pod to an address and an answer
// back. Nobody has to listen there: a refusal is an answer.
func (l *Lab) Reaches(ctx context.Context, pod string, to netip.Addr) error {
	ns, _, err := l.At(pod)
	if err != nil {
		return err
	}
	return reaches(ctx, load.Place{NS: ns, Label: pod}, to)
}

// reaches is [Lab.Reaches] from anywhere.
func reaches(ctx context.Context, from load.Place, to netip.Addr) error {
	d := net.Dialer{Timeout: dialPatience}
	return await(ctx, fmt.Sprintf("%s to reach %s", from.Label, to), func() (bool, error) {
		var c net.Conn
		err := from.NS.Do(func() (err error) {
			c, err = d.DialContext(ctx, "tcp", netip.AddrPortFrom(to, discard).String())
			return err
		})
		if err == nil {
			_ = c.Close()
		}
		return err == nil || errors.Is(err, syscall.ECONNREFUSED), nil
	})
}

const (
	discard      = 9 // the port of the discard service (RFC 863), which nothing serves
	dialPatience = 250 * time.Millisecond
	pollEvery    = 20 * time.Millisecond
)

// await polls until ok or the context ends; err ends it at once.
func await(ctx context.Context, what string, ok func() (bool, error)) error {
	for {
		done, err := ok()
		if err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// Close takes the lab down with everything that runs in it.
func (l *Lab) Close(ctx context.Context) error {
	for _, ns := range l.open {
		_ = ns.Close() // a read-only descriptor
	}
	l.open = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
	defer cancel()
	if _, err := lab.Down(ctx, l.Name); err != nil && !errors.Is(err, lab.ErrNoLab) {
		return fmt.Errorf("take lab %s down (run `slipway down %s`): %w", l.Name, l.Name, err)
	}
	return nil
}

// Sweep takes down the labs of processes that were killed.
func Sweep(ctx context.Context) error {
	names, err := lab.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range names {
		rest, ours := strings.CutPrefix(n, labPrefix)
		pid, _, _ := strings.Cut(rest, "-")
		if _, err := strconv.Atoi(pid); !ours || err != nil {
			continue
		}
		if _, err := os.Stat("/proc/" + pid); err == nil {
			continue
		}
		errs = append(errs, (&Lab{Name: n}).Close(ctx))
	}
	return errors.Join(errs...)
}
