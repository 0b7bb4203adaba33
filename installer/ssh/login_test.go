package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"slipway/installer"
	"slipway/internal/testnet"
)

// What login shells print does not get into what programs print. A login that
// starts nothing is an error that shows what came.
func TestGarbledLogins(t *testing.T) {
	o := newOperator(t)
	for name, c := range map[string]struct {
		prepare, settings string
		want              string // of the error; empty: all is well
	}{
		"motd":    {prepare: `printf 'echo Welcome to the machine\nprintf "no line end: slipway-"\necho warning >&2\n' >/root/.bashrc`},
		"binary":  {prepare: `printf 'head -c 20000 /dev/zero\n' >/root/.bashrc`},
		"reads":   {prepare: `printf 'read -t 0.1 line\n' >/root/.bashrc`}, // the program's input
		"traced":  {prepare: `printf 'set -x\n' >/root/.bashrc`},
		"slow":    {prepare: `printf 'sleep 1\n' >/root/.bashrc`},
		"ash":     {prepare: `printf '#!/bin/sh\nexec busybox sh "$@"\n' >/etc/ash; chmod 755 /etc/ash; sed -i 's,^\(root:.*:\)[^:]*$,\1/etc/ash,' /etc/passwd`},
		"endless": {prepare: `printf 'yes\n' >/root/.bashrc`, want: "the login of root prints without an end"},
		"ends":    {prepare: `printf 'echo Please login as ops; exit 3\n' >/root/.bashrc`, want: "the login of root started something else, which ended with code 3\n  Please login as ops"},
		"nologin": {prepare: `sed -i 's,^\(root:.*:\)[^:]*$,\1/usr/sbin/nologin,' /etc/passwd`, want: "This account is currently not available"},
		"forced":  {settings: "ForceCommand echo only this", want: "only this"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o, name, c.prepare, c.settings)
			h, err := Open(t.Context(), m.target("root"), o.options())
			var e *LoginError
			if c.want != "" {
				if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close() //nolint:errcheck // a test
			r, err := h.Run(t.Context(), installer.Command{Argv: []string{"sh", "-c", "echo out; echo err >&2; cat; exit 4"}, Stdin: []byte("the rest")})
			if err != nil || string(r.Stdout) != "out\nthe rest" || string(r.Stderr) != "err\n" || r.Code != 4 {
				t.Errorf("%q, %q, %d, %v", r.Stdout, r.Stderr, r.Code, err)
			}
		})
	}
}

// Hosts that cannot be reached are all reported at once, each with what is wrong
// with it, and the others are opened.
func TestUnreachableHosts(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "fine", "", "")
	listen := func(port string, serve func(net.Conn)) {
		var l net.Listener
		err := m.ns.Do(func() (err error) {
			l, err = net.Listen("tcp", m.address+":"+port)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serve(c)
			}
		}()
	}
	listen("81", func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.0 400 Bad Request\r\n\r\n")); _ = c.Close() })
	listen("82", func(net.Conn) {}) // says nothing, ever
	at := func(name string, port int) Target {
		return Target{Name: name, Host: m.address, Port: port, User: "root"}
	}
	hosts, err := OpenAll(t.Context(), []Target{
		at("refused", 80), m.target("root"), at("web", 81), {Name: "nowhere", Host: "10.99.0.1", User: "root"}}, o.options())
	defer CloseAll(hosts)
	if len(hosts) != 1 || hosts["fine"] == nil {
		t.Errorf("opened: %v", hosts)
	}
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"refused: connect to " + m.address + ":80: ", "connection refused",
		"web: connect to " + m.address + ":81: ",
		"nowhere: connect to 10.99.0.1:22: ", "no route to host",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if r, err := hosts["fine"].Run(t.Context(), sh("echo well")); err != nil || string(r.Stdout) != "well\n" {
		t.Errorf("the one that is reached: %q, %v", r.Stdout, err)
	}
	opts := o.options()
	opts.HandshakeTimeout = time.Second // reached in any case
	var e *ConnectError
	if _, err := Open(t.Context(), at("silent", 82), opts); !errors.As(err, &e) || !strings.Contains(err.Error(), "within 1s") {
		t.Errorf("silent: %v", err)
	}
}

// A program that did not start in time does not run later either.
func TestALoginThatHangs(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", `printf 'while [ -e /var/tmp/hang ]; do sleep 0.1; done\n' >/root/.bashrc`, "")
	h := o.open(t, m, "root")
	m.sh(t, "touch /var/tmp/hang")
	h.d.o.HandshakeTimeout = time.Second // reached in any case
	var e *LoginError
	if _, err := h.Run(t.Context(), installer.Command{Argv: []string{"touch", "/var/tmp/ran"}}); !errors.As(err, &e) || !strings.Contains(err.Error(), "did not start a program within 1s") {
		t.Error(err)
	}
	m.sh(t, "rm /var/tmp/hang")
	testnet.Eventually(t, patience, "the login goes on, and ends", func() (bool, string) {
		got := m.sh(t, "pgrep -r S,R,D -x 'bash|touch' || true")
		return got == "", got
	})
	h.d.o.HandshakeTimeout = 0
	if r, err := h.Run(t.Context(), sh("ls /var/tmp")); err != nil || string(r.Stdout) != "" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
}

