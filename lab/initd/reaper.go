package initd

import (
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// reaper starts processes and takes note of how they end: those that were
// started here, and those whose parents have gone, which are the first
// process's to bury.
type reaper struct {
	mu    sync.Mutex
	procs map[int]*process
}

// process is one that was started here.
type process struct {
	pid    int
	done   chan struct{} // closed when it has ended
	status syscall.WaitStatus
}

func newReaper() *reaper {
	r := &reaper{procs: map[int]*process{}}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	go func() {
		for range ended {
			r.collect()
		}
	}()
	return r
}

// start forks and executes in a session of its own. The lock is held across,
// so that a process that ends at once is known when it is collected.
func (r *reaper) start(argv, env []string, dir string, files []uintptr) (*process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	attr := &syscall.ProcAttr{Dir: dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	pid, err := syscall.ForkExec(argv[0], argv, attr)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", argv[0], err)
	}
	p := &process{pid: pid, done: make(chan struct{})}
	r.procs[pid] = p
	return p, nil
}

func (r *reaper) collect() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		r.mu.Lock()
		if p := r.procs[pid]; p != nil {
			p.status = status
			close(p.done)
			delete(r.procs, pid)
		}
		r.mu.Unlock()
	}
}

// code is the exit code, or as a shell has it 128 and the signal.
func (p *process) code() int {
	if p.status.Signaled() {
		return 128 + int(p.status.Signal())
	}
	return p.status.ExitStatus()
}

// ended reports whether the process has ended within a time.
func (p *process) ended(within time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(within):
		return false
	}
}

// kill sends a signal to the process alone.
func (p *process) kill(sig syscall.Signal) { _ = unix.Kill(p.pid, sig) } // gone is as good
