package skbtrace_test

import (
	"errors"
	"net"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

func counting(t *testing.T) *skbtrace.Drops {
	t.Helper()
	testnet.Need(t, testnet.Root)
	d, err := skbtrace.CountDrops()
	check(t, err)
	t.Cleanup(func() { check(t, d.Close()) })
	return d
}

// dropped is what was counted in a namespace.
func dropped(t *testing.T, d *skbtrace.Drops, ns *netns.NS) map[string]int64 {
	t.Helper()
	inode, err := ns.Inode()
	check(t, err)
	all, err := d.Read()
	check(t, err)
	if n := all[0]; n != nil {
		t.Errorf("%v", n)
	}
	return all[inode]
}

// udp sends n times from a namespace: a datagram, or so many at once.
func udp(t *testing.T, from *netns.NS, to string, n, atOnce int) {
	t.Helper()
	check(t, from.Do(func() error {
		c, err := net.Dial("udp4", to)
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // only sends
		data := make([]byte, max(1, 100*atOnce))
		if atOnce > 0 {
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				return err
			}
			if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, 100) }); e != nil || err != nil {
				return errors.Join(e, err)
			}
		}
		for range n {
			if _, err := c.Write(data); err != nil {
				return err
			}
		}
		return nil
	}))
}

// wired are two namespaces on a veth pair, without IPv6, which drops packets of
// its own while it comes up.
func wired(t *testing.T) (a, b *netns.NS) {
	t.Helper()
	a, b = testnet.NewNS(t), testnet.NewNS(t)
	for _, ns := range []*netns.NS{a, b} {
		check(t, in(t, ns, "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"))
	}
	testnet.Wire(t, a, "eth0", "10.0.0.1/24", b, "eth0", "10.0.0.2/24")
	return a, b
}

// Each packet counts once, where it was dropped and with the kernel's reason,
// whatever else the machine drops; a path without loss shows none.
func TestCountDrops(t *testing.T) {
	d := counting(t)
	a, b := wired(t)
	var server net.PacketConn
	check(t, b.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", "10.0.0.2:9")
		return err
	}))
	udp(t, a, "10.0.0.2:9", 20, 0)
	for range 20 {
		_, _, err := server.ReadFrom(make([]byte, 10))
		check(t, err)
	}
	check(t, server.Close())
	if got := dropped(t, d, b); len(got) != 0 {
		t.Errorf("without loss: %v", got)
	}
	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "lock"))
	check(t, in(t, b, "iptables-legacy", "-w", "-A", "INPUT", "-p", "udp", "-j", "DROP"))
	udp(t, a, "10.0.0.2:9", 7, 0)
	if diff := cmp.Diff(map[string]int64{"NETFILTER_DROP": 7}, dropped(t, d, b)); diff != "" {
		t.Error(diff)
	}
	if got := dropped(t, d, a); len(got) != 0 {
		t.Errorf("the sender dropped %v", got)
	}
	// Ten datagrams that the sender hands over at once are ten.
	udp(t, a, "10.0.0.2:9", 1, 10)
	if diff := cmp.Diff(map[string]int64{"NETFILTER_DROP": 17}, dropped(t, d, b)); diff != "" {
		t.Error(diff)
	}
}
