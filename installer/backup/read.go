package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
)

// Archive is a backup that was read through: everything in it is what its sums say.
type Archive struct {
	Manifest Manifest
	path     string
	key      Key
}

// maxManifest bounds backup.json, in bytes: it is read into memory.
const maxManifest = 16 << 20

// Open reads an archive through, and fails if anything in it is missing, damaged,
// or not in its manifest. Etcd's data carries a sum of its own, which is compared
// as well.
func Open(path string, k Key) (*Archive, error) {
	a := &Archive{path: path}
	for _, i := range k.Identities {
		a.key.Identities = append(a.key.Identities, &remembered{Identity: i})
	}
	seen := map[string]bool{}
	err := a.each(func(m Manifest, f File, r io.Reader) error {
		a.Manifest = m
		seen[f.Name] = true
		var own *tailed
		w := io.Discard
		if f.Name == EtcdData {
			own = &tailed{h: sha256.New()}
			w = own
		}
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(h, w), r); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != f.Sum {
			return &SumError{f.Name, f.Sum, got}
		}
		if own != nil {
			return own.check(f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", path, err)
	}
	for _, f := range a.Manifest.Files {
		if !seen[f.Name] {
			return nil, fmt.Errorf("backup %s: %s is missing", path, f.Name)
		}
	}
	return a, nil
}

// each goes through the files in their order.
func (a *Archive) each(visit func(m Manifest, f File, r io.Reader) error) error {
	file, err := os.Open(a.path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // only read
	plain, err := unlock(file, a.key)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(plain)
	if err != nil {
		return fmt.Errorf("not a backup: %w", err)
	}
	t := tar.NewReader(z)
	m, err := readManifest(t)
	if err != nil {
		return err
	}
	files := map[string]File{}
	for _, f := range m.Files {
		files[f.Name] = f
	}
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			// What follows the last file is read too: the encryption's end is
			// what says that nothing was cut off.
			_, err = io.Copy(io.Discard, z)
			return err
		}
		if err != nil {
			return err
		}
		f, ok := files[h.Name]
		if !ok || h.Typeflag != tar.TypeReg || h.Size != f.Size {
			return fmt.Errorf("%s is not in %s, or is there twice, or is not as big", h.Name, manifestName)
		}
		delete(files, h.Name)
		if err := visit(m, f, t); err != nil {
			return err
		}
	}
}

func readManifest(t *tar.Reader) (Manifest, error) {
	h, err := t.Next()
	if err != nil {
		return Manifest{}, fmt.Errorf("not a backup: %w", err)
	}
	if h.Name != manifestName || h.Size > maxManifest {
		return Manifest{}, fmt.Errorf("not a backup: it begins with %s", h.Name)
	}
	data, err := io.ReadAll(t)
	if err != nil {
		return Manifest{}, err
	}
	return parseManifest(data)
}

// Copy writes one file's content.
func (a *Archive) Copy(name string, w io.Writer) error {
	found := false
	err := a.each(func(_ Manifest, f File, r io.Reader) error {
		if f.Name != name {
			return nil
		}
		found = true
		_, err := io.Copy(w, r)
		return err
	})
	if err == nil && !found {
		err = errors.New("there is no such file")
	}
	if err != nil {
		return fmt.Errorf("backup %s: %s: %w", a.path, name, err)
	}
	return nil
}

// Files reads all files whose names begin with a prefix into memory, by their
// names without it.
func (a *Archive) Files(prefix string) (map[string][]byte, error) {
	out := map[string][]byte{}
	err := a.each(func(_ Manifest, f File, r io.Reader) error {
		name, ok := strings.CutPrefix(f.Name, prefix)
		if !ok {
			return nil
		}
		var b bytes.Buffer
		if _, err := io.Copy(&b, r); err != nil {
			return err
		}
		out[name] = b.Bytes()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", a.path, err)
	}
	return out, nil
}

// File is what the manifest says of a file.
func (a *Archive) File(name string) File {
	for _, f := range a.Manifest.Files {
		if f.Name == name {
			return f
		}
	}
	return File{}
}

// tailed sums what ends with its own sum (etcdctl's snapshots: the database, whose
// pages are of 512 bytes or a multiple, and the SHA-256 of it; etcdutl/snapshot,
// v3_snapshot.go, hasChecksum).
type tailed struct {
	h    hash.Hash
	tail []byte
}

// Write takes content in; the last bytes wait.
func (t *tailed) Write(p []byte) (int, error) {
	t.tail = append(t.tail, p...)
	if n := len(t.tail) - sha256.Size; n > 0 {
		t.h.Write(t.tail[:n])
		t.tail = append(t.tail[:0], t.tail[n:]...)
	}
	return len(p), nil
}

func (t *tailed) check(f File) error {
	if f.Size%512 != sha256.Size || !bytes.Equal(t.h.Sum(nil), t.tail) {
		return fmt.Errorf("%s is no snapshot of etcd, or a damaged one: it does not end with its own checksum", f.Name)
	}
	return nil
}
