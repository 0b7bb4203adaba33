package scenario

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"slipway/lab"
)

// Options of sessions.
type Options struct {
	// Program is this program's path; empty: of the process that runs.
	Program string
	Lang    string // of reports; English if empty
	// Lab is the lab to play on, which is made if it is not there and stays when the
	// session ends: several scenarios of one cluster file may follow each other there.
	// Empty: one of the session's own.
	Lab string
	// Progress is what commands say on the way, and Ran each command that a script
	// ran; nil: nobody wants to know.
	Progress io.Writer
	Ran      func(Ran)
}

// Session is a scenario that is being played. What it must remember is on disk, so
// that any process goes on where another one ended. Methods may be called at any
// time; each waits for one of the same session that runs elsewhere.
type Session struct {
	Scenario *Scenario
	o        Options
}

// New returns the session of a scenario. Nothing is done yet.
func New(s *Scenario, o Options) (*Session, error) {
	if o.Program == "" {
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
		o.Program = exe
	}
	if o.Lang == "" {
		o.Lang = English
	}
	return &Session{Scenario: s, o: o}, nil
}

// Lab is the name of the session's lab. The names of labs are the machine's: where
// there is another state directory, its labs have names of their own.
func (s *Session) Lab() string {
	if s.o.Lab != "" {
		return s.o.Lab
	}
	name := labPrefix + s.Scenario.Name
	if os.Getenv(lab.StateDirEnv) == "" {
		return name
	}
	sum := sha256.Sum256([]byte(lab.StateDir()))
	return name + "-" + hex.EncodeToString(sum[:2])
}

// Dir is where the scenario's files are while the session runs: its cluster file and
// manifests, to edit and apply.
func (s *Session) Dir() string { return s.workDir() }

// labPrefix tells labs of scenarios from others.
const labPrefix = "sc-"

// The errors of sessions that another command mends.
var (
	ErrNotRunning = errors.New("the scenario does not run")
	ErrRuns       = errors.New("the scenario runs already")
	ErrHalfway    = errors.New("the scenario was cut off while it started")
)

// Start makes the lab, and what is wrong in it. One that was cut off before is
// begun anew; one that fails or is interrupted is taken down again.
func (s *Session) Start(ctx context.Context) (err error) {
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	switch st, err := s.load(); {
	case errors.Is(err, ErrNotRunning):
	case err != nil:
		return err
	case st.Ready:
		return fmt.Errorf("%s: %w", s.Scenario.Name, ErrRuns)
	default:
		if err := s.clear(ctx); err != nil {
			return err
		}
	}
	if _, err := lab.ReadState(s.Lab()); err == nil && s.o.Lab == "" {
		return fmt.Errorf("lab %s is up and is no scenario's: `slipway down %s` first", s.Lab(), s.Lab())
	}
	defer func() {
		if err != nil {
			clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
			defer cancel()
			err = errors.Join(err, s.clear(clean))
		}
	}()
	return s.start(ctx)
}

func (s *Session) start(ctx context.Context) error {
	st := &State{Scenario: s.Scenario.Name, Lab: s.Lab(), StartedAt: time.Now().UTC()}
	if err := s.begin(st); err != nil {
		return err
	}
	x := s.run(ctx)
	if _, _, err := x.slipway([]string{"up", "-q", "-f", clusterFile}); err != nil {
		return fmt.Errorf("start the lab of %s: %w", s.Scenario.Name, err)
	}
	if err := s.script(ctx, s.Scenario.Break, nil); err != nil {
		return fmt.Errorf("break the lab of %s: %w", s.Scenario.Name, err)
	}
	st.Ready = true
	return s.save(st, "ready", "")
}

// run prepares the running of a script.
func (s *Session) run(ctx context.Context) *run {
	return &run{ctx: ctx, program: s.o.Program, lab: s.Lab(), dir: s.workDir(), log: s.o.Progress, onRan: s.o.Ran}
}

// script runs a script on the lab, with the names of its addresses. into, unless
// it is nil, is given what was run.
func (s *Session) script(ctx context.Context, sc Script, into *[]Ran) error {
	if sc.Empty() {
		return nil
	}
	x := s.run(ctx)
	x.log = nil // what fails says why in its error
	st, err := x.state()
	if err != nil {
		return err
	}
	x.env = variables(st)
	err = x.script(sc)
	if into != nil {
		*into = x.ran
	}
	return err
}

