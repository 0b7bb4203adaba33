package load

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/run"
)

// ordered reports quantiles that are not in their order.
func ordered(t testing.TB, f Figures) {
	t.Helper()
	if f[P50] <= 0 || f[P50] > f[P90] || f[P90] > f[P99] || f[P99] > f[P999] || f[P999] > f[Max] {
		t.Errorf("quantiles out of order: %v", f)
	}
}

// In a closed loop with one request at a time, rate and latency are two views of
// the same: the mean latency is the rate's inverse. Each crosses the wire.
func TestRequestsClosedLoop(t *testing.T) {
	client, server := wired(t)
	for _, name := range []string{TCPRequests, UDPRequests, HTTP, TCPConnects} {
		t.Run(name, func(t *testing.T) {
			_, before := received(t, server)
			f := measure(t, Job{Workload: name, Client: client, Server: server, WarmUp: 50 * time.Millisecond, Duration: 300 * time.Millisecond})
			_, after := received(t, server)
			ordered(t, f)
			if n := f[Rate] * 0.3; n < 10 || after-before < n {
				t.Errorf("%v requests in %v packets", n, after-before)
			}
			if f[Rate]*f[P50] > 2 || f[Rate]*f[Max] < 0.9 {
				t.Errorf("%v requests a second with median latency %v s, longest %v s", f[Rate], f[P50], f[Max])
			}
			if f[Loss] != 0 || f[Unanswered] != 0 {
				t.Errorf("lost over a bare wire: %v", f)
			}
		})
	}
}

func TestRequestsOfSeveralStreams(t *testing.T) {
	client, server := wired(t)
	for _, name := range []string{TCPRequests, UDPRequests, HTTP, TCPConnects} {
		f := measure(t, Job{Workload: name, Client: client, Server: server, Streams: 3, Duration: 150 * time.Millisecond, Size: 3000 / 2})
		ordered(t, f)
	}
}

// A request of more than one segment is not an answer until all of it is there.
func TestRequestsLarge(t *testing.T) {
	client, server := wired(t)
	const size = 1 << 20
	for _, name := range []string{TCPRequests, HTTP} {
		before, _ := received(t, client)
		f := measure(t, Job{Workload: name, Client: client, Server: server, Duration: 200 * time.Millisecond, Size: size})
		after, _ := received(t, client)
		if got, want := after-before, f[Rate]*0.2*size*0.99; got < want {
			t.Errorf("%s: %v answers a second of %d bytes in %v bytes", name, f[Rate], size, got)
		}
	}
}

// An open loop asks at its rate, and its latencies hold what a closed loop
// leaves out: while the server says nothing for a time d, requests fall due all
// along it and wait from d down to nothing. So a pause that is a tenth of the
// window must be seen by a tenth of the requests.
func TestRequestsOpenLoop(t *testing.T) {
	client, server := wired(t)
	for _, name := range []string{TCPRequests, UDPRequests} {
		f := measure(t, Job{Workload: name, Client: client, Server: server, WarmUp: 50 * time.Millisecond, Duration: 500 * time.Millisecond, Rate: 2000, Streams: 2})
		if f[Rate] > 2000*1.1 || f[Rate] < 2000*0.2 { // a busy machine may not come to it
			t.Errorf("%s: %v answers a second to 2000 requests", name, f[Rate])
		}
		ordered(t, f)
		if f[Loss] != 0 || f[Unanswered] != 0 {
			t.Errorf("%s: lost over a bare wire: %v", name, f)
		}
	}
}

// paused is a server whose answers stop for a time.
func paused(j Job, after, pause time.Duration) func(context.Context, socket) error {
	begun := time.Now()
	buf := make([]byte, j.Size)
	return func(ctx context.Context, s socket) error {
		for stopped := false; ; {
			if err := s.readFull(ctx, buf); err != nil {
				return nil //nolint:nilerr // the client is done
			}
			if !stopped && time.Since(begun) > after {
				stopped = true
				if err := sleepUntil(ctx, time.Now().Add(pause)); err != nil {
					return err
				}
			}
			if err := s.writeFull(ctx, buf); err != nil {
				return err
			}
		}
	}
}

