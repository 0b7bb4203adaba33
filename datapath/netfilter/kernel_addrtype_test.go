package netfilter

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/testnet"
)

// The routing type of an address is what the kernel takes it for: as long as
// nobody has added a policy rule, and afterwards.
func TestAddrTypesEqualKernel(t *testing.T) {
	for _, ruled := range []bool{false, true} {
		t.Run(fmt.Sprintf("policy rule %v", ruled), func(t *testing.T) { checkAddrTypes(t, ruled) })
	}
}

func checkAddrTypes(t *testing.T, ruled bool) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	r := &rig{t: t, node: testnet.NewNS(t), wire: map[string]*wire{}, dir: t.TempDir()}
	r.h = testnet.Handle(t, r.node)
	far := testnet.NewNS(t)
	testnet.Wire(t, r.node, "eth0", "10.1.0.1/16", far, "far", "")
	r.wire["eth0"] = r.tap(far, "eth0")
	eth0, lo := r.link("eth0").Attrs().Index, r.link("lo").Attrs().Index
	if ruled {
		rule := netlink.NewRule()
		rule.IifName, rule.Table, rule.Priority = "nobody", 77, 77
		if err := r.h.RuleAdd(rule); err != nil {
			t.Fatal(err)
		}
	}
	add := func(dst string, table, typ, link int, scope netlink.Scope) {
		t.Helper()
		if err := r.h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix(dst)), Table: table, Type: typ, LinkIndex: link, Scope: scope}); err != nil {
			t.Fatal(err)
		}
	}
	// pools that are the node's own as a whole, with something in between
	add("10.50.0.0/16", unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, lo, netlink.SCOPE_HOST)
	add("10.50.3.0/24", unix.RT_TABLE_MAIN, unix.RTN_UNICAST, eth0, netlink.SCOPE_LINK)
	add("10.50.4.0/24", unix.RT_TABLE_MAIN, unix.RTN_BLACKHOLE, 0, netlink.SCOPE_UNIVERSE)
	add("10.50.4.7/32", unix.RT_TABLE_LOCAL, unix.RTN_LOCAL, eth0, netlink.SCOPE_HOST)
	add("10.51.0.0/16", unix.RT_TABLE_MAIN, unix.RTN_BLACKHOLE, 0, netlink.SCOPE_UNIVERSE)

	addrs := []string{"10.1.0.1", "10.1.255.255", "10.1.7.7", "10.50.0.1", "10.50.3.1", "10.50.4.1", "10.50.4.7", "10.51.0.1", "127.9.9.9", "224.0.0.5", "255.255.255.255", "198.51.100.1"}
	var b strings.Builder
	for _, a := range addrs {
		for _, typ := range addrTypes {
			if typ != "NAT" && typ != "XRESOLVE" {
				fmt.Fprintf(&b, "-A PREROUTING -d %s/32 -m addrtype --dst-type %s\n-A PREROUTING -d %s/32 -m addrtype --dst-type %s --limit-iface-in\n", a, typ, a, typ)
			}
		}
	}
	r.iptables("*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A PREROUTING -i eth0\n"+b.String()+"COMMIT\n", "iptables-legacy-restore")
	rules, err := Parse(map[string]string{"raw": r.saved()})
	if err != nil {
		t.Fatal(err)
	}
	s := r.state()
	if !ruled {
		s.Policy = []datapath.PolicyRule{{Priority: 0}, {Priority: 32766}, {Priority: 32767}}
	}
	want := map[string]uint64{}
	for i, a := range addrs {
		p := probe{Packet: datapath.Packet{Proto: "udp", Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr(a), SPort: 1, DPort: 9, TTL: 64, ID: uint16(i + 1)}}
		r.send("eth0", p)
		for _, h := range rules.Eval(Query{Hook: "prerouting", Table: "raw", Packet: p.Packet, In: "eth0", AddrType: AddrTypes(s)})[0].Hits {
			want[h.Rule]++
		}
	}
	for _, rule := range r.arrived("raw", "PREROUTING", uint64(len(addrs))).Chain("PREROUTING").Rules {
		if rule.Counters.Packets != want[rule.Raw] {
			t.Errorf("%s: kernel %d, evaluator %d", rule.Raw, rule.Counters.Packets, want[rule.Raw])
		}
	}
}
