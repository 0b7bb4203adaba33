package bpf_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/ipiptun"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// The rig is two nodes in segments of their own with a router between them, and
// one pod on each, plugged in as calico does it: no bridge, a /32, and tunl0 as
// the way to the other node's block.
type rig struct {
	router *netns.NS // r1 towards node 1, r2 towards node 2
	nodes  [2]node
}

type node struct {
	ns      *netns.NS
	pod     *netns.NS
	podAddr netip.Addr
	block   string
	tunnel  datapath.IPIPTunnel
}

const (
	underlayMTU = 1500
	tunnelMTU   = underlayMTU - 20 // RFC 2003: one IPv4 header
)

func newRig(t *testing.T) *rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF)
	r := &rig{router: testnet.NewNS(t)}
	forward(t, r.router)
	for i := range r.nodes {
		r.addNode(t, i)
	}
	for i, n := range r.nodes {
		other := r.nodes[1-i]
		addRoute(t, n.ns, other.tunnel.Local.String()+"/32", fmt.Sprintf("172.30.%d.254", i+1), "eth0")
		addRoute(t, n.ns, other.block, other.tunnel.Local.String(), "tunl0")
	}
	return r
}

func (r *rig) addNode(t *testing.T, i int) {
	t.Helper()
	n := &r.nodes[i]
	n.ns, n.pod = testnet.NewNS(t), testnet.NewNS(t)
	n.podAddr = netip.AddrFrom4([4]byte{10, 42, byte(i + 1), 2})
	n.block = fmt.Sprintf("10.42.%d.0/26", i+1)
	n.tunnel = datapath.IPIPTunnel{
		Device:   "tunl0",
		Underlay: "eth0",
		Local:    netip.AddrFrom4([4]byte{172, 30, byte(i + 1), 1}),
		Address:  netip.AddrFrom4([4]byte{10, 42, byte(i + 1), 1}),
		MTU:      tunnelMTU,
	}
	forward(t, n.ns)
	testnet.Wire(t, n.ns, "eth0", n.tunnel.Local.String()+"/24", r.router, fmt.Sprintf("r%d", i+1), fmt.Sprintf("172.30.%d.254/24", i+1))
	testnet.Wire(t, n.ns, "cali0", "169.254.1.1/32", n.pod, "eth0", n.podAddr.String()+"/32")
	addRoute(t, n.ns, n.podAddr.String()+"/32", "", "cali0")
	addRoute(t, n.pod, "0.0.0.0/0", "169.254.1.1", "eth0")
	addTunnel(t, n)
}

// addTunnel makes tunl0 as a persistent TUN, which nothing holds open.
func addTunnel(t *testing.T, n *node) {
	t.Helper()
	h := testnet.Handle(t, n.ns)
	err := n.ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{
			LinkAttrs: netlink.LinkAttrs{Name: n.tunnel.Device},
			Mode:      netlink.TUNTAP_MODE_TUN,
			Flags:     netlink.TUNTAP_NO_PI,
		})
	})
	check(t, err)
	l := mustLink(t, h, n.tunnel.Device)
	check(t, h.LinkSetMTU(l, n.tunnel.MTU))
	check(t, h.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(net.IP(n.tunnel.Address.AsSlice()))}))
	check(t, h.LinkSetUp(l))
}

// carry starts the implementation on the node until the test ends.
func (n *node) carry(t *testing.T, with topology.IPIPImplementation) {
	t.Helper()
	if with == topology.IPIPeBPF {
		check(t, bpf.AttachIPIP(n.ns, n.tunnel))
		return
	}
	tun, err := ipiptun.Open(n.ns, n.tunnel, slog.New(slog.DiscardHandler))
	check(t, err)
	done := make(chan error, 1)
	go func() { done <- tun.Run(context.Background()) }()
	t.Cleanup(func() {
		if err := tun.Close(); err != nil {
			t.Errorf("close tunnel: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("tunnel ended with: %v", err)
		}
	})
}

// ping sends count packets with so many bytes of payload and reports what ping said.
func (n *node) ping(t *testing.T, to netip.Addr, count, size int, pmtudisc string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := run.Cmd{NS: n.pod, Name: "ping", Args: []string{
		"-n", "-c", fmt.Sprint(count), "-i", "0.02", "-W", "2", "-s", fmt.Sprint(size), "-M", pmtudisc, to.String(),
	}}.Output(ctx)
	return string(out), err
}

// transfer sends size random bytes over TCP from one pod to the other and
// compares what arrives.
func transfer(t testing.TB, from, to *node, size int64) {
	t.Helper()
	var l net.Listener
	check(t, to.pod.Do(func() error {
		var err error
		l, err = net.Listen("tcp4", netip.AddrPortFrom(to.podAddr, 0).String())
		return err
	}))
	defer l.Close() //nolint:errcheck // read only
	type result struct {
		sum string
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close() //nolint:errcheck // read only
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		hash := sha256.New()
		n, err := io.Copy(hash, c)
		if err == nil && n != size {
			err = fmt.Errorf("%d bytes arrived of %d", n, size)
		}
		got <- result{string(hash.Sum(nil)), err}
	}()
	var c net.Conn
	check(t, from.pod.Do(func() error {
		var err error
		c, err = net.DialTimeout("tcp4", l.Addr().String(), 10*time.Second)
		return err
	}))
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	hash := sha256.New()
	source := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
	_, err := io.CopyBuffer(struct{ io.Writer }{c}, io.TeeReader(source, hash), make([]byte, 1<<18))
	check(t, err)
	check(t, c.Close())
	r := <-got
	check(t, r.err)
	if r.sum != string(hash.Sum(nil)) {
		t.Errorf("what arrived at %s is not what was sent", to.podAddr)
	}
}

// realWire makes a veth behave as a network card that offloads nothing, so that
// what leaves it has its final size and checksums.
func realWire(t testing.TB, ns *netns.NS, name string) {
	t.Helper()
	value := struct{ cmd, data uint32 }{cmd: unix.ETHTOOL_STXCSUM}
	ifr := struct {
		name [unix.IFNAMSIZ]byte
		data uintptr
		_    [16]byte
	}{data: uintptr(unsafe.Pointer(&value))}
	copy(ifr.name[:], name)
	check(t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // scratch
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); e != 0 {
			return fmt.Errorf("turn off checksum offload of %s: %w", name, e)
		}
		return nil
	}))
}

func forward(t testing.TB, ns *netns.NS) {
	t.Helper()
	check(t, ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) }))
}

// addRoute adds "dst via gw dev name onlink"; without a gateway, scope link.
func addRoute(t *testing.T, ns *netns.NS, dst, gw, name string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	_, prefix, err := net.ParseCIDR(dst)
	check(t, err)
	r := &netlink.Route{Dst: prefix, LinkIndex: mustLink(t, h, name).Attrs().Index, Scope: netlink.SCOPE_LINK}
	if gw != "" {
		r.Gw, r.Scope, r.Flags = net.ParseIP(gw), netlink.SCOPE_UNIVERSE, int(netlink.FLAG_ONLINK)
	}
	if err := h.RouteReplace(r); err != nil {
		t.Fatalf("route %s via %s dev %s: %v", dst, gw, name, err)
	}
}

func mustLink(t testing.TB, h *nl.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	check(t, err)
	return l
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
