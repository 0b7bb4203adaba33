package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"slipway/installer"
	"slipway/installer/components"
	"slipway/installer/images"
)

// tiny is a component that builds in a second, from the standard library alone.
var tiny = Options{Components: []string{"pause"}, Images: []string{"pause"}}

// elsewhere makes the rest of a test use another cache.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(components.CacheDirEnv, dir)
	return dir
}

// made is a bundle of a small component, signed or not.
func made(t *testing.T, key ed25519.PrivateKey) []byte {
	t.Helper()
	if _, err := components.BuildAll(t.Context(), tiny.Components, nil); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := tiny
	o.Key = key
	if _, err := Write(t.Context(), &out, o); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func load(raw []byte, key ed25519.PublicKey) error {
	_, _, err := Load(context.Background(), bytes.NewReader(raw), key)
	return err
}

// What one machine built, another runs that has no Go toolchain.
func TestToAMachineWithoutGo(t *testing.T) {
	elsewhere(t)
	raw := made(t, nil)
	again := made(t, nil)
	if !bytes.Equal(raw, again) {
		t.Error("the same components gave other bytes")
	}
	here, err := images.Build(t.Context(), "", "pause")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere(t)
	if raw := made(t, nil); !bytes.Equal(raw, again) {
		t.Error("components built in another directory gave other bytes")
	}

	cache := elsewhere(t)
	t.Setenv(components.GoEnv, filepath.Join(cache, "no-go"))
	if _, err := components.Lookup(t.Context(), "pause"); err == nil {
		t.Fatal("found before it was loaded")
	}
	if err := load(raw, nil); err != nil {
		t.Fatal(err)
	}
	b, err := components.Verify(t.Context(), "pause")
	if err != nil || !b.Bundle {
		t.Fatalf("after loading: %+v, %v, want it from the bundle", b, err)
	}
	if built, err := components.Build(t.Context(), "pause", nil); err != nil || built.Dir != b.Dir {
		t.Errorf("build without a toolchain: %v, want what was loaded", err)
	}
	// pause ends when it is told to, with success: it runs.
	cmd := exec.CommandContext(t.Context(), b.Path("pause"))
	if err := errors.Join(cmd.Start(), cmd.Process.Signal(os.Interrupt)); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // ended by the signal, or after it was caught
	there, err := images.Build(t.Context(), "", "pause")
	if err != nil {
		t.Fatal(err)
	}
	sameImages(t, here, there)
	if err := load(raw, nil); err != nil {
		t.Errorf("loaded again: %v", err)
	}
	noScratch(t, cache)
}

// An image of a bundle is the bundle's, on a machine too that would make another of
// the same component: an offline installation is of what was rehearsed.
func TestImageIsTheBundles(t *testing.T) {
	if _, err := exec.LookPath("busybox"); err != nil {
		t.Fatal("no busybox, which the image has where it is made: `make deps` installs it")
	}
	elsewhere(t)
	if _, err := components.Build(t.Context(), "echo", nil); err != nil {
		t.Fatal(err)
	}
	here, err := images.Build(t.Context(), "", "echo")
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if _, err := Write(t.Context(), &raw, Options{Components: []string{"echo"}, Images: []string{"echo"}}); err != nil {
		t.Fatal(err)
	}
	t.Setenv(components.GoEnv, filepath.Join(elsewhere(t), "no-go"))
	t.Setenv("PATH", t.TempDir())
	if err := load(raw.Bytes(), nil); err != nil {
		t.Fatal(err)
	}
	there, err := images.Build(t.Context(), "", "echo")
	if err != nil {
		t.Fatal(err)
	}
	sameImages(t, here, there)
}

// sameImages compares the archives of all images that are had here.
func sameImages(t *testing.T, here, there map[string]installer.Blob) {
	t.Helper()
	for ref, blob := range here {
		if there[ref].Sum != blob.Sum {
			t.Errorf("image %s there is %s, here %s", ref, there[ref].Sum, blob.Sum)
		}
	}
}

// noScratch looks for what a load leaves behind.
func noScratch(t *testing.T, cache string) {
	t.Helper()
	for _, pattern := range []string{"components/*/.load-*", "images/.load-*"} {
		if left, _ := filepath.Glob(filepath.Join(cache, pattern)); len(left) > 0 {
			t.Errorf("left over: %v", left)
		}
	}
}

func TestSignature(t *testing.T) {
	elsewhere(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, unsigned := made(t, private), made(t, nil)
	for what, c := range map[string]struct {
		raw  []byte
		key  ed25519.PublicKey
		want error
	}{
		"the key":      {signed, public, nil},
		"no key asked": {signed, nil, nil},
		"another key":  {signed, other, ErrSignature},
		"not signed":   {unsigned, public, ErrUnsigned},
		"a changed manifest": {change(t, signed, func(f []part) []part {
			f[0].data = bytes.Replace(f[0].data, []byte("go1."), []byte("go9."), 1)
			return f
		}), public, ErrSignature},
	} {
		if _, _, err := Verify(t.Context(), bytes.NewReader(c.raw), c.key); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
}

// part is a file of a bundle.
type part struct {
	name string
	data []byte
}

// change makes a bundle of the files of another.
func change(t *testing.T, raw []byte, fn func([]part) []part) []byte {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	var parts []part
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, part{h.Name, data})
	}
	var out bytes.Buffer
	to := gzip.NewWriter(&out)
	w := tar.NewWriter(to)
	for _, p := range fn(parts) {
		if err := putBytes(w, p.name, p.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), to.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A bundle that is not what it was is refused, and leaves nothing in the cache.
func TestTampering(t *testing.T) {
	elsewhere(t)
	raw := made(t, nil)
	replace := func(old, new string) func([]part) []part {
		return func(p []part) []part {
			if !bytes.Contains(p[0].data, []byte(old)) {
				t.Errorf("the manifest has no %s:\n%s", old, p[0].data)
			}
			p[0].data = bytes.Replace(p[0].data, []byte(old), []byte(new), 1)
			return p
		}
	}
	for what, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"a byte of a program": {change(t, raw, func(p []part) []part { p[1].data[100]++; return p }), "damaged: components/pause/pause has SHA-256"},
		"a byte of an image":  {change(t, raw, func(p []part) []part { p[len(p)-1].data[100]++; return p }), "damaged: images/pause.tar has SHA-256"},
		"a longer program":    {change(t, raw, func(p []part) []part { p[1].data = append(p[1].data, 0); return p }), "damaged: components/pause/pause has"},
		"a file too many":     {change(t, raw, func(p []part) []part { return append(p, part{"etc/passwd", nil}) }), "nothing speaks of etc/passwd"},
		"a file too few":      {change(t, raw, func(p []part) []part { return p[:len(p)-1] }), "images/pause.tar is not where"},
		"another order":       {change(t, raw, func(p []part) []part { p[1], p[2] = p[2], p[1]; return p }), "is not where it has to be"},
		"cut short":           {raw[:len(raw)/2], "damaged"},
		"not a bundle":        {[]byte("PK\x03\x04"), "no bundle"},
		"another tar":         {change(t, raw, func(p []part) []part { return p[1:] }), "no bundle"},
		"a way out":           {change(t, raw, replace("\"name\": \"pause\",\n          \"sum\"", "\"name\": \"../../x\",\n          \"sum\"")), "no file that a bundle has"},
		"an unknown key":      {change(t, raw, replace(`"format"`, `"formal"`)), "formal"},
		"a later format":      {change(t, raw, replace(`"format": 1`, `"format": 2`)), "format 2"},
		"another version":     {change(t, raw, replace(`"version": "v1"`, `"version": "v0"`)), "from other sources"},
		"other sources":       {change(t, raw, replace(`"recipe": "`, `"recipe": "0`)), "from other sources"},
		"an unknown name":     {change(t, raw, replace("\"name\": \"pause\",\n      \"version\"", "\"name\": \"pawse\",\n      \"version\"")), "no component"},
	} {
		cache := elsewhere(t)
		if err := load(c.raw, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want it to say %q", what, err, c.want)
		}
		noScratch(t, cache)
		if taken, _ := filepath.Glob(filepath.Join(cache, "components/*/*-bundle")); len(taken) > 0 {
			t.Errorf("%s: taken into the cache: %v", what, taken)
		}
	}
}

// What a bundle brought and was damaged afterwards is found out.
func TestDamageAfterLoading(t *testing.T) {
	elsewhere(t)
	raw := made(t, nil)
	cache := elsewhere(t)
	t.Setenv(components.GoEnv, filepath.Join(cache, "no-go"))
	if err := load(raw, nil); err != nil {
		t.Fatal(err)
	}
	b, err := components.Lookup(t.Context(), "pause")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.Path("pause"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var sum *components.SumError
	if _, err := components.Verify(t.Context(), "pause"); !errors.As(err, &sum) {
		t.Errorf("verify: %v, want that %s is not what was built", err, b.Path("pause"))
	}
	if _, err := images.Build(t.Context(), "", "pause"); err != nil {
		t.Errorf("the image, which the bundle brought too: %v", err)
	}
	if err := load(raw, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := components.Verify(t.Context(), "pause"); err != nil {
		t.Errorf("loaded again: %v", err)
	}
}
