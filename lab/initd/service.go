package initd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"slipway/lab/units"
)

// The states of a service, as systemctl calls them.
const (
	inactive     = "inactive"
	activating   = "activating"
	active       = "active"
	deactivating = "deactivating"
	failed       = "failed"
)

// service is one unit and what became of it.
type service struct {
	name string
	run  runner

	op sync.Mutex // one operation at a time

	loaded atomic.Pointer[units.Service]

	mu      sync.Mutex // of what follows
	state   string
	main    *process
	said    string // its last STATUS=, or why it failed
	code    int    // of the last end
	since   time.Time
	starts  []time.Time
	restart int // how often it was started again by itself
	pending *time.Timer
}

// runner is what a service needs of its node.
type runner interface {
	// spawn starts a command of the service with its output in the service's log.
	spawn(u *units.Service, c units.Command, env []string) (*process, error)
	// environment is the service's, its files included.
	environment(u *units.Service) ([]string, error)
	// notifications opens the socket at which the service says that it is ready.
	notifications(name string) (*notifySocket, error)
}

// unit is the unit as it was read last.
func (s *service) unit() *units.Service { return s.loaded.Load() }

func (s *service) set(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since = state, time.Now()
}

func (s *service) get() (state string, main *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.main
}

// startup brings the service up and returns when it is. What fails is started
// again later, if the unit says so, and the error returned all the same.
func (s *service) startup(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.cancelRestart()
	if state, _ := s.get(); state == active {
		return nil
	}
	if err := s.admit(); err != nil {
		s.fail(err)
		return err
	}
	s.set(activating)
	if err := s.launch(ctx); err != nil {
		s.afterFailure(err) //nolint:contextcheck // the next start outlives this one's context
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// admit refuses a service that is started too often (systemd.unit(5), StartLimitBurst).
func (s *service) admit() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.unit().StartLimitWithin > 0 && s.unit().StartLimit > 0 {
		recent := s.starts[:0]
		for _, t := range s.starts {
			if now.Sub(t) < s.unit().StartLimitWithin {
				recent = append(recent, t)
			}
		}
		s.starts = recent
		if len(recent) >= s.unit().StartLimit {
			return fmt.Errorf("started %d times within %v: not again (systemctl reset-failed %s lets it)", len(recent), s.unit().StartLimitWithin, s.name)
		}
	}
	s.starts = append(s.starts, now)
	return nil
}

// launch runs the unit's commands up to where the service counts as up.
func (s *service) launch(ctx context.Context) error {
	u := s.unit()
	if u.StartTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, u.StartTimeout)
		defer cancel()
	}
	env, err := s.run.environment(u)
	if err != nil {
		return err
	}
	if err := s.all(ctx, u.StartPre, env); err != nil {
		return err
	}
	if u.Type == units.Oneshot {
		if err := s.all(ctx, u.Start, env); err != nil {
			return err
		}
		s.set(map[bool]string{true: active, false: inactive}[u.RemainAfterExit])
		return nil
	}
	if err := s.launchMain(ctx, env); err != nil {
		return err
	}
	if err := s.all(ctx, u.StartPost, env); err != nil {
		s.end()
		return err
	}
	s.set(active)
	_, p := s.get()
	go s.watch(p) //nolint:contextcheck // the service outlives its start
	return nil
}

// launchMain starts the main process and waits until it is ready.
func (s *service) launchMain(ctx context.Context, env []string) error {
	var ready <-chan struct{}
	if s.unit().Type == units.Notify {
		n, err := s.run.notifications(s.name)
		if err != nil {
			return err
		}
		env = append(env, "NOTIFY_SOCKET="+n.path)
		ready = n.ready
		n.said = func(text string) { s.mu.Lock(); s.said = text; s.mu.Unlock() }
	}
	p, err := s.run.spawn(s.unit(), s.unit().Start[0], env)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.main, s.said = p, ""
	s.mu.Unlock()
	if ready == nil {
		return nil
	}
	select {
	case <-ready:
		return nil
	case <-p.done:
		s.end()
		return fmt.Errorf("it ended with exit code %d before it was ready", p.code())
	case <-ctx.Done():
		s.end()
		return fmt.Errorf("it was not ready in time: %w", ctx.Err())
	}
}

