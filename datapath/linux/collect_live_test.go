package linux_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// listen opens a socket inside a namespace until the test ends.
func listen(t *testing.T, ns *netns.NS, network, address string) {
	t.Helper()
	err := ns.Do(func() error {
		if strings.HasPrefix(network, "udp") {
			c, err := net.ListenPacket(network, address)
			if err == nil {
				t.Cleanup(func() { _ = c.Close() })
			}
			return err
		}
		l, err := net.Listen(network, address)
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, address, err)
	}
}

// dial opens a connection inside a namespace until the test ends, and returns
// its own address.
func dial(t *testing.T, ns *netns.NS, network, address string) netip.AddrPort {
	t.Helper()
	var own netip.AddrPort
	err := ns.Do(func() error {
		c, err := net.Dial(network, address)
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = c.Close() })
		own = netip.MustParseAddrPort(c.LocalAddr().String())
		_, err = c.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatalf("%s %s: %v", network, address, err)
	}
	return own
}

func TestCollectSockets(t *testing.T) {
	ns, _ := menagerie(t)
	listen(t, ns, "tcp4", "0.0.0.0:81")
	listen(t, ns, "tcp4", "192.0.2.10:82")
	listen(t, ns, "tcp", "[::]:83") // takes IPv4 too
	listen(t, ns, "tcp6", "[::]:84")
	listen(t, ns, "udp4", "127.0.0.1:85")
	listen(t, ns, "udp", "[::]:86")
	listen(t, ns, "tcp6", "[::1]:87")
	own := dial(t, ns, "udp4", "192.0.2.20:53")
	dial(t, ns, "tcp4", "127.0.0.1:81")
	addr := netip.MustParseAddrPort
	want := []datapath.SocketState{
		{Proto: "tcp", Local: addr("0.0.0.0:81"), State: "listen"},
		{Proto: "tcp", Local: addr("192.0.2.10:82"), State: "listen"},
		{Proto: "tcp", Local: addr("0.0.0.0:83"), State: "listen", Dual: true},
		{Proto: "udp", Local: addr("127.0.0.1:85"), State: "bound"},
		{Proto: "udp", Local: addr("0.0.0.0:86"), State: "bound", Dual: true},
		{Proto: "udp", Local: own, State: "established", Remote: addr("192.0.2.20:53")},
		// vx5's, which the kernel itself holds, for all addresses (linux
		// drivers/net/vxlan, vxlan_create_sock).
		{Proto: "udp", Local: addr("0.0.0.0:8472"), State: "bound"},
	}
	order := func(a, b datapath.SocketState) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }
	got := collected(t, ns, linux.CollectOptions{SkipRules: true}).Sockets
	slices.SortFunc(got, order)
	slices.SortFunc(want, order)
	if d := cmp.Diff(want, got, comparers...); d != "" {
		t.Errorf("sockets (-opened +collected):\n%s\nss says:\n%s", d, in(t, ns, "ss", "-lntu"))
	}
	if st := collected(t, ns, linux.CollectOptions{SkipRules: true, SkipSockets: true}); st.Sockets != nil {
		t.Errorf("sockets were to be skipped: %+v", st.Sockets)
	}
}

