package images

import (
	"archive/tar"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Registry is a read-only registry (distribution-spec v1.1) on which every image
// is the echo server, under a configuration that says whose stand-in it is. A
// container runtime that has it as the mirror of all registries can start what a
// manifest names without a network. An image asked for by digest is not there:
// nothing but itself has its digest.
type Registry struct {
	arch  string
	layer descriptor
	file  *os.File
	at    int64 // where the layer begins in file

	mu    sync.Mutex
	blobs map[string]blob // of the images that were asked for
}

// OpenRegistry reads the archive of the echo image, as [Build] makes it. The
// layer stays in the file.
func OpenRegistry(archive string) (*Registry, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("open the echo image: %w", err)
	}
	r := &Registry{file: f, blobs: map[string]blob{}}
	if err := r.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the echo image %s: %w", archive, err), f.Close())
	}
	return r, nil
}

// Close closes the archive.
func (r *Registry) Close() error { return r.file.Close() }

// read finds the archive's image, and in it the layer.
func (r *Registry) read() error {
	small := map[string][]byte{}
	starts := map[string]int64{}
	t := tar.NewReader(r.file)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if starts[h.Name], err = r.file.Seek(0, io.SeekCurrent); err != nil {
			return err
		}
		if h.Size < 1<<20 {
			if small[h.Name], err = io.ReadAll(t); err != nil {
				return err
			}
		}
	}
	var idx index
	if err := json.Unmarshal(small["index.json"], &idx); err != nil || len(idx.Manifests) == 0 {
		return fmt.Errorf("it has no image (index.json: %w)", err)
	}
	first := idx.Manifests[0]
	var man manifest
	if err := json.Unmarshal(small[blobPath(first.Digest)], &man); err != nil || len(man.Layers) != 1 || first.Platform == nil {
		return fmt.Errorf("its manifest is not one of ours: %w", err)
	}
	r.arch, r.layer, r.at = first.Platform.Architecture, man.Layers[0], starts[blobPath(man.Layers[0].Digest)]
	if r.at == 0 {
		return errors.New("its layer is missing")
	}
	return nil
}

// route is the part of the distribution-spec that pulling needs (end-2, end-3).
var route = regexp.MustCompile(`^/v2/(.+)/(manifests|blobs)/([^/]+)$`)

// ServeHTTP answers a pull.
func (r *Registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if q.Method != http.MethodGet && q.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this registry is read-only: it answers pulls with a stand-in")
		return
	}
	if q.URL.Path == "/v2/" || q.URL.Path == "/v2" {
		return // end-1: yes, a registry
	}
	m := route.FindStringSubmatch(q.URL.Path)
	if m == nil {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "no such thing here: this registry answers pulls with a stand-in")
		return
	}
	name, reference := m[1], m[3]
	if m[2] == "blobs" {
		r.serveBlob(w, q, reference)
		return
	}
	// The runtime says whose mirror it takes this for (containerd, docs/hosts.md).
	if from := q.URL.Query().Get("ns"); from != "" {
		name = from + "/" + name
	}
	r.serveManifest(w, q, name, reference)
}

func (r *Registry) serveManifest(w http.ResponseWriter, q *http.Request, name, reference string) {
	if strings.HasPrefix(reference, "sha256:") {
		if b, ok := r.known(reference); ok && b.MediaType == typeManifest {
			b.serve(w, q)
			return
		}
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", name+"@"+reference+": a stand-in cannot have another image's digest; name the image by its tag")
		return
	}
	if strings.HasPrefix(name, host) {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", name+" is an image of the lab, which is imported and not pulled")
		return
	}
	man, conf, err := standIn(name+":"+reference).describe(r.arch, r.layer)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
		return
	}
	r.remember(man, conf)
	man.serve(w, q)
}

// mostBlobs bounds what is remembered: two for each image asked for.
const mostBlobs = 2048

func (r *Registry) remember(blobs ...blob) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.blobs) > mostBlobs {
		clear(r.blobs) // asked for again, they are made again
	}
	for _, b := range blobs {
		r.blobs[b.Digest] = b
	}
}

func (r *Registry) known(digest string) (blob, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[digest]
	return b, ok
}

func (r *Registry) serveBlob(w http.ResponseWriter, q *http.Request, digest string) {
	if b, ok := r.known(digest); ok {
		b.serve(w, q)
		return
	}
	if digest != r.layer.Digest {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "no blob "+digest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", digest)
	http.ServeContent(w, q, "", time.Time{}, io.NewSectionReader(r.file, r.at, r.layer.Size))
}

func (b blob) serve(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Content-Type", cmp.Or(b.MediaType, "application/octet-stream"))
	w.Header().Set("Content-Length", strconv.Itoa(len(b.data)))
	w.Header().Set("Docker-Content-Digest", b.Digest)
	if q.Method == http.MethodGet {
		_, _ = w.Write(b.data) // the client is gone: nobody to tell
	}
}

// refuse answers with an error in the specification's form.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	_ = json.NewEncoder(w).Encode(map[string][]one{"errors": {{code, message}}})
}

// Timeouts of a registry's connections.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 60 * time.Second
	stopTimeout   = 2 * time.Second
)

// StandInAddress is where a node's registry of stand-ins listens.
const StandInAddress = "127.0.0.1:5005"

// Serve runs the registry until ctx ends.
func Serve(ctx context.Context, archive, address string) error {
	r, err := OpenRegistry(archive)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // only read
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve stand-ins: %w", err)
	}
	s := &http.Server{Handler: r, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	stop := context.AfterFunc(ctx, func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		_ = s.Shutdown(end) // what is under way then is cut off with the process
	})
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve stand-ins: %w", err)
	}
	return nil
}

// HostsTOML is containerd's certs.d/_default/hosts.toml for it: the mirror of
// every registry (containerd, docs/hosts.md).
func HostsTOML(address string) string {
	return fmt.Sprintf("# Whatever image is not here is stood in for.\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", "http://"+address)
}
