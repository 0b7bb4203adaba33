package testnet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"slipway/internal/filelock"
)

// Packed is a directory below home that pack made of some parts and that is never
// changed: it is made the first time, and again, beside the old one, when a part
// is another or this machine's distribution is. Other processes that make the same
// are waited for.
func Packed(home string, parts [][]byte, pack func(dir string) error) (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, part := range append(parts, release) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	dir := filepath.Join(home, hex.EncodeToString(h.Sum(nil))[:16])
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(dir + ".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return "", err
	}
	if err := pack(part); err != nil {
		return "", err
	}
	return dir, os.Rename(part, dir)
}

func lockFile(path string) (unlock func(), err error) {
	f, err := filelock.Wait(path)
	if err != nil {
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
