package bpf_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// filterNames lists the BPF filters on both clsact hooks of a device.
func filterNames(t *testing.T, ns *netns.NS, dev string) []string {
	t.Helper()
	h := testnet.Handle(t, ns)
	var out []string
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		all, err := h.FilterList(mustLink(t, h, dev), hook)
		check(t, err)
		for _, f := range all {
			if b, ok := f.(*netlink.BpfFilter); ok {
				out = append(out, b.Name)
			}
		}
	}
	return out
}

// qdiscs lists the kinds of queueing disciplines of a device.
func qdiscs(t *testing.T, ns *netns.NS, dev string) string {
	t.Helper()
	h := testnet.Handle(t, ns)
	all, err := h.QdiscList(mustLink(t, h, dev))
	check(t, err)
	var kinds []string
	for _, q := range all {
		kinds = append(kinds, q.Type())
	}
	return strings.Join(kinds, " ")
}

// descriptors counts the BPF programs and maps that this process holds open.
func descriptors(t *testing.T) int {
	t.Helper()
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	check(t, err)
	n := 0
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name())) // one may be closed by now
		if strings.HasPrefix(target, "anon_inode:bpf") {
			n++
		}
	}
	return n
}

func mustAddr(t *testing.T, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	check(t, err)
	return a
}

func mustCIDR(t testing.TB, s string) *net.IPNet {
	t.Helper()
	_, n, err := net.ParseCIDR(s)
	check(t, err)
	return n
}