// A host that is not let in names the keys that were tried, and why others were
// not.
func TestWrongKeys(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "")
	private, _ := newKey(t)
	write(t, o.path("other"), private)
	write(t, o.path("broken"), "-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n-----END OPENSSH PRIVATE KEY-----\n")
	lockKey(t, o, "locked", "sesame")
	try := func(change func(*Options)) error {
		opts := o.options()
		change(&opts)
		h, err := Open(t.Context(), m.target("root"), opts)
		if err == nil {
			_ = h.Close()
		}
		return err
	}
	var e *AuthError
	err := try(func(opts *Options) { opts.Keys = []string{o.path("other"), o.path("locked"), o.path("broken")} })
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	for _, want := range []string{"node01: log in to " + m.address + ":22 as root: it takes none of the keys: " + o.path("other"), "locked is encrypted: load it into the agent (ssh-add", "broken:"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if err = try(func(opts *Options) { opts.Keys = []string{o.path("nokey")} }); !errors.As(err, &e) || !strings.Contains(err.Error(), "there is no key to try") {
		t.Error(err)
	}
	phrase := func(p string) func(*Options) {
		return func(opts *Options) {
			opts.Keys = []string{o.path("locked")}
			opts.Passphrase = func(_ context.Context, path string) ([]byte, error) {
				if path != o.path("locked") {
					return nil, fmt.Errorf("asked for %s", path)
				}
				return []byte(p), nil
			}
		}
	}
	if err := try(phrase("sesame")); err != nil {
		t.Error(err)
	}
	if err := try(phrase("wrong")); err == nil || !strings.Contains(err.Error(), "encrypted, and not with that passphrase") {
		t.Error(err)
	}
}

// lockKey writes the operator's key again, encrypted.
func lockKey(t *testing.T, o *operator, name, phrase string) {
	t.Helper()
	command(t, "cp", o.path("key"), o.path(name))
	command(t, "ssh-keygen", "-q", "-p", "-N", phrase, "-f", o.path(name))
}

// The agent's keys are used; a key that lies encrypted in a file as well is not
// asked for.
func TestAgent(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "")
	data, err := os.ReadFile(o.path("key"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := gossh.ParseRawPrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", o.path("agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // a test
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(ring, c) }()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", o.path("agent"))
	lockKey(t, o, "locked", "sesame")
	for _, keys := range [][]string{{o.path("locked")}, {o.path("missing")}} {
		opts := o.options()
		opts.Keys = keys
		opts.Passphrase = func(context.Context, string) ([]byte, error) {
			return nil, errors.New("asked for, though the agent has it")
		}
		h, err := Open(t.Context(), m.target("root"), opts)
		if err != nil {
			t.Errorf("%v: %v", keys, err)
			continue
		}
		_ = h.Close()
	}
}

// A host's key is pinned: unknown ones are taken only where that is asked for,
// and another than the known one never.
func TestHostKeys(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "")
	try := func(accept bool) error {
		opts := o.options()
		opts.AcceptNew = accept
		h, err := Open(t.Context(), m.target("root"), opts)
		if err == nil {
			_ = h.Close()
		}
		return err
	}
	var e *HostKeyError
	if err := try(false); !errors.As(err, &e) || e.Changed() || !strings.Contains(err.Error(), "is not known") || !strings.Contains(e.Hint(), "--accept-new") {
		t.Errorf("unknown: %v", err)
	}
	write(t, o.path("known_hosts"), "# no line end")
	if err := errors.Join(try(true), try(false)); err != nil {
		t.Errorf("accepted: %v", err)
	}
	was, _ := os.ReadFile(o.path("known_hosts"))
	m.newHostKey(t)
	m.restart(t)
	for _, accept := range []bool{false, true} {
		if err := try(accept); !errors.As(err, &e) || !e.Changed() || !strings.Contains(err.Error(), o.path("known_hosts")+":2: ssh-ed25519 SHA256:") {
			t.Errorf("changed: %v", err)
		}
	}
	if is, _ := os.ReadFile(o.path("known_hosts")); !bytes.Equal(was, is) {
		t.Errorf("written: %s", is)
	}
}

// Many new hosts at once all get their lines.
func TestManyNewHosts(t *testing.T) {
	o := newOperator(t)
	m := newMachine(t, o, "node01", "", "MaxStartups 100")
	var wg sync.WaitGroup
	for range 3 { // three operators, who share a file
		wg.Go(func() {
			var targets []Target
			for i := range 8 {
				targets = append(targets, Target{Name: fmt.Sprint("node", i), Host: m.address, User: "root", Port: 22})
			}
			hosts, err := OpenAll(t.Context(), targets, o.options())
			CloseAll(hosts)
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	data, _ := os.ReadFile(o.path("known_hosts"))
	if n := strings.Count(string(data), "\n"); n != 1 {
		t.Errorf("%d lines for one address:\n%s", n, data)
	}
}
