package vms

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// What each end of the tunnel has: a node on the segment, and an address of pods
// that only the tunnel leads to.
var (
	ourNode  = address(2).Addr()
	ourPod   = netip.MustParseAddr("10.244.1.1")
	theirPod = netip.MustParseAddr("10.244.2.1")
)

// tunnelMTU is the segment's less an IPv4 header (RFC 2003).
const tunnelMTU = 1480

// TestIPIPWithKernel holds our IPIP by eBPF against the Linux module's: a node of
// ours on this machine and a machine whose tunl0 is the kernel's own carry each
// other's packets, whole and large ones too.
func TestIPIPWithKernel(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.BPF, testnet.VMs)
	r := Start(t, Options{Machines: 1})
	m := r.Machines[0]
	t.Logf("%s booted in %s: %s", m.Name(), m.Booted.Round(time.Second), m.Must("uname -r; cat /proc/loadavg"))
	m.Must(`set -e
modprobe ipip
ip link set tunl0 up mtu 1480
ip addr add ` + theirPod.String() + `/32 dev tunl0
ip route add ` + ourPod.String() + `/32 via ` + ourNode.String() + ` dev tunl0 onlink
sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.tunl0.rp_filter=0
setsid socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat >/dev/null 2>&1 </dev/null &
`)
	ns := ipipNode(t, r, m.Address)

	t.Run("ours to the kernel's", func(t *testing.T) {
		if out, err := pingFrom(t, ns, "-c", "3", "-W", "60", theirPod.String()); err != nil {
			t.Errorf("ping: %v\n%s", err, out)
		}
	})
	t.Run("the kernel's to ours", func(t *testing.T) {
		if out, code := m.Sh("ping -n -c 3 -W 60 -I " + theirPod.String() + " " + ourPod.String()); code != 0 {
			t.Errorf("ping: %d\n%s", code, out)
		}
	})
	t.Run("as large as fits", func(t *testing.T) {
		// Behind an IPv4 and an ICMP header.
		if out, err := pingFrom(t, ns, "-c", "1", "-W", "60", "-M", "do", "-s", "1452", theirPod.String()); err != nil {
			t.Errorf("ping with 1480 bytes: %v\n%s", err, out)
		}
	})
	t.Run("a stream there and back", func(t *testing.T) { echoes(t, ns, netip.AddrPortFrom(theirPod, 7000)) })
	// The module counts what its device takes out of IP protocol 4.
	if received := strings.TrimSpace(m.Must("cat /sys/class/net/tunl0/statistics/rx_packets")); received == "" || received == "0" {
		t.Errorf("the kernel's tunl0 received %q packets: they took another way", received)
	}
	if errs := strings.TrimSpace(m.Must("cat /sys/class/net/tunl0/statistics/rx_errors")); errs != "0" {
		t.Errorf("the kernel's tunl0 received %q packets with errors", errs)
	}
}

// ipipNode is a node of ours on the segment, with a tunnel to the peer.
func ipipNode(t *testing.T, r *Rig, peer netip.Addr) *netns.NS {
	t.Helper()
	ns := testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", address(2).String(), r.NS, "our-node", "")
	r.Plug("our-node")
	err := ns.Do(func() error {
		return netlink.LinkAdd(&netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tunl0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_NO_PI})
	})
	if err != nil {
		t.Fatal(err)
	}
	// As on every node; what does not forward has no routes for BPF programs either
	// (bpf_fib_lookup).
	err = ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644) })
	if err != nil {
		t.Fatal(err)
	}
	h := testnet.Handle(t, ns)
	l, err := h.LinkByName("tunl0")
	if err == nil {
		err = h.LinkSetMTU(l, tunnelMTU)
	}
	if err == nil {
		err = h.AddrAdd(l, &netlink.Addr{IPNet: netlink.NewIPNet(net.IP(ourPod.AsSlice()))})
	}
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err == nil {
		err = h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: netlink.NewIPNet(net.IP(theirPod.AsSlice())), Gw: peer.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Src: ourPod.AsSlice()})
	}
	if err == nil {
		err = bpf.AttachIPIP(ns, datapath.IPIPTunnel{Device: "tunl0", Underlay: "eth0", Local: ourNode, Address: ourPod, MTU: tunnelMTU})
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

func pingFrom(t *testing.T, ns *netns.NS, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	out, err := run.Cmd{NS: ns, Name: "ping", Args: append([]string{"-n"}, args...)}.Output(ctx)
	return string(out), err
}

// echoes sends a stream that must come back as it is.
func echoes(t *testing.T, ns *netns.NS, to netip.AddrPort) {
	t.Helper()
	const size = 1 << 20
	sent := make([]byte, size)
	if _, err := rand.Read(sent); err != nil {
		t.Fatal(err)
	}
	var conn net.Conn
	testnet.Eventually(t, Patience, "the machine listens", func() (bool, string) {
		err := ns.Do(func() (err error) {
			conn, err = net.DialTimeout("tcp", to.String(), time.Minute)
			return err
		})
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
	defer conn.Close() //nolint:errcheck // read to its end
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, size)
	if _, err := io.ReadFull(conn, got); err != nil {
		t.Fatalf("read what comes back: %v", err)
	}
	if !bytes.Equal(got, sent) {
		t.Error("what came back is not what was sent")
	}
}