func TestCollectConntrack(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Ping, testnet.Conntrack)
	ns, other := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", "192.0.2.10/24", other, "peer0", "192.0.2.20/24")
	load(t, ns, "iptables-legacy-restore", "*nat\n-A OUTPUT -d 192.0.2.99/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 192.0.2.20:8080\nCOMMIT\n")
	// What is forgotten after 30 s is forgotten before a slow machine has looked.
	in(t, ns, "sysctl", "-qw", "net.netfilter.nf_conntrack_udp_timeout=3600", "net.netfilter.nf_conntrack_icmp_timeout=3600")
	listen(t, other, "tcp4", "192.0.2.20:8080")
	listen(t, other, "udp4", "192.0.2.20:53")
	client := dial(t, ns, "tcp4", "192.0.2.99:80")
	asker := dial(t, ns, "udp4", "192.0.2.20:53")
	in(t, ns, "ping", "-c1", "-W5", "-e", "4242", "192.0.2.20")
	for port := range 40 { // somebody else's
		in(t, ns, "conntrack", "-I", "-s", "198.51.100.1", "-d", "198.51.100.2", "-p", "udp", "--sport", fmt.Sprint(1000+port), "--dport", "53", "-t", "3600", "-m", "7")
	}
	addr := netip.MustParseAddrPort
	tcp := datapath.ConntrackEntry{Proto: "tcp", State: "ESTABLISHED", OrigSrc: client, OrigDst: addr("192.0.2.99:80"),
		ReplySrc: addr("192.0.2.20:8080"), ReplyDst: client, Assured: true}
	udp := datapath.ConntrackEntry{Proto: "udp", OrigSrc: asker, OrigDst: addr("192.0.2.20:53"), ReplySrc: addr("192.0.2.20:53"), ReplyDst: asker}
	icmp := datapath.ConntrackEntry{Proto: "icmp", OrigSrc: addr("192.0.2.10:4242"), OrigDst: addr("192.0.2.20:4242"),
		ReplySrc: addr("192.0.2.20:4242"), ReplyDst: addr("192.0.2.10:4242")}
	strange := datapath.ConntrackEntry{Proto: "udp", OrigSrc: addr("198.51.100.1:1007"), OrigDst: addr("198.51.100.2:53"),
		ReplySrc: addr("198.51.100.2:53"), ReplyDst: addr("198.51.100.1:1007"), Mark: 7}
	at := func(a string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(a), 0) }
	for name, c := range map[string]struct {
		query linux.ConntrackQuery
		want  []datapath.ConntrackEntry
	}{
		"as it was sent":       {linux.ConntrackQuery{Proto: "tcp", Src: client, Dst: addr("192.0.2.99:80")}, []datapath.ConntrackEntry{tcp}},
		"as it is answered":    {linux.ConntrackQuery{Proto: "tcp", Src: addr("192.0.2.20:8080"), Dst: client}, []datapath.ConntrackEntry{tcp}},
		"another port":         {linux.ConntrackQuery{Proto: "tcp", Src: client, Dst: addr("192.0.2.99:81")}, nil},
		"to an address":        {linux.ConntrackQuery{Dst: at("192.0.2.99")}, []datapath.ConntrackEntry{tcp}},
		"from the real server": {linux.ConntrackQuery{Proto: "tcp", Src: at("192.0.2.20")}, []datapath.ConntrackEntry{tcp}},
		"to a port":            {linux.ConntrackQuery{Proto: "udp", Src: addr("198.51.100.1:1007"), Dst: at("198.51.100.2")}, []datapath.ConntrackEntry{strange}},
		"udp":                  {linux.ConntrackQuery{Proto: "udp", Src: at("192.0.2.10")}, []datapath.ConntrackEntry{udp}},
		"echo":                 {linux.ConntrackQuery{Proto: "icmp", Src: at("192.0.2.10"), Dst: at("192.0.2.20"), ICMPID: 4242}, []datapath.ConntrackEntry{icmp}},
		"any icmp":             {linux.ConntrackQuery{Proto: "icmp"}, []datapath.ConntrackEntry{icmp}},
	} {
		st := collected(t, ns, linux.CollectOptions{Conntrack: []linux.ConntrackQuery{c.query}})
		got := slices.Clone(st.Conntrack.Entries)
		for i := range got {
			if got[i].Timeout <= 0 {
				t.Errorf("%s: %+v has no time left", name, got[i])
			}
			got[i].Timeout = 0
		}
		if d := cmp.Diff(c.want, got, comparers...); d != "" {
			t.Errorf("%s (-made +collected):\n%s\nconntrack says:\n%s", name, d, in(t, ns, "conntrack", "-L"))
		}
	}
	st := collected(t, ns, linux.CollectOptions{Conntrack: []linux.ConntrackQuery{{}}})
	said := len(regexp.MustCompile(`(?m)^(tcp|udp|icmp) `).FindAllString(in(t, ns, "conntrack", "-L", "-f", "ipv4"), -1))
	if len(st.Conntrack.Entries) != said || st.Conntrack.Count != said || st.Conntrack.Max <= said {
		t.Errorf("conntrack lists %d connections, collected %d, counted %d of %d", said, len(st.Conntrack.Entries), st.Conntrack.Count, st.Conntrack.Max)
	}
	if st := collected(t, other, linux.CollectOptions{}); st.Conntrack != nil {
		t.Errorf("nothing in the other namespace makes the kernel track connections: %+v", st.Conntrack)
	}
}

// program loads a program that lets everything pass.
func program(t *testing.T, name string) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: name, Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestCollectPrograms(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.BPF)
	ns, _ := menagerie(t)
	h := testnet.Handle(t, ns)
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	index := eth0.Attrs().Index
	if err := h.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}); err != nil {
		t.Fatal(err)
	}
	for i, x := range []struct {
		name   string
		parent uint32
	}{{"first in", netlink.HANDLE_MIN_INGRESS}, {"second in", netlink.HANDLE_MIN_INGRESS}, {"out", netlink.HANDLE_MIN_EGRESS}} {
		err := h.FilterAdd(&netlink.BpfFilter{
			FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: x.parent, Handle: 1, Priority: uint16(i + 1), Protocol: unix.ETH_P_ALL},
			Fd:          program(t, "tc").FD(), Name: x.name, DirectAction: true,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string][2][]string{"eth0": {{"first in", "second in"}, {"out"}}}
	err = ns.Do(func() error {
		l, err := link.AttachTCX(link.TCXOptions{Program: program(t, "watcher"), Attach: ebpf.AttachTCXEgress, Interface: index})
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
	switch {
	case err == nil:
		want["eth0"] = [2][]string{{"first in", "second in"}, {"out", "watcher"}}
	case !errors.Is(err, ebpf.ErrNotSupported):
		t.Fatal(err)
	}
	got := map[string][2][]string{}
	for _, d := range collected(t, ns, linux.CollectOptions{SkipRules: true}).Devices {
		if d.Ingress != nil || d.Egress != nil {
			got[d.Name] = [2][]string{d.Ingress, d.Egress}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("programs (-attached +collected):\n%s", d)
	}
}