// all runs commands one after the other.
func (s *service) all(ctx context.Context, commands []units.Command, env []string) error {
	for _, c := range commands {
		p, err := s.run.spawn(s.unit(), c, env)
		if err != nil {
			if c.MayFail {
				continue
			}
			return err
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			killSession(p.pid, syscall.SIGKILL)
			return fmt.Errorf("%s did not end in time: %w", c.Argv[0], ctx.Err())
		}
		if code := p.code(); code != 0 && !c.MayFail {
			s.mu.Lock()
			s.code = code
			s.mu.Unlock()
			return fmt.Errorf("%s ended with exit code %d", c.Argv[0], code)
		}
	}
	return nil
}

// watch waits for the end of a main process that nobody asked to end.
func (s *service) watch(p *process) {
	<-p.done
	s.op.Lock()
	defer s.op.Unlock()
	if _, main := s.get(); main != p {
		return // it was asked
	}
	s.end()
	code := p.code()
	s.mu.Lock()
	s.code = code
	s.mu.Unlock()
	if code == 0 || code == 128+int(syscall.SIGTERM) {
		if s.unit().Restart != units.RestartAlways {
			s.set(inactive)
			return
		}
	}
	s.afterFailure(fmt.Errorf("the main process ended with exit code %d", code))
}

// afterFailure arranges another start, if the unit wants one.
func (s *service) afterFailure(err error) {
	if s.unit().Restart == units.RestartNo {
		s.fail(err)
		return
	}
	s.set(activating)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.said = err.Error()
	s.restart++
	s.pending = time.AfterFunc(s.unit().RestartDelay, func() {
		_ = s.startup(context.Background()) // what fails is in the service's state, and is tried again
	})
}

func (s *service) fail(err error) {
	s.set(failed)
	s.mu.Lock()
	s.said = err.Error()
	s.mu.Unlock()
}

func (s *service) cancelRestart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending != nil {
		s.pending.Stop()
		s.pending = nil
	}
}

// shutdown stops the service and everything it started.
func (s *service) shutdown(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.cancelRestart()
	state, _ := s.get()
	if state == inactive || state == failed {
		return nil
	}
	s.set(deactivating)
	var err error
	if len(s.unit().Stop) > 0 {
		var env []string
		if env, err = s.run.environment(s.unit()); err == nil {
			err = s.all(ctx, s.unit().Stop, env)
		}
	}
	s.end()
	s.set(inactive)
	return err
}

// killPatience is how long the kernel may take to end what was killed.
const killPatience = 5 * time.Second

// end ends the main process, and with it what the unit's KillMode says.
func (s *service) end() {
	s.mu.Lock()
	p := s.main
	s.main = nil
	s.mu.Unlock()
	if p == nil {
		return
	}
	p.kill(syscall.SIGTERM)
	if s.unit().KillMode == units.KillGroup {
		killSession(p.pid, syscall.SIGTERM)
	}
	patience := s.unit().StopTimeout
	if patience == 0 {
		patience = time.Hour
	}
	if !p.ended(patience) {
		p.kill(syscall.SIGKILL)
	}
	if s.unit().KillMode != units.KillProcess {
		s.endSession(p.pid)
	}
	p.ended(killPatience)
}

// endSession waits a moment for what the main process left, then kills it.
func (s *service) endSession(id int) {
	for range 20 {
		if len(session(id)) == 0 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	killSession(id, syscall.SIGKILL)
}

// reload runs ExecReload.
func (s *service) reload(ctx context.Context) error {
	s.op.Lock()
	defer s.op.Unlock()
	state, p := s.get()
	if state != active {
		return fmt.Errorf("reload %s: it is %s", s.name, state)
	}
	if len(s.unit().Reload) == 0 {
		return errors.New("reload " + s.name + ": the unit has no ExecReload")
	}
	env, err := s.run.environment(s.unit())
	if err != nil {
		return err
	}
	if p != nil {
		env = append(env, fmt.Sprintf("MAINPID=%d", p.pid))
	}
	return s.all(ctx, s.unit().Reload, env)
}
