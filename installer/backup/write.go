package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// Source is a file that goes into an archive. Its size and sum are known before.
type Source struct {
	File
	Copy func(w io.Writer) error
}

// Bytes is a source that is in memory.
func Bytes(name string, data []byte) Source {
	return Source{File{name, int64(len(data)), sum(data)}, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	}}
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// Write makes an archive: a file of mode 0600 that is there as a whole or not at
// all. What lay at the path stays until then.
func Write(path string, m Manifest, sources []Source, l Lock) (err error) {
	m.Format, m.Files = format, nil
	for _, s := range sources {
		m.Files = append(m.Files, s.File)
	}
	head, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if _, err := parseManifest(head); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".part*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	if err := write(f, head, m, sources, l); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return f.Close()
}

func write(w io.Writer, head []byte, m Manifest, sources []Source, l Lock) error {
	var sealed io.WriteCloser
	if len(l.Recipients) > 0 {
		var err error
		if sealed, err = age.Encrypt(w, l.Recipients...); err != nil {
			return err
		}
		w = sealed
	}
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	all := append([]Source{{File{manifestName, int64(len(head)), sum(head)}, func(w io.Writer) error {
		_, err := io.Copy(w, bytes.NewReader(head))
		return err
	}}}, sources...)
	for _, s := range all {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: s.Name, Mode: 0o600, Size: s.Size, ModTime: m.TakenAt, Format: tar.FormatPAX}); err != nil {
			return err
		}
		h := sha256.New()
		if err := s.Copy(io.MultiWriter(t, h)); err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != s.Sum {
			return &SumError{s.Name, s.Sum, got}
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return err
	}
	if sealed != nil {
		return sealed.Close()
	}
	return nil
}

// SumError says that a file is not what its checksum says.
type SumError struct{ Name, Want, Got string }

// Error names the file.
func (e *SumError) Error() string {
	return fmt.Sprintf("%s has the SHA-256 %s and not %s", e.Name, e.Got, e.Want)
}
