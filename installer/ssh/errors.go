package ssh

import (
	"fmt"
	"strings"
)

// ConfigError says that ~/.ssh/config cannot be followed.
type ConfigError struct {
	Host, File string
	Err        error
}

// Error names host and file.
func (e *ConfigError) Error() string {
	return fmt.Sprintf("%s: ssh configuration %s: %v", e.Host, e.File, e.Err)
}

// Hint says what to do.
func (e *ConfigError) Hint() string {
	return "correct the file, or name another one (\"none\": no file at all)"
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }

// ConnectError says that a host cannot be reached, or does not speak SSH.
type ConnectError struct {
	Host, Address string
	Via           string // the jump host; empty if none
	Err           error
	hint          string
}

// Error names host, address and cause.
func (e *ConnectError) Error() string {
	via := ""
	if e.Via != "" {
		via = " through " + e.Via
	}
	return fmt.Sprintf("%s: connect to %s%s: %v", e.Host, e.Address, via, e.Err)
}

// Hint says what to do.
func (e *ConnectError) Hint() string {
	if e.hint != "" {
		return e.hint
	}
	return "is the machine on, the address right, sshd running and its port let through by the firewalls in between?"
}

// Unwrap returns the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// AuthError says that a host let nobody in.
type AuthError struct {
	Host, Address, User string
	Tried               []string // keys: a file, or "agent" and the key's comment
	Notes               []string // keys that could not be tried, and why
	Err                 error
}

// Error names host, user and the keys that were tried.
func (e *AuthError) Error() string {
	tried := "there is no key to try"
	if len(e.Tried) > 0 {
		tried = "it takes none of the keys: " + strings.Join(e.Tried, ", ")
	}
	s := fmt.Sprintf("%s: log in to %s as %s: %s", e.Host, e.Address, e.User, tried)
	for _, n := range e.Notes {
		s += "; " + n
	}
	return s
}

// Hint says what to do.
func (e *AuthError) Hint() string {
	return fmt.Sprintf("put the right public key into ~%s/.ssh/authorized_keys on the host, load the key into the agent (ssh-add), or name user and key in the cluster file or ~/.ssh/config", e.User)
}

// Unwrap returns the cause.
func (e *AuthError) Unwrap() error { return e.Err }

// HostKeyError says that a host's key is not the known one, or not known.
type HostKeyError struct {
	Host, Address string
	Got           string   // type and fingerprint of the key that the host has
	Known         []string // "file:line: type fingerprint" of each known one
	File          string   // where a new key would be written
	Revoked       bool
}

// Changed reports whether another key is known.
func (e *HostKeyError) Changed() bool { return len(e.Known) > 0 }

// Error names host, key and where the known one stands.
func (e *HostKeyError) Error() string {
	switch {
	case e.Revoked:
		return fmt.Sprintf("%s: the key of %s, %s, is revoked: %s", e.Host, e.Address, e.Got, strings.Join(e.Known, ", "))
	case e.Changed():
		return fmt.Sprintf("%s: the key of %s is %s, which is not the known one: %s", e.Host, e.Address, e.Got, strings.Join(e.Known, ", "))
	}
	return fmt.Sprintf("%s: the key of %s, %s, is not known", e.Host, e.Address, e.Got)
}

// Hint says what to do.
func (e *HostKeyError) Hint() string {
	if e.Changed() {
		return "somebody may be in between. If the machine was installed anew, compare the fingerprint on its console and take the old line out of the file"
	}
	return "compare the fingerprint on the machine's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then accept new keys once (--accept-new); it is kept in " + e.File
}

// LoginError says that a login shell did not start what it was told to.
type LoginError struct {
	Host, User string
	What       string
	Said       string // the end of what came instead
}

// Error names host and user and ends with what came.
func (e *LoginError) Error() string {
	return fmt.Sprintf("%s: the login of %s %s%s", e.Host, e.User, e.What, indented(e.Said))
}

// Hint says what to do.
func (e *LoginError) Hint() string {
	return "`ssh HOST true` must print nothing and end with code 0: look at the user's shell, its start files, and a forced command (authorized_keys, ForceCommand)"
}

// LostError says that the connection went while something was done.
type LostError struct {
	Host string
	What string // the program
	// Began: it ran. Nobody knows how it ended.
	Began bool
	Err   error
}

// Error says what is known.
func (e *LostError) Error() string {
	if !e.Began {
		return fmt.Sprintf("%s: the connection was lost before %s began: %v", e.Host, e.What, e.Err)
	}
	return fmt.Sprintf("%s: the connection was lost while %s ran: nobody knows how it ended: %v", e.Host, e.What, e.Err)
}

// Hint says what to do.
func (e *LostError) Hint() string {
	return "once the host answers again, run the same command again: what is done already stays as it is"
}

// Unwrap returns the cause.
func (e *LostError) Unwrap() error { return e.Err }

// saidLines is how much of what a host said an error holds.
const saidLines = 12

func indented(text string) string {
	text = strings.TrimSpace(text)
	if l := strings.Split(text, "\n"); len(l) > saidLines {
		text = "[…]\n" + strings.Join(l[len(l)-saidLines:], "\n")
	}
	if text == "" {
		return ""
	}
	return "\n  " + strings.ReplaceAll(text, "\n", "\n  ")
}
