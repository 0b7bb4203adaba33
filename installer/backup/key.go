package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
)

// Lock is who may read an archive; nobody but by the file's mode if it is empty.
type Lock struct{ Recipients []age.Recipient }

// Key opens archives that are encrypted.
type Key struct{ Identities []age.Identity }

// LockWith makes a lock of a file with a passphrase, or of recipients as `age-keygen`
// prints them, "age1…". The two do not go together: who has either must be enough.
func LockWith(passphraseFile string, recipients []string) (Lock, error) {
	var l Lock
	for _, text := range recipients {
		r, err := age.ParseX25519Recipient(strings.TrimSpace(text))
		if err != nil {
			return l, fmt.Errorf("recipient: %w", err)
		}
		l.Recipients = append(l.Recipients, r)
	}
	if passphraseFile == "" {
		return l, nil
	}
	if len(recipients) > 0 {
		return l, errors.New("an archive is encrypted with a passphrase or for recipients, not both")
	}
	phrase, err := passphrase(passphraseFile)
	if err != nil {
		return l, err
	}
	r, err := age.NewScryptRecipient(phrase)
	l.Recipients = append(l.Recipients, r)
	return l, err
}

// KeyFrom reads a file with a passphrase or one with identities, as `age-keygen`
// writes it; either may be empty.
func KeyFrom(passphraseFile, identityFile string) (Key, error) {
	var k Key
	if identityFile != "" {
		data, err := os.ReadFile(identityFile)
		if err != nil {
			return k, err
		}
		if k.Identities, err = age.ParseIdentities(bytes.NewReader(data)); err != nil {
			return k, fmt.Errorf("%s: %w", identityFile, err)
		}
	}
	if passphraseFile == "" {
		return k, nil
	}
	phrase, err := passphrase(passphraseFile)
	if err != nil {
		return k, err
	}
	i, err := age.NewScryptIdentity(phrase)
	k.Identities = append(k.Identities, i)
	return k, err
}

// passphrase is a file's first line.
func passphrase(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fmt.Errorf("%s: there is no passphrase in its first line", path)
	}
	return line, nil
}

// remembered is an identity that has opened the archive before: a passphrase
// costs a second and 256 MB each time.
type remembered struct {
	age.Identity
	fileKey []byte
}

// Unwrap finds the file's key.
func (r *remembered) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if r.fileKey != nil {
		return bytes.Clone(r.fileKey), nil
	}
	key, err := r.Identity.Unwrap(stanzas)
	if err == nil {
		r.fileKey = bytes.Clone(key)
	}
	return key, err
}

// intro is how an encrypted archive begins (age-encryption.org/v1).
const intro = "age-encryption.org/v1\n"

// errEncrypted says that an archive needs a key.
var errEncrypted = errors.New("it is encrypted: give the passphrase's file or the identity that it is for")

// unlock reads through the encryption, if there is any.
func unlock(f io.ReadSeeker, k Key) (io.Reader, error) {
	head := make([]byte, len(intro))
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if string(head[:n]) != intro {
		return f, nil
	}
	if len(k.Identities) == 0 {
		return nil, errEncrypted
	}
	r, err := age.Decrypt(f, k.Identities...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return nil, errors.New("neither passphrase nor identity opens it")
	}
	return r, err
}
