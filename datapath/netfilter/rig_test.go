package netfilter

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// rig is a router between two wires. What comes in by one leaves by the other.
//
//	left ── eth0 10.1.0.1/16 node 10.2.0.1/16 eth1 ── right
//
// Sources have no route in the main table, so that answers of the node itself
// (RST, ICMP errors) never come to be and move no counter: only what a test sends
// meets a rule. Packets between the wires are routed by the device they came by.
type rig struct {
	t    *testing.T
	node *netns.NS
	h    *nl.Handle
	wire map[string]*wire // by the node's device
	raw  int              // socket for what the node itself sends
	dir  string
}

// wire is the far end of one of the node's devices.
type wire struct {
	fd   int
	addr unix.SockaddrLinklayer
}

var (
	leftGateway  = netip.MustParseAddr("10.1.0.2")
	rightGateway = netip.MustParseAddr("10.2.0.2")
)

func newRig(t *testing.T) *rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	r := &rig{t: t, node: testnet.NewNS(t), wire: map[string]*wire{}, dir: t.TempDir()}
	r.h = testnet.Handle(t, r.node)
	r.sysctl("net/ipv4/ip_forward", "1")
	r.sysctl("net/ipv4/conf/all/rp_filter", "0")
	r.sysctl("net/ipv4/conf/default/rp_filter", "0")
	r.sysctl("net/netfilter/nf_conntrack_tcp_loose", "0") // a SYN begins a connection, nothing else
	for i, dev := range []string{"eth0", "eth1"} {
		far := testnet.NewNS(t)
		testnet.Wire(t, r.node, dev, fmt.Sprintf("10.%d.0.1/16", i+1), far, "far", "")
		r.wire[dev] = r.tap(far, dev)
	}
	r.route("eth0", 101, "eth1", rightGateway)
	r.route("eth1", 102, "eth0", leftGateway)
	err := r.node.Do(func() (err error) {
		if r.raw, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		return unix.SetsockoptInt(r.raw, unix.IPPROTO_IP, unix.IP_TOS, ownTOS)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(r.raw) })
	// only what is forwarded may come to a source, and nobody asks for MACs
	for i, dev := range []string{"eth0", "eth1"} {
		own := netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", i+1))
		if err := r.h.RouteDel(&netlink.Route{Dst: ipNet(own), Scope: netlink.SCOPE_LINK, LinkIndex: r.link(dev).Attrs().Index}); err != nil {
			t.Fatal(err)
		}
	}
	for _, dst := range []string{"10.2.0.0/16", "10.96.0.0/16"} {
		route := &netlink.Route{Table: ownTable, Dst: ipNet(netip.MustParsePrefix(dst)), Gw: rightGateway.AsSlice(), LinkIndex: r.link("eth1").Attrs().Index, Flags: int(netlink.FLAG_ONLINK)}
		if err := r.h.RouteAdd(route); err != nil {
			t.Fatal(err)
		}
	}
	rule := netlink.NewRule()
	rule.Tos, rule.Table, rule.Priority = ownTOS, ownTable, ownTable
	if err := r.h.RuleAdd(rule); err != nil {
		t.Fatal(err)
	}
	return r
}

// What a test lets the node send is told from the node's own answers by its type
// of service, and is the only thing that table is for.
const (
	ownTable = 103
	ownTOS   = 0x10
)

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
}

func (r *rig) sysctl(key, value string) {
	r.t.Helper()
	if err := r.node.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) }); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) link(name string) netlink.Link {
	r.t.Helper()
	l, err := r.h.LinkByName(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// route sends what comes by one device out of the other.
func (r *rig) route(in string, table int, out string, via netip.Addr) {
	r.t.Helper()
	l := r.link(out).Attrs()
	neigh := &netlink.Neigh{LinkIndex: l.Index, IP: via.AsSlice(), HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: netlink.NUD_PERMANENT}
	if err := r.h.NeighSet(neigh); err != nil {
		r.t.Fatal(err)
	}
	if err := r.h.RouteAdd(&netlink.Route{Table: table, LinkIndex: l.Index, Gw: via.AsSlice(), Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0"))}); err != nil {
		r.t.Fatal(err)
	}
	rule := netlink.NewRule()
	rule.IifName, rule.Table, rule.Priority = in, table, table
	if err := r.h.RuleAdd(rule); err != nil {
		r.t.Fatal(err)
	}
}

// tap opens the far end of a device for raw frames.
func (r *rig) tap(far *netns.NS, dev string) *wire {
	r.t.Helper()
	l, err := testnet.Handle(r.t, far).LinkByName("far")
	if err != nil {
		r.t.Fatal(err)
	}
	w := &wire{addr: unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: l.Attrs().Index, Halen: 6}} // ETH_P_IP, big-endian
	copy(w.addr.Addr[:], r.link(dev).Attrs().HardwareAddr)
	err = far.Do(func() (err error) {
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0x0008)
		if err != nil {
			return err
		}
		// room for a whole batch
		if err := unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: 0x0008, Ifindex: l.Attrs().Index})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

// send puts a packet on a device's wire, or with dev "" sends it from the node
// itself, with the mark.
func (r *rig) send(dev string, p probe) {
	r.t.Helper()
	b := p.bytes()
	var err error
	if dev == "" {
		b[1] = ownTOS // the kernel writes the checksum
	}
	if dev != "" {
		w := r.wire[dev]
		err = unix.Sendto(w.fd, b, 0, &w.addr)
	} else if err = unix.SetsockoptInt(r.raw, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark)); err == nil {
		err = unix.Sendto(r.raw, b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()})
	}
	// a packet that a rule drops on its way out is EPERM
	if err != nil && (dev != "" || !errors.Is(err, unix.EPERM)) {
		r.t.Fatalf("send %v from %q: %v", p.Packet, dev, err)
	}
}

