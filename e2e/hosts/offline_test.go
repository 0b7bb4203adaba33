package hosts

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/installer/components"
)

// offline installs from a bundle alone: nobody has a network, the operator neither a
// toolchain nor anything in the cache.
func (r *Rig) offline(t *testing.T, file string) {
	t.Helper()
	private, public, other := r.signing(t, "key"), filepath.Join(r.Home, "key.pub"), filepath.Join(r.Home, "other.pub")
	r.signing(t, "other")
	archive := filepath.Join(r.Home, "bundle.tgz")
	o := r.SlipwayMust("components", "bundle", "-f", archive, "--sign-key", private)
	if !strings.Contains(o.Stdout, "signed with the key") || !strings.Contains(o.Stdout, "conntrack 1:") {
		t.Errorf("%v", o)
	}
	nothing := t.TempDir()
	apply := func(key string) Output {
		cmd := r.Command(binary, "install", "apply", "-f", file, "--bundle", archive, "--bundle-key", key)
		var env []string
		for _, e := range cmd.Env {
			if !strings.HasPrefix(e, "PATH=") && !strings.HasPrefix(e, "GO") && !strings.HasPrefix(e, components.CacheDirEnv) {
				env = append(env, e)
			}
		}
		cmd.Env = append(env, "PATH="+nothing, components.CacheDirEnv+"="+filepath.Join(r.Home, "cache"))
		return r.run(cmd)
	}
	if o := apply(other); o.Code == 0 || !strings.Contains(o.Stderr, "the signature is not that of the key given") {
		t.Errorf("another's bundle: %v", o)
	}
	undo := flip(t, archive)
	if o := apply(public); o.Code == 0 || !strings.Contains(o.Stderr, "the bundle is damaged") {
		t.Errorf("a bundle that was changed: %v", o)
	}
	undo()
	o = apply(public)
	if o.Code != 0 {
		t.Fatal(o)
	}
	r.secretsIn(t, "what apply prints", o.Stdout+o.Stderr)
	for _, f := range []string{archive, filepath.Join(r.Home, "cache")} {
		if err := os.RemoveAll(f); err != nil {
			t.Error(err)
		}
	}
}

// signing makes a pair of keys, NAME and NAME.pub, as openssl does.
func (r *Rig) signing(t *testing.T, name string) (private string) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	private = filepath.Join(r.Home, name)
	for path, block := range map[string]*pem.Block{private: {Type: "PRIVATE KEY", Bytes: pkcs8}, private + ".pub": {Type: "PUBLIC KEY", Bytes: pkix}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return private
}

// flip changes one byte of an archive's first megabytes, and back.
func flip(t *testing.T, path string) (undo func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	const at = 1 << 20
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	put := func(x byte) {
		if _, err := f.WriteAt([]byte{x}, at); err != nil {
			t.Fatal(err)
		}
	}
	put(b[0] ^ 0x10)
	return func() { put(b[0]) }
}
