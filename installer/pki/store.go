package pki

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The service accounts' keys: tokens are signed with one and checked with the other.
const (
	serviceAccountKey    = "sa.key"
	serviceAccountPublic = "sa.pub"
)

// tokenFile holds the bootstrap token.
const tokenFile = "bootstrap-token"

// Store is a directory of certificates and keys: shared ones at its top and in
// etcd/, those of one machine in the machine's own directory.
type Store struct {
	Dir       string
	Algorithm Algorithm // of new keys
	Now       func() time.Time
}

// authorities by the common name that each gets.
var authorities = []struct{ name, commonName string }{
	{KubernetesCA, "kubernetes"}, {EtcdCA, "etcd-ca"}, {FrontProxyCA, "front-proxy-ca"},
}

// Change is what was made and why.
type Change struct{ Name, Reason string }

// Ensure makes what is missing and makes again what is of no use any more
// (expired, of another authority, with other names). What is good stays, byte
// for byte. An authority is never made again: everything would have to follow.
func (s *Store) Ensure(requests []Request) ([]Change, error) {
	var done []Change
	// All are looked at before anything is written.
	for _, a := range authorities {
		if _, err := s.look(a.name); err != nil {
			return nil, err
		}
	}
	signers := map[string]*Pair{}
	for _, a := range authorities {
		p, made, err := s.authority(a.name, a.commonName)
		if err != nil {
			return done, err
		}
		if made {
			done = append(done, Change{a.name, "there was none"})
		}
		signers[a.name] = p
	}
	made, err := s.serviceAccounts()
	if err != nil {
		return done, err
	}
	if made {
		done = append(done, Change{serviceAccountKey, "there was none"})
	}
	if made, err = s.encryptionKey(); err != nil {
		return done, err
	}
	if made {
		done = append(done, Change{encryptionFile, "there was none"})
	}
	if made, err = s.bootstrapToken(); err != nil {
		return done, err
	}
	if made {
		done = append(done, Change{tokenFile, "there was none"})
	}
	for _, r := range requests {
		by := signers[r.Authority]
		if by == nil {
			return done, fmt.Errorf("certificate %s: there is no authority %q", r.Key(), r.Authority)
		}
		reason, err := s.certificate(r, by)
		if err != nil {
			return done, err
		}
		if reason != "" {
			done = append(done, Change{r.Key(), reason})
		}
	}
	return done, nil
}

// Renew makes a certificate again, with a new key.
func (s *Store) Renew(r Request) error {
	by, err := s.Pair(r.Authority)
	if err != nil {
		return err
	}
	return s.renew(r, by)
}

// serviceAccounts makes the pair of keys.
func (s *Store) serviceAccounts() (made bool, err error) {
	data, err := os.ReadFile(s.path(serviceAccountKey))
	if err == nil {
		key, err := parseKey(data)
		if err != nil {
			return false, fmt.Errorf("%s: %w", s.path(serviceAccountKey), err)
		}
		return false, s.writePublic(key)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	key, err := newKey(s.Algorithm)
	if err != nil {
		return false, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return false, err
	}
	if err := s.writeFile(serviceAccountKey, private); err != nil {
		return false, err
	}
	return true, s.writePublic(key)
}

// bootstrapToken makes the token with which nodes join.
func (s *Store) bootstrapToken() (made bool, err error) {
	_, err = s.BootstrapToken()
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	t, err := NewToken()
	if err != nil {
		return false, err
	}
	return true, s.writeFile(tokenFile, []byte(t.String()+"\n"))
}

// BootstrapToken is what a node shows that has no certificate yet.
func (s *Store) BootstrapToken() (Token, error) {
	data, err := os.ReadFile(s.path(tokenFile))
	if err != nil {
		return Token{}, err
	}
	t, err := parseToken(strings.TrimSpace(string(data)))
	if err != nil {
		return Token{}, fmt.Errorf("%s: %w", s.path(tokenFile), err)
	}
	return t, nil
}

func (s *Store) writePublic(key crypto.Signer) error {
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("write the service accounts' public key: %w", err)
	}
	return s.writeFile(serviceAccountPublic, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// certificate makes r unless a good one is there, and says why.
func (s *Store) certificate(r Request, by *Pair) (reason string, err error) {
	if err := r.check(); err != nil {
		return "", err
	}
	old, err := s.Pair(r.Key())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		reason = "there was none"
	case err != nil: // what a crash between key and certificate leaves, or a hand
		reason = err.Error()
	default:
		reason = r.unfit(old.Cert, by.Cert, s.Now())
	}
	if reason == "" {
		return "", nil
	}
	return reason, s.renew(r, by)
}

func (s *Store) renew(r Request, by *Pair) error {
	p, err := by.issue(r, s.Algorithm, s.Now())
	if err != nil {
		return err
	}
	return s.write(r.Key(), p)
}

// Pair reads a certificate with its key, by name: "ca", "etcd/ca", "master01/apiserver".
func (s *Store) Pair(name string) (*Pair, error) {
	cert, err := os.ReadFile(s.path(name) + ".crt")
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(s.path(name) + ".key")
	if err != nil {
		return nil, err
	}
	p, err := parsePair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s.crt and .key: %w", s.path(name), err)
	}
	return p, nil
}

// File reads one of the store's files: "sa.pub", "etcd/ca.crt".
func (s *Store) File(name string) ([]byte, error) { return os.ReadFile(s.path(name)) }

func (s *Store) path(name string) string { return filepath.Join(s.Dir, filepath.FromSlash(name)) }

// write puts the key down before the certificate. A crash between the two leaves
// a pair that does not belong together, which [Store.Pair] tells and the next
// run makes again; an authority is only ever written where there was none.
func (s *Store) write(name string, p *Pair) error {
	key, err := p.KeyPEM()
	if err != nil {
		return err
	}
	if err := s.writeFile(name+".key", key); err != nil {
		return err
	}
	return s.writeFile(name+".crt", p.CertPEM())
}

// writeFile replaces a file as a whole. Everything is for its owner only: even
// where it is no secret, nobody else has a use for it.
func (s *Store) writeFile(name string, data []byte) (err error) {
	path := s.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