// seen is a packet as it left the node.
type seen struct {
	dev          string
	src, dst     netip.Addr
	sport, dport uint16
	ttl          uint8
	length       int
}

// receive reads what has left the node until n packets are there or nothing more
// comes; by IP identification.
func (r *rig) receive(into map[uint16]seen, n int) {
	r.t.Helper()
	const patience = 2 * time.Second
	for end := time.Now().Add(patience); ; {
		polls := []unix.PollFd{{Fd: int32(r.wire["eth0"].fd), Events: unix.POLLIN}, {Fd: int32(r.wire["eth1"].fd), Events: unix.POLLIN}}
		wait := 0
		if len(into) < n {
			wait = 20
		}
		if _, err := unix.Poll(polls, wait); err != nil && !errors.Is(err, unix.EINTR) {
			r.t.Fatal(err)
		}
		quiet := true
		for i, dev := range []string{"eth0", "eth1"} {
			if polls[i].Revents&unix.POLLIN != 0 {
				r.read(dev, into)
				quiet = false
			}
		}
		if quiet && (len(into) >= n || time.Now().After(end)) {
			return
		}
	}
}

func (r *rig) read(dev string, into map[uint16]seen) {
	r.t.Helper()
	var buf [2048]byte
	n, _, err := unix.Recvfrom(r.wire[dev].fd, buf[:], unix.MSG_DONTWAIT)
	if err != nil {
		r.t.Fatal(err)
	}
	b := buf[:n]
	if n < 20 || b[0] != 0x45 {
		return
	}
	s := seen{dev: dev, src: netip.AddrFrom4([4]byte(b[12:16])), dst: netip.AddrFrom4([4]byte(b[16:20])), ttl: b[8], length: int(binary.BigEndian.Uint16(b[2:]))}
	switch {
	case (b[9] == protoTCP || b[9] == protoUDP) && n >= 24:
		s.sport, s.dport = binary.BigEndian.Uint16(b[20:]), binary.BigEndian.Uint16(b[22:])
	}
	into[binary.BigEndian.Uint16(b[4:])] = s
}

func (r *rig) iptables(stdin string, name string, args ...string) string {
	r.t.Helper()
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(r.dir, "lock"))
	out, err := run.Cmd{NS: r.node, Name: name, Args: args, Env: env, Stdin: bytes.NewReader([]byte(stdin))}.Output(r.t.Context())
	if err != nil {
		r.t.Fatalf("%v\n%s", err, stdin)
	}
	return string(out)
}

// state is what the evaluator must know of the node.
func (r *rig) state() *datapath.NetState {
	r.t.Helper()
	types := map[int]string{unix.RTN_LOCAL: "local", unix.RTN_BROADCAST: "broadcast", unix.RTN_UNICAST: "unicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_MULTICAST: "multicast"}
	routes, err := r.h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	if err != nil {
		r.t.Fatal(err)
	}
	s := &datapath.NetState{Policy: []datapath.PolicyRule{{Priority: 101}}}
	for _, route := range routes {
		dev := ""
		if route.LinkIndex != 0 { // a blackhole has none
			l, err := r.h.LinkByIndex(route.LinkIndex)
			if err != nil {
				r.t.Fatal(err)
			}
			dev = l.Attrs().Name
		}
		dst := netip.MustParsePrefix("0.0.0.0/0")
		if route.Dst != nil {
			ones, _ := route.Dst.Mask.Size()
			a, _ := netip.AddrFromSlice(route.Dst.IP.To4())
			dst = netip.PrefixFrom(a, ones)
		}
		s.Routes = append(s.Routes, datapath.FIBRoute{Table: route.Table, Dst: dst, Type: types[route.Type], Dev: dev})
	}
	return s
}
