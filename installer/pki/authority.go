package pki

import (
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// AuthorityError says that an authority cannot sign any more, or is no authority.
type AuthorityError struct {
	File   string
	Reason string
}

// Error says what to do.
func (e *AuthorityError) Error() string {
	return fmt.Sprintf("%s: %s: put a valid authority there, or move the file and everything that it signed away to get a new one", e.File, e.Reason)
}

// authority returns the one that is there, or makes one where nobody has put
// any.
func (s *Store) authority(name, commonName string) (p *Pair, made bool, err error) {
	if p, err = s.look(name); p != nil || err != nil {
		return p, false, err
	}
	key, err := s.loneKey(name)
	if err == nil && key == nil {
		key, err = newKey(s.Algorithm)
	}
	if err != nil {
		return nil, false, err
	}
	if p, err = newAuthority(commonName, key, s.Now()); err != nil {
		return nil, false, err
	}
	return p, true, s.write(name, p)
}

// loneKey is an authority's key that is there without a certificate: a crash
// between the two left it, or somebody put it there. It is nil if there is none.
func (s *Store) loneKey(name string) (crypto.Signer, error) {
	data, err := os.ReadFile(s.path(name) + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	key, err := parseKey(data)
	if err != nil {
		return nil, &AuthorityError{s.path(name) + ".key", err.Error()}
	}
	return key, nil
}

// look returns an authority that can sign; nil if there is none. It changes
// nothing.
func (s *Store) look(name string) (*Pair, error) {
	file := s.path(name) + ".crt"
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		_, err := s.loneKey(name)
		return nil, err
	}
	p, err := s.Pair(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &AuthorityError{file, "its key, " + strings.TrimSuffix(file, ".crt") + ".key, is not there"}
	case errors.Is(err, errNotPair):
		return nil, &AuthorityError{file, errNotPair.Error()}
	case err != nil:
		return nil, err
	}
	if why := unfitAuthority(p.Cert, s.Now()); why != "" {
		return nil, &AuthorityError{file, why}
	}
	return p, nil
}

func unfitAuthority(c *x509.Certificate, now time.Time) string {
	switch {
	case !c.IsCA:
		return "not an authority's certificate"
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "a certificate that may not sign others"
	case now.After(c.NotAfter):
		return "expired on " + c.NotAfter.Format(time.DateOnly)
	case now.Add(backdated).Before(c.NotBefore): // clocks may differ a little
		return "not valid before " + c.NotBefore.Format(time.RFC3339) + ": is the clock right?"
	}
	return ""
}