func TestOpenLoopSeesCoordinatedOmission(t *testing.T) {
	client, server := wired(t)
	const pause = 200 * time.Millisecond
	run := func(rate float64) Figures {
		j, err := Job{Workload: TCPRequests, Client: client, Server: server, Duration: time.Second, Rate: rate}.prepared()
		if err != nil {
			t.Fatal(err)
		}
		f, err := overConnections(t.Context(), j,
			func(s socket) requester { return &tcpClient{s, j.Client, make([]byte, j.Size), make([]byte, j.Size)} },
			paused(j, 300*time.Millisecond, pause))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%v", f)
		return f
	}
	open, closed := run(1000), run(0)
	// A fifth of the requests waited, evenly between 0 and 200 ms: so the
	// ninetieth percentile is half of it.
	near(t, open, P90, pause.Seconds()/2, 0.3)
	if open[Max] < pause.Seconds()*0.95 {
		t.Errorf("the longest wait is %v s", open[Max])
	}
	if closed[P90] > pause.Seconds()/10 || closed[Max] < pause.Seconds() {
		t.Errorf("in the closed loop one request sees the pause: p90 %v s, max %v s", closed[P90], closed[Max])
	}
}

func TestUDPRequestsLost(t *testing.T) {
	client, server := wired(t)
	filtered(t, server, every10th...)
	f := measure(t, Job{Workload: UDPRequests, Client: client, Server: server, Duration: time.Second, Rate: 1000})
	near(t, f, Loss, 0.1, 0.05)
	if f[Rate] > 900*1.1 || f[Rate] < 900*0.2 { // a busy machine may not come to it
		t.Errorf("%v answers a second to 1000 requests, of which each tenth is lost", f[Rate])
	}
}

// redirected lets a virtual address and port lead to the server's, as kube-proxy
// does for a service.
func redirected(t *testing.T, client Place, proto string, virtual, to netip.AddrPort) {
	t.Helper()
	nat := run.Cmd{NS: client.NS, Name: "iptables-legacy", Args: []string{
		"-w", "-t", "nat", "-A", "OUTPUT", "-p", proto, "-d", virtual.Addr().String(), "--dport", "80",
		"-j", "DNAT", "--to-destination", to.String(),
	}, Env: lockFile(t)}
	if _, err := nat.Output(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestThroughServiceAddress(t *testing.T) {
	client, server := wired(t)
	const port = 8080
	virtual := netip.MustParseAddrPort("10.1.0.96:80") // inside the wire's subnet: it has a route
	for _, proto := range []string{"tcp", "udp"} {
		redirected(t, client, proto, virtual, netip.AddrPortFrom(server.Addr, port))
	}
	for _, name := range []string{TCPStream, UDPStream, UDPPackets, TCPRequests, UDPRequests, TCPConnects, HTTP} {
		measure(t, Job{Workload: name, Client: client, Server: server, To: virtual, Port: port, Duration: 100 * time.Millisecond})
	}
}

// More connections than a client has ports: it must not run out of them.
func TestConnectsDoNotRunOutOfPorts(t *testing.T) {
	client, server := wired(t)
	cmd := run.Cmd{NS: client.NS, Name: "sh", Args: []string{"-c", "echo 40000 40063 > /proc/sys/net/ipv4/ip_local_port_range"}}
	if _, err := cmd.Output(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := measure(t, Job{Workload: TCPConnects, Client: client, Server: server, Duration: 300 * time.Millisecond})
	if f[Rate]*0.3 < 64*2 {
		t.Errorf("%v connections a second are too few to say", f[Rate])
	}
	if f[ConnectP50] <= 0 || f[ConnectP50] > f[P50] {
		t.Errorf("connecting takes %v s of %v s", f[ConnectP50], f[P50])
	}
}

// Where somebody else answers, only the client is run.
func TestServedBySomebodyElse(t *testing.T) {
	client, server := wired(t)
	l, port, err := listen(Job{Server: server}, unix.SOCK_STREAM)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- answerConnects(ctx, l, make([]byte, 1)) }()
	f := measure(t, Job{Workload: TCPConnects, Client: client, Server: server, Served: true, Port: port, Duration: 100 * time.Millisecond})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if f[Rate] <= 0 {
		t.Errorf("%v", f)
	}
	_, err = Native{}.Run(t.Context(), Job{Workload: HTTP, Client: client, Server: server, Served: true, Port: 81, Duration: time.Second})
	if err == nil || !strings.Contains(err.Error(), "connect from client to 10.1.0.2:81: connection refused") {
		t.Errorf("where nobody answers: %v", err)
	}
}

func TestHTTPRefusesWrongAnswers(t *testing.T) {
	c := &httpClient{size: 5}
	for head, want := range map[string]string{
		"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5":                          "",
		"HTTP/1.1 200 OK\r\nContent-Length: 4":                          `Content-Length is " 4"`,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked":                 "no Content-Length",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 5":                   `says "HTTP/1.1 404 Not Found"`,
		"HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\nContent-Length:   5": "",
	} {
		err := c.check([]byte(head))
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, want %q", head, err, want)
		}
	}
}
