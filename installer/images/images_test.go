package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
)

// sample is an image of a program that is this test's own file.
func sample(t *testing.T, content string) recipe {
	t.Helper()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return recipe{
		arch:    "amd64",
		entries: []entry{{path: "/usr/bin/echo", from: program}, {path: "/bin/sh", link: "busybox"}},
		images:  []image{{refs: []string{"slipway.local/echo:v1"}, entrypoint: []string{"/usr/bin/echo"}}},
	}
}

func built(t *testing.T, r recipe, cache string) installer.Blob {
	t.Helper()
	b, err := r.archive(cache, "sample")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files reads a tar.
func files(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if out[h.Name], err = io.ReadAll(in); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeSymlink {
			out[h.Name] = []byte("-> " + h.Linkname)
		}
	}
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// The archive is an image layout in which every digest is that of its blob, from
// the index down to the layer.
func TestLayout(t *testing.T) {
	b := built(t, sample(t, "the program"), t.TempDir())
	raw, err := os.ReadFile(b.Path)
	if err != nil {
		t.Fatal(err)
	}
	if digestOf(raw) != "sha256:"+b.Sum || int64(len(raw)) != b.Size {
		t.Errorf("the archive is %s of %d bytes, said %s of %d", digestOf(raw), len(raw), b.Sum, b.Size)
	}
	in := files(t, bytes.NewReader(raw))
	for name, data := range in {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digestOf(data) != "sha256:"+sum {
			t.Errorf("%s has the content of %s", name, digestOf(data))
		}
	}
	var idx index
	var man manifest
	var conf config
	for _, step := range []struct {
		name string
		into any
	}{{"index.json", &idx}, {"", &man}, {"", &conf}} {
		name := step.name
		switch step.into {
		case &man:
			name = blobPath(idx.Manifests[0].Digest)
		case &conf:
			name = blobPath(man.Config.Digest)
		}
		if err := json.Unmarshal(in[name], step.into); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if got := idx.Manifests[0].Annotations[nameAnnotation]; got != "slipway.local/echo:v1" {
		t.Errorf("the image is called %q", got)
	}
	layer := in[blobPath(man.Layers[0].Digest)]
	if conf.RootFS.DiffIDs[0] != digestOf(layer) || conf.Architecture != "amd64" || conf.OS != "linux" {
		t.Errorf("configuration %+v over layer %s", conf, digestOf(layer))
	}
	have := files(t, bytes.NewReader(layer))
	if string(have["usr/bin/echo"]) != "the program" || string(have["bin/sh"]) != "-> busybox" {
		t.Errorf("the layer has %q", have)
	}
	for _, dir := range []string{"usr/", "usr/bin/", "bin/", "tmp/", "dev/", "proc/", "sys/"} {
		if _, ok := have[dir]; !ok {
			t.Errorf("the layer has no directory %s", dir)
		}
	}
}

// The same programs give the same bytes, wherever they are; others do not.
func TestSameProgramsSameBytes(t *testing.T) {
	a, b := built(t, sample(t, "one"), t.TempDir()), built(t, sample(t, "one"), t.TempDir())
	if a.Sum != b.Sum || a.Path == b.Path {
		t.Errorf("built twice: %+v and %+v", a, b)
	}
	if c := built(t, sample(t, "two"), t.TempDir()); c.Sum == a.Sum {
		t.Error("another program gave the same archive")
	}
}

// What was damaged in the cache is made again.
func TestDamageIsRepaired(t *testing.T) {
	cache := t.TempDir()
	r := sample(t, "content")
	first := built(t, r, cache)
	info, err := os.Stat(first.Path)
	if err != nil {
		t.Fatal(err)
	}
	if again := built(t, r, cache); again != first {
		t.Errorf("from the cache: %+v, want %+v", again, first)
	}
	if now, err := os.Stat(first.Path); err != nil || !os.SameFile(info, now) {
		t.Errorf("the archive was made again without need (%v)", err)
	}
	for what, damage := range map[string]func() error{
		"cut short": func() error { return os.Truncate(first.Path, first.Size-512) },
		"gone":      func() error { return os.Remove(first.Path) },
		"no record": func() error { return os.Remove(first.Path + ".json") },
		"one byte": func() error {
			f, err := os.OpenFile(first.Path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt([]byte{'X'}, first.Size/2)
				err = errors.Join(err, f.Close())
			}
			return err
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		again := built(t, r, cache)
		raw, err := os.ReadFile(again.Path)
		if again != first || err != nil || digestOf(raw) != "sha256:"+first.Sum {
			t.Errorf("%s: %+v with %s, want %+v (%v)", what, again, digestOf(raw), first, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(cache, "images", "*.part-*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestUnknown(t *testing.T) {
	_, err := Build(t.Context(), t.TempDir(), "nginx")
	var unknown *UnknownError
	if !errors.As(err, &unknown) || !strings.Contains(err.Error(), "coredns") {
		t.Errorf("an unknown image: %v, want those that there are", err)
	}
}

// The tests' images are found among those that e2e.test names, whatever the
// registry is called.
func TestNamed(t *testing.T) {
	got := named([]string{"r.example/x/perl:5", "r.example/x/busybox:1", "r.example/x/agnhost:2.63.0", "r.example/x/agnhost:2.55", "r.example/x/glibc-dns-testing:2", "r.example/pause:3.10"})
	want := []image{
		{refs: []string{"r.example/x/agnhost:2.55", "r.example/x/agnhost:2.63.0"}, entrypoint: []string{"/agnhost"}, args: []string{"pause"}},
		{refs: []string{"r.example/x/busybox:1"}, args: []string{"sh"}},
		{refs: []string{"r.example/x/glibc-dns-testing:2"}, args: []string{"sh"}},
		{refs: []string{"r.example/pause:3.10"}, entrypoint: []string{"/agnhost"}, args: []string{"pause"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(image{})); diff != "" {
		t.Error(diff)
	}
}

// The certificate in the tests' image fits its key, and is the same every time.
func TestTestCertificate(t *testing.T) {
	a, err := testCertificate()
	if err != nil {
		t.Fatal(err)
	}
	b, err := testCertificate()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, b, cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("made twice: %s", diff)
	}
	pair, err := tls.X509KeyPair([]byte(a[0].data), []byte(a[1].data))
	if err != nil {
		t.Fatal(err)
	}
	if err := pair.Leaf.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
}

// registry serves the sample image as every other.
func registry(t *testing.T) *httptest.Server {
	t.Helper()
	r, err := OpenRegistry(built(t, sample(t, "the program"), t.TempDir()).Path)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(r)
	t.Cleanup(func() {
		s.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, method, url string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// A pull of any name goes from the tag to the manifest's digest, to the
// configuration, which says whose stand-in this is, to the layer.
func TestPullOfAnything(t *testing.T) {
	s := registry(t)
	if resp, _ := get(t, http.MethodGet, s.URL+"/v2/"); resp.StatusCode != http.StatusOK {
		t.Errorf("GET /v2/: %s", resp.Status)
	}
	head, body := get(t, http.MethodHead, s.URL+"/v2/library/nginx/manifests/1.27?ns=registry.example")
	want := head.Header.Get("Docker-Content-Digest")
	if head.StatusCode != http.StatusOK || len(body) > 0 || !strings.HasPrefix(want, "sha256:") {
		t.Fatalf("HEAD: %s, digest %q, %d bytes", head.Status, want, len(body))
	}
	resp, raw := get(t, http.MethodGet, s.URL+"/v2/library/nginx/manifests/"+want)
	if digestOf(raw) != want || resp.Header.Get("Content-Type") != typeManifest {
		t.Errorf("manifest %s as %s, want %s", digestOf(raw), resp.Header.Get("Content-Type"), want)
	}
	var man manifest
	if err := json.Unmarshal(raw, &man); err != nil {
		t.Fatal(err)
	}
	_, raw = get(t, http.MethodGet, s.URL+"/v2/library/nginx/blobs/"+man.Config.Digest)
	var conf config
	if err := json.Unmarshal(raw, &conf); err != nil || digestOf(raw) != man.Config.Digest {
		t.Fatalf("configuration %s: %v", raw, err)
	}
	const image = "registry.example/library/nginx:1.27"
	if conf.Config.Labels[StandInLabel] != image || !slices.Contains(conf.Config.Env, StandInEnv+"="+image) {
		t.Errorf("the configuration does not say that it stands in for %s: %+v", image, conf.Config)
	}
	_, raw = get(t, http.MethodGet, s.URL+"/v2/library/nginx/blobs/"+man.Layers[0].Digest)
	if digestOf(raw) != man.Layers[0].Digest || conf.RootFS.DiffIDs[0] != man.Layers[0].Digest {
		t.Errorf("layer %s, want %s", digestOf(raw), man.Layers[0].Digest)
	}
	if got := files(t, bytes.NewReader(raw)); string(got["usr/bin/echo"]) != "the program" {
		t.Errorf("the layer has %v", got)
	}
}

func TestRefusals(t *testing.T) {
	s := registry(t)
	for what, c := range map[string]struct {
		method, path string
		status       int
		code         string
	}{
		"another image's digest": {"GET", "/v2/library/nginx/manifests/sha256:" + strings.Repeat("0", 64), 404, "MANIFEST_UNKNOWN"},
		"the lab's own":          {"GET", "/v2/pause/manifests/v1?ns=slipway.local", 404, "MANIFEST_UNKNOWN"},
		"no such blob":           {"GET", "/v2/library/nginx/blobs/sha256:" + strings.Repeat("0", 64), 404, "BLOB_UNKNOWN"},
		"a push":                 {"POST", "/v2/library/nginx/blobs/uploads/", 405, "UNSUPPORTED"},
		"no registry's path":     {"GET", "/v2/_catalog", 404, "NAME_UNKNOWN"},
	} {
		resp, body := get(t, c.method, s.URL+c.path)
		if resp.StatusCode != c.status || !strings.Contains(string(body), c.code) {
			t.Errorf("%s: %s %s, want %d %s", what, resp.Status, body, c.status, c.code)
		}
	}
}

func TestNotAnArchive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.tar")
	if err := os.WriteFile(path, bytes.Repeat([]byte("nothing "), 512), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, path + ".missing"} {
		if _, err := OpenRegistry(p); err == nil || !strings.Contains(err.Error(), p) {
			t.Errorf("OpenRegistry(%s): %v, want an error that names it", p, err)
		}
	}
}
