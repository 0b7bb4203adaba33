package echo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/topology"
)

// rig is a client's namespace wired to a pod's, 10.9.0.1 to 10.9.0.2.
type rig struct {
	client, pod *netns.NS
	servers     *Servers
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{client: testnet.NewNS(t), pod: testnet.NewNS(t), servers: New(slog.New(slog.DiscardHandler))}
	testnet.Wire(t, r.client, "eth0", "10.9.0.1/24", r.pod, "eth0", "10.9.0.2/24")
	t.Cleanup(r.servers.Close)
	return r
}

func opener(ns *netns.NS) func() (*netns.NS, error) {
	return func() (*netns.NS, error) { return netns.Open(ns.Name()) }
}

func (r *rig) target(ports ...topology.ContainerPort) Target {
	return Target{
		Pod: topology.Pod{Namespace: "default", Name: "web-0", Node: "node01", Ports: ports},
		NS:  opener(r.pod),
	}
}

func (r *rig) set(t testing.TB, wantAdded, wantRemoved int, pods ...Target) {
	t.Helper()
	added, removed, err := r.servers.Set(context.Background(), pods)
	if err != nil {
		t.Fatal(err)
	}
	if added != wantAdded || removed != wantRemoved {
		t.Fatalf("Set: added %d, removed %d; want %d, %d", added, removed, wantAdded, wantRemoved)
	}
}

// dial opens a connection from the client's namespace.
func (r *rig) dial(_ context.Context, network, addr string) (c net.Conn, err error) {
	err = r.client.Do(func() error {
		c, err = net.DialTimeout(network, addr, 3*time.Second)
		return err
	})
	return c, err
}

func (r *rig) http(t testing.TB) *http.Client {
	tr := &http.Transport{DialContext: r.dial}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func tcp(port int) topology.ContainerPort {
	return topology.ContainerPort{Port: port, Protocol: topology.TCPProtocol}
}

func get(t testing.TB, c *http.Client, req *http.Request) string {
	t.Helper()
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close() //nolint:errcheck // test
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v\n%s", req.URL, res.Status, err, body)
	}
	return string(body)
}

func request(t testing.TB, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestTextSaysWhoAnswered(t *testing.T) {
	r := newRig(t)
	r.set(t, 1, 0, r.target(tcp(8080)))
	req := request(t, "GET", "http://10.9.0.2:8080/some/path?q=1", nil)
	req.Header.Set("X-Trace", "abc")
	got := get(t, r.http(t), req)
	for _, want := range []string{
		"pod:       web-0\n", "namespace: default\n", "node:      node01\n", "address:   10.9.0.2:8080\n",
		"source:    10.9.0.1:", "GET /some/path?q=1 HTTP/1.1\n", "Host: 10.9.0.2:8080\n", "X-Trace: abc\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("answer lacks %q:\n%s", want, got)
		}
	}
}

func TestJSONAnswerAndLargeBody(t *testing.T) {
	r := newRig(t)
	r.set(t, 1, 0, r.target(tcp(80)))
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	req := request(t, "POST", "http://10.9.0.2/", bytes.NewReader(body))
	req.Header.Set("Accept", "application/json")
	var a Answer
	if err := json.Unmarshal([]byte(get(t, r.http(t), req)), &a); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	want := &Body{Bytes: 1 << 20, SHA256: hex.EncodeToString(sum[:])}
	if diff := cmp.Diff(want, a.Body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if a.Source.Addr() != netip.MustParseAddr("10.9.0.1") || a.Address != netip.MustParseAddrPort("10.9.0.2:80") || a.Pod != "web-0" {
		t.Errorf("answer %+v", a)
	}
}

func TestBytes(t *testing.T) {
	r := newRig(t)
	r.set(t, 1, 0, r.target(tcp(80)))
	c := r.http(t)
	for _, n := range []int{0, 1, 1 << 20, 1<<20 + 7} {
		if got := len(get(t, c, request(t, "GET", fmt.Sprintf("http://10.9.0.2/bytes?n=%d", n), nil))); got != n {
			t.Errorf("asked for %d bytes, got %d", n, got)
		}
	}
	for _, n := range []string{"", "-1", "x", "99999999999999"} {
		res, err := c.Do(request(t, "GET", "http://10.9.0.2/bytes?n="+n, nil))
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("n=%q: %s, want 400", n, res.Status)
		}
	}
}

