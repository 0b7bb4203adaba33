package skbtrace_test

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

const vxlanPort = 8472

// addVXLAN makes a tunnel device whose only peer is the other end.
func addVXLAN(t *testing.T, ns *netns.NS, peer, addr string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	dev := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: vxlanPort, Group: net.ParseIP(peer), Learning: true}
	check(t, h.LinkAdd(dev))
	a, err := netlink.ParseAddr(addr)
	check(t, err)
	check(t, h.AddrAdd(dev, a))
	check(t, h.LinkSetUp(dev))
}

// A packet in a tunnel is known by the packet that it carries, and is the same
// from one end to the other; an event shows it as it is at its point.
func TestTunnelledPacketIsFollowed(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.VXLAN, testnet.Ping)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	addVXLAN(t, a, "192.0.2.2", "10.3.0.1/24")
	addVXLAN(t, b, "192.0.2.1", "10.3.0.2/24")
	check(t, in(t, a, "ping", "-c1", "-W5", "10.3.0.2")) // neighbours are known
	tr := open(t, skbtrace.Options{
		Namespaces: []*netns.NS{a, b}, Ports: skbtrace.Ports{VXLAN: vxlanPort},
		Flows: []skbtrace.Flow{flow("icmp", "10.3.0.1:0", "10.3.0.2:0")},
	})
	check(t, in(t, a, "ping", "-c1", "-W5", "192.0.2.2")) // the carriers' own traffic is not wanted
	check(t, in(t, a, "ping", "-c1", "-W5", "10.3.0.2"))
	events := collect(t, tr, nil)
	first := map[string]skbtrace.Event{}
	for i, n := range names(t, events, map[string]*netns.NS{"a": a, "b": b}) {
		if e := events[i]; e.Skb != events[0].Skb {
			continue
		}
		if _, ok := first[n]; !ok {
			first[n] = events[i]
		}
	}
	for _, tt := range []struct {
		where string
		outer bool
	}{
		{"a output/-450", false}, {"a xmit vxlan0", false}, {"a queue eth0", true}, {"a xmit eth0", true},
		{"b rx eth0", true}, {"b receive eth0", true}, {"b receive vxlan0", false},
	} {
		e, ok := first[tt.where]
		if !ok {
			t.Errorf("the request was not seen at %s", tt.where)
			continue
		}
		if outer := e.Data[9] == 17 && binary.BigEndian.Uint16(e.Data[22:]) == vxlanPort; outer != tt.outer {
			t.Errorf("%s: in a tunnel %v, want %v", tt.where, outer, tt.outer)
		}
	}
	for _, e := range events {
		if e.Data[9] == 1 && e.Data[12] == 192 {
			t.Errorf("an event of a packet that is not wanted: % x", e.Data[:20])
		}
	}
}
