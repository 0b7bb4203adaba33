package robust

import (
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tooEarly is the exit code of a program that a signal ended before it came to
// ask for signals: it has begun nothing.
const tooEarly = -1

// shortest is how long something takes at least: a part of it is sure to lie
// within any other run, which one slow run would not be.
func shortest(run func() time.Duration) time.Duration {
	return min(run(), run(), run())
}

// Ctrl-C during `up` of a new lab ends with 130 and leaves nothing; so does a
// service manager's SIGTERM.
func TestInterruptedUp(t *testing.T) {
	for _, c := range []struct {
		sig         syscall.Signal
		label, mode string
	}{{syscall.SIGINT, "INT", "calico-bgp"}, {syscall.SIGTERM, "TERM", "flannel-udp"}, {syscall.SIGHUP, "HUP", "flannel-vxlan"}} {
		t.Run(c.label, func(t *testing.T) {
			w := newWorld(t)
			name := labName()
			whole := shortest(func() time.Duration {
				defer w.must("down", name)
				return w.up(name, c.mode).Took
			})
			n, interrupted := points(t, 5), 0
			for i := range n {
				at := whole * time.Duration(i+1) / time.Duration(n+1)
				s := w.cut(after(at), c.sig, w.upArgs(name, c.mode)...)
				switch s.Code {
				case 130:
					interrupted++
					if !strings.Contains(s.Err, "interrupted, cleaned up") || s.Out != "" {
						t.Errorf("%s\nwant that it was interrupted and cleaned up, and nothing on stdout", s)
					}
				case tooEarly:
				case 0: // it was faster this time
					w.must("down", name)
				default:
					t.Errorf("%s\nwant exit code 130", s)
				}
				w.wantNothingLeft(name)
				if t.Failed() {
					t.Fatalf("interrupted after %v of %v: %s", at, whole, s)
				}
			}
			if interrupted == 0 {
				t.Error("no run was interrupted")
			}
		})
	}
}

// Ctrl-C during a change of a running lab leaves the lab, says so, and the next
// `up` finishes what was begun.
func TestInterruptedChange(t *testing.T) {
	w := newWorld(t)
	name := labName()
	whole := shortest(func() time.Duration {
		w.up(name, "flannel-vxlan")
		return w.up(name, "calico-ipip").Took
	})
	interrupted := 0
	for i := range 5 {
		w.up(name, "flannel-vxlan")
		s := w.cut(after(whole*time.Duration(i+1)/6), syscall.SIGINT, w.upArgs(name, "calico-ipip")...)
		if s.Code == 130 {
			interrupted++
			if strings.Contains(s.Err, "cleaned up") || !strings.Contains(s.Err, "`slipway up` again repairs it") {
				t.Errorf("%s\nwant that the lab is partly done", s)
			}
		} else if s.Code != 0 && s.Code != tooEarly {
			t.Errorf("%s\nwant exit code 130", s)
		}
		w.up(name, "calico-ipip")
		w.works(name)
	}
	if interrupted == 0 {
		t.Error("no run was interrupted")
	}
}

func TestInterruptedDown(t *testing.T) {
	w := newWorld(t)
	name := labName()
	whole := shortest(func() time.Duration {
		w.up(name, "flannel-vxlan")
		return w.run("down", name).Took
	})
	n := points(t, 6)
	for i := range n {
		w.up(name, "flannel-vxlan")
		s := w.cut(after(whole*time.Duration(i+1)/time.Duration(n+1)), syscall.SIGINT, "down", name)
		switch s.Code {
		case 130:
			if strings.Contains(s.Err, "cleaned up") || !strings.Contains(s.Err, "again finishes it") {
				t.Errorf("%s\nwant that `down` has to be repeated", s)
			}
			w.must("down", name)
		case tooEarly:
			w.must("down", name)
		case 0:
		default:
			t.Errorf("%s\nwant exit code 130 or 0", s)
		}
		w.wantNothingLeft(name)
	}
}

// An interrupted demo takes its labs down again, in whatever it was.
func TestInterruptedDemo(t *testing.T) {
	for _, c := range []struct {
		at  time.Duration
		sig syscall.Signal
	}{{300 * time.Millisecond, syscall.SIGINT}, {2 * time.Second, syscall.SIGTERM}, {6 * time.Second, syscall.SIGINT}} {
		w := newWorld(t)
		name := labName()
		s := w.cut(after(c.at), c.sig, "demo", "-L", name, "--modes", "flannel-udp,flannel-vxlan,calico-ipip", "--rounds", "60")
		if s.Code != 130 || !strings.Contains(s.Err, "interrupted, cleaned up") {
			t.Errorf("after %v: %s\nwant exit code 130", c.at, s)
		}
		w.wantNothingLeft(name)
		for _, mode := range []string{"udp", "vxlan", "ipip"} {
			w.wantNothingLeft(name + "-" + mode)
		}
	}
}

// A demo whose output nobody reads any more takes its labs down.
func TestReaderGone(t *testing.T) {
	w := newWorld(t)
	name := labName()
	cmd := w.command(t.Context(), "demo", "-L", name, "--modes", "flannel-vxlan,flannel-udp", "--rounds", "60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
	_ = out.Close()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("ended with %v, want exit code 130", err)
	}
	w.wantNothingLeft(name)
	w.wantNothingLeft(name + "-vxlan")
	w.wantNothingLeft(name + "-udp")
}

// A client that hangs up does not disturb the daemon.
func TestClientHangsUp(t *testing.T) {
	w := newWorld(t)
	name := labName()
	w.up(name, "flannel-vxlan")
	pid := w.daemonPID(name)
	for range 50 {
		c, err := net.Dial("unix", filepath.Join(w.state, name, "daemon.sock"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET /status HTTP/1.1\r\nHost: slipwayd\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	w.works(name)
	if now := w.daemonPID(name); now != pid {
		t.Errorf("the daemon is another one: process %d, was %d", now, pid)
	}
}
