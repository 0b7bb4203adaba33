package echo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"slipway/topology"
)

// maxBytes bounds what GET /bytes returns: 1 GiB.
const maxBytes = 1 << 30

// Answer is what an HTTP port says in JSON.
type Answer struct {
	Pod       string `json:"pod"`
	Namespace string `json:"namespace"`
	Node      string `json:"node"`
	// Address is the pod's own address and port, as the connection arrived.
	Address netip.AddrPort `json:"address"`
	// Source is where the connection seemed to come from, after whatever NAT
	// there was on the way.
	Source  netip.AddrPort      `json:"source"`
	Method  string              `json:"method"`
	URL     string              `json:"url"`
	Proto   string              `json:"proto"`
	Host    string              `json:"host"`
	Headers map[string][]string `json:"headers"`
	Body    *Body               `json:"body,omitempty"`
}

// Body describes a request body that was read to its end.
type Body struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

func serveHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/bytes" {
		serveBytes(w, r)
		return
	}
	pod, _ := r.Context().Value(podKey{}).(*topology.Pod)
	if pod == nil {
		http.Error(w, "no pod", http.StatusInternalServerError)
		return
	}
	a := Answer{
		Pod: pod.Name, Namespace: pod.Namespace, Node: pod.Node,
		Method: r.Method, URL: r.RequestURI, Proto: r.Proto, Host: r.Host, Headers: r.Header,
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Address, _ = netip.ParseAddrPort(local.String())
	}
	a.Source, _ = netip.ParseAddrPort(r.RemoteAddr)
	var err error
	if a.Body, err = readBody(r); err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a) // the client is gone: nobody to tell
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, a.text())
}

// text is the answer as people read it.
func (a Answer) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "pod:       %s\nnamespace: %s\nnode:      %s\naddress:   %s\nsource:    %s\n", a.Pod, a.Namespace, a.Node, a.Address, a.Source)
	if a.Body != nil {
		fmt.Fprintf(&b, "body:      %d bytes, sha256 %s\n", a.Body.Bytes, a.Body.SHA256)
	}
	fmt.Fprintf(&b, "\n%s %s %s\nHost: %s\n", a.Method, a.URL, a.Proto, a.Host)
	names := make([]string, 0, len(a.Headers))
	for name := range a.Headers {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, v := range a.Headers[name] {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	return b.String()
}

// readBody reads a body to its end without keeping it; nil if there is none.
func readBody(r *http.Request) (*Body, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	h := sha256.New()
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	n, err := io.CopyBuffer(h, r.Body, buf[:])
	if err != nil {
		return nil, err
	}
	return &Body{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// chunkSize is how much is copied at a time, in bytes.
const chunkSize = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// filler is what GET /bytes returns, over and over. It is made when it is asked
// for: every command of the program would pay for it.
var filler = sync.OnceValue(func() []byte { return []byte(strings.Repeat("slipway ", chunkSize/8)) })

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err == nil && (n < 0 || n > maxBytes) {
		err = errors.New("out of range")
	}
	if err != nil {
		http.Error(w, fmt.Sprintf("n must be a number of bytes up to %d: %v", maxBytes, err), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for n > 0 {
		part := filler()[:min(n, chunkSize)]
		if _, err := w.Write(part); err != nil {
			return
		}
		n -= int64(len(part))
	}
}