// working reads the state of a session that was started, under its lock, and
// saves it with what fn did.
func (s *Session) working(ctx context.Context, fn func(*State) (event, detail string, err error)) (err error) {
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	st, err := s.load()
	if err != nil {
		return err
	}
	if !st.Ready {
		return fmt.Errorf("%s: %w (`slipway scenario run` begins anew, `slipway scenario reset` takes it down)", s.Scenario.Name, ErrHalfway)
	}
	event, detail, err := fn(st)
	if err != nil || event == "" {
		return err
	}
	return s.save(st, event, detail)
}

// Hint is one of a scenario's hints.
type Hint struct {
	Text string `json:"text"`
	N    int    `json:"n"` // from 1
	Of   int    `json:"of"`
}

// Hint gives the next hint, and the last one again when there are no more.
func (s *Session) Hint(ctx context.Context) (h Hint, err error) {
	err = s.working(ctx, func(st *State) (string, string, error) {
		if len(s.Scenario.Hints) == 0 {
			return "", "", nil
		}
		st.Hints = min(st.Hints+1, len(s.Scenario.Hints))
		h = Hint{Text: s.Scenario.Hints[st.Hints-1].In(s.o.Lang), N: st.Hints, Of: len(s.Scenario.Hints)}
		return "hint", fmt.Sprint(st.Hints), nil
	})
	return h, err
}

// Explained is a part of a solution or a step with what was run of it.
type Explained struct {
	Why string `json:"why"`
	Ran []Ran  `json:"ran"`
}

// Solve runs the solution, and returns what was run and why.
func (s *Session) Solve(ctx context.Context) (out []Explained, err error) {
	err = s.working(ctx, func(st *State) (string, string, error) {
		out, err = s.parts(ctx, s.Scenario.Solution)
		st.Solved = true
		return "solve", "", err
	})
	return out, err
}

// Step runs the commands of a step of a lesson, from 0. It can be repeated.
func (s *Session) Step(ctx context.Context, i int) (out []Explained, err error) {
	if i < 0 || i >= len(s.Scenario.Steps) {
		return nil, fmt.Errorf("%s has %d steps and no step %d", s.Scenario.Name, len(s.Scenario.Steps), i+1)
	}
	err = s.working(ctx, func(st *State) (string, string, error) {
		out, err = s.parts(ctx, s.Scenario.Steps[i].Parts)
		st.Step = max(st.Step, i+1)
		return "step", fmt.Sprint(i + 1), err
	})
	return out, err
}

func (s *Session) parts(ctx context.Context, parts []Part) ([]Explained, error) {
	var out []Explained
	for _, p := range parts {
		e := Explained{Why: p.Why.In(s.o.Lang)}
		err := s.script(ctx, p.Script, &e.Ran)
		out = append(out, e)
		if err != nil {
			return out, err
		}
	}
	return out, nil
}

// Reset takes the session's lab down and forgets the session, however it was left.
func (s *Session) Reset(ctx context.Context) (err error) {
	release, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	if _, err := s.load(); err != nil && errors.Is(err, ErrNotRunning) {
		return err
	}
	return s.clear(ctx)
}

// clear takes the lab down, and removes the session's files last, so that one that
// is cut off can be repeated.
func (s *Session) clear(ctx context.Context) error {
	if s.o.Lab != "" {
		return s.remove()
	}
	cmd := exec.CommandContext(ctx, s.o.Program, "down", s.Lab())
	cmd.Env = append(os.Environ(), lab.StateDirEnv+"="+lab.StateDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endPatience
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), lab.ErrNoLab.Error()) {
		return fmt.Errorf("take lab %s down: %w: %s", s.Lab(), err, strings.TrimSpace(string(out)))
	}
	return s.remove()
}

// Drawing is what a command that was run drew, as SVG: what `slipway graph` prints
// for other programs to draw. It is empty for all other commands.
func (s *Session) Drawing(ctx context.Context, command string) (string, error) {
	args := strings.Fields(command)
	if len(args) < 2 || args[0] != "slipway" || !slices.Contains(args[1:], "graph") || slices.Contains(args, "-o") {
		return "", nil
	}
	out, _, err := s.run(ctx).slipway(append(args[1:], "-o", "svg"))
	return out, err
}

// Typed is a line of a script as a student types it in a shell, with the lab's
// addresses if the session runs.
func (s *Session) Typed(line string) string {
	st, err := lab.ReadState(s.Lab())
	if err != nil || st.Snapshot == nil {
		return show(line, nil, "")
	}
	return show(line, variables(st), s.named())
}

// named is the lab's name where commands must say it: one lab alone need not be.
func (s *Session) named() string { return namedLab(s.Lab()) }

func namedLab(name string) string {
	if names, err := lab.Names(); err == nil && len(names) == 1 {
		return ""
	}
	return name
}