// A pod may have more addresses than one; the answer must come from the one
// that was asked, which a connected socket insists on.
func TestUDPAnswersFromTheAddressAsked(t *testing.T) {
	r := newRig(t)
	h := testnet.Handle(t, r.pod)
	eth, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	second, _ := netlink.ParseAddr("10.9.0.3/24")
	if err := h.AddrAdd(eth, second); err != nil {
		t.Fatal(err)
	}
	r.set(t, 1, 0, r.target(topology.ContainerPort{Port: 53, Protocol: topology.UDPProtocol}))
	for _, to := range []string{"10.9.0.2:53", "10.9.0.3:53"} {
		c, err := r.dial(context.Background(), "udp4", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // test
		for _, n := range []int{1, 1400, 9000} {
			echoes(t, c, bytes.Repeat([]byte{byte(n)}, n))
		}
	}
}

func echoes(t testing.TB, c net.Conn, msg []byte) {
	t.Helper()
	buf := make([]byte, maxDatagram)
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(msg); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(buf)
	if err != nil || !bytes.Equal(buf[:n], msg) {
		t.Fatalf("%s: sent %d bytes, got %d back, %v", c.RemoteAddr(), len(msg), n, err)
	}
}

func TestSetReconciles(t *testing.T) {
	r := newRig(t)
	c := r.http(t)
	udp := topology.ContainerPort{Port: 80, Protocol: topology.UDPProtocol}
	r.set(t, 2, 0, r.target(tcp(80), udp))
	r.set(t, 0, 0, r.target(tcp(80), udp))
	r.set(t, 1, 1, r.target(tcp(80), tcp(81)))
	get(t, c, request(t, "GET", "http://10.9.0.2:81/", nil))
	if n := r.servers.Len(); n != 2 {
		t.Errorf("Len = %d, want 2", n)
	}
	r.set(t, 0, 2)
	if _, err := r.dial(context.Background(), "tcp4", "10.9.0.2:80"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("dial after removal: %v, want connection refused", err)
	}
}

// A connection must not outlive its pod: it would keep the namespace alive.
func TestRemovalEndsConnections(t *testing.T) {
	r := newRig(t)
	r.set(t, 1, 0, r.target(tcp(80)))
	c, err := r.dial(context.Background(), "tcp4", "10.9.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	r.set(t, 0, 1)
	if err := c.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection is still open after its pod was removed")
	}
}

// The same pod in a new namespace, or on another node, is served anew.
func TestNewNamespaceIsServedAnew(t *testing.T) {
	r := newRig(t)
	first := r.target(tcp(80))
	first.Inode = 1
	first.NS = opener(r.client) // the old one
	r.set(t, 1, 0, first)
	second := r.target(tcp(80))
	second.Inode = 2
	r.set(t, 1, 1, second)
	get(t, r.http(t), request(t, "GET", "http://10.9.0.2/", nil))
	second.Pod.Node = "node02"
	r.set(t, 1, 1, second)
	if got := get(t, r.http(t), request(t, "GET", "http://10.9.0.2/", nil)); !strings.Contains(got, "node02") {
		t.Errorf("the answer still names the old node:\n%s", got)
	}
}

func TestOnePodsFailureSparesTheOthers(t *testing.T) {
	r := newRig(t)
	broken := Target{
		Pod: topology.Pod{Namespace: "default", Name: "broken", Ports: []topology.ContainerPort{tcp(80)}},
		NS:  func() (*netns.NS, error) { return netns.Open("slipwaytest-no-such") },
	}
	added, _, err := r.servers.Set(context.Background(), []Target{broken, r.target(tcp(80))})
	if added != 1 || !errors.Is(err, netns.ErrNotExist) || !strings.Contains(err.Error(), "default/broken") {
		t.Errorf("Set: added %d, %v", added, err)
	}
	get(t, r.http(t), request(t, "GET", "http://10.9.0.2/", nil))
}

func TestSCTPEcho(t *testing.T) {
	testnet.Need(t, testnet.SCTP)
	r := newRig(t)
	r.set(t, 1, 0, r.target(topology.ContainerPort{Port: 7, Protocol: topology.SCTPProtocol}))
	var fd int
	err := r.client.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Port: 7, Addr: [4]byte{10, 9, 0, 2}})
	})
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "sctp")
	defer f.Close() //nolint:errcheck // test
	buf := make([]byte, 16)
	if _, err := f.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("echo: %q, %v", buf[:n], err)
	}
}

// On a kernel without SCTP such ports are left out, and the rest is served.
func TestMissingSCTPIsNoError(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
	if err == nil {
		_ = unix.Close(fd)
		t.Skip("this kernel has SCTP")
	}
	r := newRig(t)
	r.set(t, 1, 0, r.target(topology.ContainerPort{Port: 7, Protocol: topology.SCTPProtocol}, tcp(80)))
}

func TestCloseEndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	r := newRig(t)
	r.set(t, 2, 0, r.target(tcp(80), topology.ContainerPort{Port: 53, Protocol: topology.UDPProtocol}))
	get(t, r.http(t), request(t, "GET", "http://10.9.0.2/", nil))
	r.servers.Close()
	deadline := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before+2 { // the client's own connection has two
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<16)
			t.Fatalf("goroutines: %d before, %d after Close\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// BenchmarkIdleListener reports what one idle TCP port costs this process.
func BenchmarkIdleListener(b *testing.B) {
	const ports = 2000
	r := newRig(b)
	var list []topology.ContainerPort
	for i := range ports {
		list = append(list, tcp(10000+i))
	}
	before := memory()
	for b.Loop() {
		r.set(b, ports, 0, r.target(list...))
		after := memory()
		b.ReportMetric(float64(after.heap-before.heap)/ports, "heap-B/port")
		b.ReportMetric(float64(after.stack-before.stack)/ports, "stack-B/port")
		b.ReportMetric(float64(after.rss-before.rss)/ports, "rss-B/port")
		r.set(b, 0, ports)
	}
}

type use struct{ heap, stack, rss int64 }

func memory() use {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	var pages, resident int64
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(b), &pages, &resident)
	}
	return use{int64(m.HeapAlloc), int64(m.StackInuse), resident * int64(os.Getpagesize())}
}
