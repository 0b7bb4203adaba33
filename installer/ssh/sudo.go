package ssh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reason is why sudo does not make somebody root.
type Reason string

// The reasons.
const (
	NoSudo         Reason = "sudo is not installed"
	NeedsPassword  Reason = "sudo asks for a password, and none was given"
	WrongPassword  Reason = "sudo does not take the password"
	NotAllowed     Reason = "sudo does not allow it to this user"
	NeedsTerminal  Reason = "sudo wants a terminal (requiretty)"
	SudoDoesNotRun Reason = "sudo does not run"
)

// SudoError says why a user cannot become root.
type SudoError struct {
	Host, User string
	Reason     Reason
	Said       string // by sudo
}

// Error names host, user and reason.
func (e *SudoError) Error() string {
	return fmt.Sprintf("%s: %s is not root, and %s%s", e.Host, e.User, e.Reason, indented(e.Said))
}

// Hint says what to do.
func (e *SudoError) Hint() string {
	switch e.Reason {
	case NoSudo:
		return "install sudo on the host, or log in as root"
	case NeedsPassword:
		return fmt.Sprintf("have the password asked for, or allow it without: %s ALL=(ALL) NOPASSWD: ALL in a file of /etc/sudoers.d", e.User)
	case WrongPassword:
		return "is it this user's password, on this host?"
	case NotAllowed:
		return fmt.Sprintf("put %s into the group sudo (wheel), or allow it in a file of /etc/sudoers.d", e.User)
	case NeedsTerminal:
		return fmt.Sprintf("take requiretty away for the user: Defaults:%s !requiretty in a file of /etc/sudoers.d", e.User)
	}
	return "try it by hand: sudo -n true"
}

// become is how to be root. The zero value is a user who is.
type become struct {
	sudo     bool
	password string
}

// command goes before the shell. Messages come in a language that is known here.
func (b become) command(prompt string) string {
	switch {
	case !b.sudo:
		return ""
	case b.password == "":
		return "env LC_ALL=C sudo -n -- "
	}
	// -k: asked always, so that it is known who reads the password.
	return "env LC_ALL=C sudo -k -S -p " + prompt + " -- "
}

// answer gives the password when sudo asks, once: the second time it was wrong.
func (b become) answer(prompt string, in io.WriteCloser) func([]byte) {
	answered := 0
	return func(all []byte) {
		n := bytes.Count(all, []byte(prompt))
		if n <= answered {
			return
		}
		answered = n
		if n == 1 {
			// Not from here: this is what reads the connection.
			go func() { _, _ = io.WriteString(in, b.password+"\n") }()
			return
		}
		go func() { _ = in.Close() }()
	}
}

// refused makes an error of what came instead of the program.
func (b become) refused(x *exchange, code int) error {
	said := x.errs.said()
	if b.sudo {
		if r := reason(said, code, b.password != ""); r != "" {
			return &SudoError{Host: x.h.target.Name, User: x.h.user(), Reason: r, Said: cleaned(said)}
		}
	}
	return x.notStarted(fmt.Sprintf("started something else, which ended with code %d", code))
}

// cleaned takes our own prompt out of what sudo said.
func cleaned(said string) string {
	var out []string
	for _, l := range strings.Split(said, "\n") {
		if i := strings.Index(l, " -c m=$1"); i >= 0 { // "is not allowed to execute '/bin/sh -c …"
			l = l[:i] + " …'"
		}
		if i := strings.Index(l, "slipway-"); i >= 0 {
			l = l[:i] + strings.TrimLeft(l[i+len("slipway-"):], "0123456789abcdef")
		}
		if l = strings.TrimSpace(l); l != "" {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}

// reason reads what sudo says in the C locale (sudo 1.8 and 1.9: sudo.c, check.c,
// tgetpass.c, logging.c); empty if it said nothing.
func reason(said string, code int, password bool) Reason {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(said, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("must have a tty"):
		return NeedsTerminal
	case has("not in the sudoers", "is not allowed to", "may not run sudo"):
		return NotAllowed
	case has("incorrect password attempt", "Sorry, try again", "no password was provided"):
		return WrongPassword
	case has("a password is required", "a terminal is required to read the password"):
		if password {
			return WrongPassword
		}
		return NeedsPassword
	case code == 127 && has("sudo"), has("sudo: not found", "sudo: command not found"):
		return NoSudo
	case has("sudo:"):
		return SudoDoesNotRun
	}
	return ""
}

// findRoot finds out how to be root: as the user is, by sudo, or by sudo with the
// password. It is seen here, too, whether the login shell starts what it is told.
func (h *Host) findRoot(ctx context.Context, conn *connection) error {
	var out bytes.Buffer
	code, err := h.session(ctx, conn, become{}, run{argv: []string{"id", "-u"}, stdout: &out})
	if err != nil {
		return err
	}
	uid := strings.TrimSpace(out.String())
	if code != 0 || uid == "" {
		return &LoginError{Host: h.target.Name, User: h.user(), What: fmt.Sprintf("does not say who it is: id -u ends with code %d", code), Said: uid}
	}
	if uid == "0" {
		return nil
	}
	h.become = become{sudo: true}
	_, err = h.session(ctx, conn, h.become, run{argv: []string{"true"}})
	var denied *SudoError
	if errors.As(err, &denied) && denied.Reason == NeedsPassword && h.d.o.Sudo != nil {
		password, perr := h.d.o.Sudo(ctx, h.target.Name)
		if perr != nil {
			return fmt.Errorf("%s: password for sudo: %w", h.target.Name, perr)
		}
		h.become.password = password
		_, err = h.session(ctx, conn, h.become, run{argv: []string{"true"}})
	}
	return err
}
