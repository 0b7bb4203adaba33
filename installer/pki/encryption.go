package pki

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// encryptionFile holds the key with which the API server encrypts secrets before
// etcd gets them.
const encryptionFile = "encryption.key"

// encryptionKeyBytes is the length of a key of secretbox (XSalsa20 and Poly1305;
// kubernetes.io/docs/tasks/administer-cluster/encrypt-data).
const encryptionKeyBytes = 32

// encryptionKey makes the key. It is never made again: what it encrypted would be lost.
func (s *Store) encryptionKey() (made bool, err error) {
	_, err = s.EncryptionKey()
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	key := make([]byte, encryptionKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return false, fmt.Errorf("make the key for secrets: %w", err)
	}
	return true, s.writeFile(encryptionFile, []byte(base64.StdEncoding.EncodeToString(key)+"\n"))
}

// EncryptionKey is the key for secrets at rest, in base64.
func (s *Store) EncryptionKey() (string, error) {
	data, err := s.File(encryptionFile)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	if key, err := base64.StdEncoding.DecodeString(text); err != nil || len(key) != encryptionKeyBytes {
		return "", fmt.Errorf("%s is no key of %d bytes in base64", s.path(encryptionFile), encryptionKeyBytes)
	}
	return text, nil
}
