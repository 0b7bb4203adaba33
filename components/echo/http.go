package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// answer is what is said in JSON; the fields are those of lab/echo, and one more.
type answer struct {
	Pod       string              `json:"pod"`
	Namespace string              `json:"namespace"`
	Node      string              `json:"node"`
	Address   netip.AddrPort      `json:"address"` // the pod's own, as the connection arrived
	Source    netip.AddrPort      `json:"source"`  // after whatever NAT there was on the way
	Method    string              `json:"method"`
	URL       string              `json:"url"`
	Proto     string              `json:"proto"`
	Host      string              `json:"host"`
	Headers   map[string][]string `json:"headers"`
	Body      *body               `json:"body,omitempty"`
	StandIn   string              `json:"standIn,omitempty"` // the image that is not here
}

type body struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// standInHeader says that the answer is not that of the image asked for.
const standInHeader = "X-Slipway-Stand-In"

// ServeHTTP answers with who answers and who is seen asking; GET /bytes?n=N with
// N bytes.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.standIn != "" {
		w.Header().Set(standInHeader, "for "+s.standIn)
	}
	if r.URL.Path == "/bytes" {
		serveBytes(w, r)
		return
	}
	a := answer{
		Pod: s.who.pod, Namespace: s.who.namespace, Node: s.who.node, StandIn: s.standIn,
		Method: r.Method, URL: r.RequestURI, Proto: r.Proto, Host: r.Host, Headers: r.Header,
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
		a.Address = unmapped(local.String())
	}
	a.Source = unmapped(r.RemoteAddr)
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

// unmapped reads an address; an IPv4 one that a socket for both families shows
// in IPv6 form is IPv4.
func unmapped(s string) netip.AddrPort {
	p, _ := netip.ParseAddrPort(s) //nolint:errcheck // net made it
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// text is the answer as people read it.
func (a answer) text() string {
	var b strings.Builder
	if a.StandIn != "" {
		fmt.Fprintf(&b, "Slipway's stand-in for the image %s, which cannot be had here.\n\n", a.StandIn)
	}
	fmt.Fprintf(&b, "pod:       %s\nnamespace: %s\nnode:      %s\naddress:   %s\nsource:    %s\n", a.Pod, a.Namespace, a.Node, a.Address, a.Source)
	if a.Body != nil {
		fmt.Fprintf(&b, "body:      %d bytes, sha256 %s\n", a.Body.Bytes, a.Body.SHA256)
	}
	fmt.Fprintf(&b, "\n%s %s %s\nHost: %s\n", a.Method, a.URL, a.Proto, a.Host)
	var names []string
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
func readBody(r *http.Request) (*body, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	h := sha256.New()
	n, err := io.Copy(h, r.Body)
	if err != nil {
		return nil, err
	}
	return &body{Bytes: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// maxBytes bounds what GET /bytes returns: 1 GiB.
const maxBytes = 1 << 30

var filler = []byte(strings.Repeat("slipway ", 8<<10))

func serveBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, fmt.Sprintf("n must be a number of bytes up to %d", maxBytes), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for n > 0 {
		part := filler[:min(n, int64(len(filler)))]
		if _, err := w.Write(part); err != nil {
			return
		}
		n -= int64(len(part))
	}
}
