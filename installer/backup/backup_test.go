package backup

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
)

// data is what etcd's snapshots look like: pages and their sum.
func data(pages int) []byte {
	b := bytes.Repeat([]byte("etcd"), 128*pages)
	s := sha256.Sum256(b)
	return append(b, s[:]...)
}

func sources() []Source {
	return []Source{
		Bytes(ClusterFile, []byte("kind: Cluster\n")), Bytes(PKIDir+"ca.key", []byte("the authority's key")), Bytes(PKIDir+"etcd/ca.crt", []byte("cert")),
		Bytes(EtcdData, data(40)),
	}
}

var manifest = Manifest{Cluster: "demo", TakenAt: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Etcd: Etcd{Member: "etcd01", Revision: 7}}

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	phrase, wrong, identity := filepath.Join(dir, "phrase"), filepath.Join(dir, "wrong"), filepath.Join(dir, "identity")
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{phrase: "correct horse\n", wrong: "correct hoarse\n", identity: "# mine\n" + id.String() + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		phrase     string
		recipients []string
		open       [2]string // passphrase, identity
		fails      string
	}{
		"plain":                {},
		"passphrase":           {phrase: phrase, open: [2]string{phrase, ""}},
		"wrong passphrase":     {phrase: phrase, open: [2]string{wrong, ""}, fails: "neither passphrase nor identity"},
		"recipient":            {recipients: []string{id.Recipient().String()}, open: [2]string{"", identity}},
		"encrypted and no key": {recipients: []string{id.Recipient().String()}, fails: "it is encrypted"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "b")
			lock, err := LockWith(c.phrase, c.recipients)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range lock.Recipients {
				if s, ok := r.(*age.ScryptRecipient); ok {
					s.SetWorkFactor(10) // the default takes a second and 256 MB
				}
			}
			if err := Write(path, manifest, sources(), lock); err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("%v, %v", info.Mode(), err)
			}
			key, err := KeyFrom(c.open[0], c.open[1])
			if err != nil {
				t.Fatal(err)
			}
			a, err := Open(path, key)
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.Files(PKIDir)
			if d := cmp.Diff(map[string][]byte{"ca.key": []byte("the authority's key"), "etcd/ca.crt": []byte("cert")}, got); d != "" || err != nil {
				t.Errorf("%v\n%s", err, d)
			}
			var etcd bytes.Buffer
			if err := a.Copy(EtcdData, &etcd); err != nil || !bytes.Equal(etcd.Bytes(), data(40)) {
				t.Errorf("%d bytes, %v", etcd.Len(), err)
			}
			if a.Manifest.Cluster != "demo" || a.Manifest.Etcd.Revision != 7 || a.File(EtcdData).Size != 40*512+32 {
				t.Errorf("%+v", a.Manifest)
			}
		})
	}
}

// Wherever the file ends too early it is refused, and whatever bit is not what
// was written, nothing else than what was put in is taken from it.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	if err := Write(path, manifest, sources(), Lock{}); err != nil {
		t.Fatal(err)
	}
	good, err := Open(path, Key{})
	if err != nil {
		t.Fatal(err)
	}
	want, err := good.Files("")
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Open(path, Key{})
		if err != nil {
			return
		}
		got, err := a.Files("")
		if d := cmp.Diff(want, got); d != "" || err != nil || what == "cut off" {
			t.Errorf("%s: it is taken for whole: %v\n%s", what, err, d)
		}
	}
	for _, n := range []int{0, 5, len(whole) / 2, len(whole) - 1} {
		try("cut off", whole[:n])
	}
	// Byte 9 of a gzip file says on what system it was made, and nothing of the content.
	for i := 10; i < len(whole); i += 7 {
		other := bytes.Clone(whole)
		other[i] ^= 0x40
		try("one bit", other)
	}
}

// A source that is not what was said of it leaves nothing behind, and keeps what
// was there.
func TestNothingHalf(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "b")
	if err := os.WriteFile(path, []byte("the last one"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := sources()
	s[3].Sum = strings.Repeat("0", 64)
	err := Write(path, manifest, s, Lock{})
	var wrong *SumError
	if !errors.As(err, &wrong) || wrong.Name != EtcdData {
		t.Errorf("%v", err)
	}
	kept, err := os.ReadFile(path)
	if err != nil || string(kept) != "the last one" {
		t.Errorf("%q, %v", kept, err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("%v", list)
	}
	s = sources()
	s[3] = Bytes(EtcdData, append(data(40)[:40*512], make([]byte, 32)...)) // whole, and damaged before it was
	if err := Write(path, manifest, s, Lock{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Key{}); err == nil || !strings.Contains(err.Error(), "own checksum") {
		t.Errorf("%v", err)
	}
}
