package linux

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
)

// The table is laid out by linux net/sctp/proc.c: addresses after the inode, IPv6
// ones that take IPv4 too as "::" or mapped, and only state 10 listens.
func TestSCTPEndpoints(t *testing.T) {
	const table = ` ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS
0000000000000000 0000000000000000 2   10  12   3868      0 41001 10.244.0.2 192.0.2.1 
0000000000000000 0000000000000000 2   10  13   3869      0 41002 0.0.0.0 
0000000000000000 0000000000000000 2   10  14   3870      0 41003 0000:0000:0000:0000:0000:0000:0000:0000 
0000000000000000 0000000000000000 2   10  14   3872      0 41003 fd00:0000:0000:0000:0000:0000:0000:0001 
0000000000000000 0000000000000000 0   7   15   3871      0 41004 0.0.0.0 
`
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	want := []datapath.SocketState{
		{Proto: "sctp", State: "listen", Local: at("10.244.0.2:3868")},
		{Proto: "sctp", State: "listen", Local: at("192.0.2.1:3868")},
		{Proto: "sctp", State: "listen", Local: at("0.0.0.0:3869")},
		{Proto: "sctp", State: "listen", Local: at("0.0.0.0:3870"), Dual: true},
	}
	same := cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
	if d := cmp.Diff(want, parseSCTPEndpoints(table), same); d != "" {
		t.Errorf("endpoints (-listening +read):\n%s", d)
	}
}

// One connection that two dumps have is one, also when a second has passed between
// them, or its state is another.
func TestOneConnection(t *testing.T) {
	at := netip.MustParseAddrPort
	tcp := datapath.ConntrackEntry{Proto: "tcp", State: "SYN_RECV", OrigSrc: at("192.0.2.1:1000"), OrigDst: at("192.0.2.2:80"), ReplySrc: at("192.0.2.2:80"), ReplyDst: at("192.0.2.1:1000"), Timeout: 60}
	later, other := tcp, tcp
	later.State, later.Assured, later.Timeout = "ESTABLISHED", true, 432000
	other.OrigDst = at("192.0.2.9:80") // and the answers the same: another address was translated
	var all []datapath.ConntrackEntry
	for _, e := range []datapath.ConntrackEntry{tcp, later, other} {
		all = withConnection(all, e)
	}
	if len(all) != 2 || all[0] != tcp || all[1] != other {
		t.Errorf("%+v", all)
	}
}

// Attributes that are cut short, as they never should be, end the walk.
func FuzzAttributes(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, v := range attributes(b) {
			total += 4 + len(v)
		}
		if total > len(b) {
			t.Errorf("%d bytes hold attributes of %d", len(b), total)
		}
	})
}
