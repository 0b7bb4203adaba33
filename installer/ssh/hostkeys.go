package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"
)

// hostKeys checks the keys of hosts against the files in which they are pinned.
type hostKeys struct{ mu sync.Mutex }

// nowhere is what a host's address is where only its name counts.
var nowhere = &net.TCPAddr{IP: net.IPv4zero}

// known opens the files that are there.
func known(files []string) (gossh.HostKeyCallback, error) {
	files = slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		_, err := os.Stat(f)
		return errors.Is(err, os.ErrNotExist)
	})
	return knownhosts.New(files...)
}

// noKey is a key that no host has: what is wanted instead is what is known.
type noKey struct{}

func (noKey) Type() string                          { return "none" }
func (noKey) Marshal() []byte                       { return []byte("none") }
func (noKey) Verify([]byte, *gossh.Signature) error { return errors.New("no key") }

// algorithms puts those first that the host's known keys are of: it has keys of
// other kinds as well, and those are not known. Certificates are asked for only
// where an authority is known, as ssh does (OpenSSH: order_hostkeyalgs): the host's
// plain key is not shown beside one.
func algorithms(check gossh.HostKeyCallback, r route) []string {
	var certified, first, others []string
	authority := false
	var e *knownhosts.KeyError
	if errors.As(check(r.keyAlias, nowhere, noKey{}), &e) {
		for _, k := range e.Want {
			switch t := k.Key.Type(); {
			case isAuthority(k):
				authority = true
			case t == gossh.KeyAlgoRSA:
				first = append(first, gossh.KeyAlgoRSASHA512, gossh.KeyAlgoRSASHA256)
			default:
				first = append(first, t)
			}
		}
	}
	for _, a := range gossh.SupportedAlgorithms().HostKeys {
		switch {
		case !strings.Contains(a, "-cert-"):
			others = append(others, a)
		case authority:
			certified = append(certified, a)
		}
	}
	var out []string
	for _, a := range slices.Concat(certified, first, others) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// isAuthority reports whether a known key is not a host's, but of who vouches for
// hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).
func isAuthority(k knownhosts.KnownKey) bool {
	data, err := os.ReadFile(k.Filename)
	if err != nil {
		return false
	}
	lines := strings.Split(string(data), "\n")
	return k.Line <= len(lines) && strings.HasPrefix(strings.TrimSpace(lines[k.Line-1]), "@cert-authority")
}

// callback checks the key of one host, and writes a new one down where that is
// wanted.
func (h *hostKeys) callback(r route, o Options) (gossh.HostKeyCallback, []string, error) {
	check, err := known(r.knownHosts)
	if err != nil {
		return nil, nil, err
	}
	return func(_ string, _ net.Addr, key gossh.PublicKey) error {
		err := refusal(check(r.keyAlias, nowhere, key), r, key)
		var e *HostKeyError
		if !errors.As(err, &e) || e.Changed() || !r.acceptNew || len(r.knownHosts) == 0 {
			return err
		}
		wrote, err := h.accept(r, key)
		if wrote {
			o.tell(Event{Host: r.name, Kind: NewKey, Text: fingerprint(key)})
		}
		return err
	}, algorithms(check, r), nil
}

func fingerprint(k gossh.PublicKey) string { return k.Type() + " " + gossh.FingerprintSHA256(k) }

// refusal says what is wrong with a key in words.
func refusal(err error, r route, key gossh.PublicKey) error {
	if err == nil {
		return nil
	}
	e := &HostKeyError{Host: r.name, Address: knownhosts.Normalize(r.keyAlias), Got: fingerprint(key)}
	if len(r.knownHosts) > 0 {
		e.File = r.knownHosts[0]
	}
	var wrong *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	switch {
	case errors.As(err, &wrong):
		for _, k := range wrong.Want {
			e.Known = append(e.Known, fmt.Sprintf("%s:%d: %s", k.Filename, k.Line, fingerprint(k.Key)))
		}
	case errors.As(err, &revoked):
		e.Revoked = true
		e.Known = []string{fmt.Sprintf("%s:%d", revoked.Revoked.Filename, revoked.Revoked.Line)}
	default:
		return fmt.Errorf("%s: the host's key: %w", r.name, err)
	}
	return e
}

// accept adds a line to the first file, if the host is still not known once nobody
// else writes. It is appended in one piece, as ssh itself does: a link stays a
// link, and what ssh adds at the same time is not lost.
func (h *hostKeys) accept(r route, key gossh.PublicKey) (wrote bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	path := r.knownHosts[0]
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return false, fmt.Errorf("%s: keep the host's key: %w", r.name, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return false, fmt.Errorf("%s: keep the host's key: %w", r.name, err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("%s: keep the host's key: %w", r.name, cerr)
		}
	}()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("%s: lock %s: %w", r.name, path, err)
	}
	check, err := known(r.knownHosts)
	if err != nil {
		return false, err
	}
	err = refusal(check(r.keyAlias, nowhere, key), r, key)
	var e *HostKeyError
	if err == nil || !errors.As(err, &e) || e.Changed() {
		return false, err // somebody else was faster
	}
	if err := appendLine(f, knownhosts.Line([]string{r.keyAlias}, key)); err != nil {
		return false, fmt.Errorf("%s: write %s: %w", r.name, path, err)
	}
	return true, nil
}

// appendLine writes a line, after ending one that somebody left open.
func appendLine(f *os.File, line string) error {
	var before strings.Builder
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			before.WriteByte('\n')
		}
	}
	if _, err := f.WriteString(before.String() + line + "\n"); err != nil {
		return err
	}
	return f.Sync()
}
