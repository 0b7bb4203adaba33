package clusterdns

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/topology"
)

// rig is a DNS pod's namespace with a client's next to it.
type rig struct {
	client, pod *netns.NS
	server      *Server
	listener    *Listener
}

var podAddr = netip.MustParseAddrPort("10.9.0.2:53")

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{client: testnet.NewNS(t), pod: testnet.NewNS(t), server: New(slog.New(slog.DiscardHandler))}
	testnet.Wire(t, r.client, "eth0", "10.9.0.1/24", r.pod, "eth0", "10.9.0.2/24")
	var err error
	if r.listener, err = r.server.Serve(r.pod, podAddr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.server.Close)
	return r
}

// ask sends one query from the client's namespace.
func (r *rig) ask(network string, q *dns.Msg) (*dns.Msg, error) {
	var conn net.Conn
	err := r.client.Do(func() (err error) {
		conn, err = net.DialTimeout(network+"4", podAddr.String(), 3*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	c := &dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := c.ExchangeWithConn(q, &dns.Conn{Conn: conn})
	if m != nil {
		m.Compress = true // so that Len is what came over the wire
	}
	return m, errors.Join(err, conn.Close())
}

func TestServesUDPAndTCP(t *testing.T) {
	r := newRig(t)
	r.server.Set(snapshot())
	for _, network := range []string{"udp", "tcp"} {
		m, err := r.ask(network, new(dns.Msg).SetQuestion("nginx-svc.default.svc.cluster.local.", dns.TypeA))
		if err != nil {
			t.Fatal(err)
		}
		if got := show(m); got != "NOERROR A10.96.0.20" {
			t.Errorf("over %s: %s", network, got)
		}
	}
}

func TestSetReplacesNames(t *testing.T) {
	r := newRig(t)
	q := new(dns.Msg).SetQuestion("nginx-svc.default.svc.cluster.local.", dns.TypeA)
	for _, step := range []struct {
		snap topology.Snapshot
		want int
	}{{topology.Snapshot{}, dns.RcodeNameError}, {snapshot(), dns.RcodeSuccess}, {topology.Snapshot{}, dns.RcodeNameError}} {
		r.server.Set(step.snap)
		m, err := r.ask("udp", q)
		if err != nil || m.Rcode != step.want {
			t.Errorf("answer %v, %v; want rcode %d", m, err, step.want)
		}
	}
}

// What fits no datagram is cut off and marked, and whole over TCP.
func TestLargeAnswersAreTruncated(t *testing.T) {
	r := newRig(t)
	r.server.Set(manyEndpoints(500))
	q := new(dns.Msg).SetQuestion("big.default.svc.cluster.local.", dns.TypeA)
	m, err := r.ask("udp", q)
	if err != nil || !m.Truncated || m.Len() > dns.MinMsgSize {
		t.Errorf("plain UDP: truncated %v, %d bytes, %v", m.Truncated, m.Len(), err)
	}
	m, err = r.ask("udp", q.Copy().SetEdns0(4096, false))
	if err != nil || !m.Truncated || m.Len() > maxUDPAnswer || len(m.Answer) < 30 || m.IsEdns0() == nil {
		t.Errorf("UDP with EDNS: truncated %v, %d bytes, %d answers, %v", m.Truncated, m.Len(), len(m.Answer), err)
	}
	m, err = r.ask("tcp", q)
	if err != nil || m.Truncated || len(m.Answer) != 500 {
		t.Errorf("TCP: truncated %v, %d answers, %v", m.Truncated, len(m.Answer), err)
	}
}

func TestClosedListenerAnswersNoMore(t *testing.T) {
	r := newRig(t)
	r.listener.Close()
	r.listener.Close()
	if _, err := r.ask("tcp", new(dns.Msg).SetQuestion("cluster.local.", dns.TypeSOA)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("after Close: %v, want connection refused", err)
	}
	again, err := r.server.Serve(r.pod, podAddr) // the port is free again
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestServeNeedsAnAddressOfThePod(t *testing.T) {
	r := newRig(t)
	if _, err := r.server.Serve(r.pod, netip.MustParseAddrPort("10.9.0.77:53")); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("serve on a foreign address: %v", err)
	}
}
