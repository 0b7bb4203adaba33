package udptun

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket/layers"

	"slipway/datapath"
)

// timestamps are the TCP options of nearly every real segment.
var timestamps = []layers.TCPOption{
	{OptionType: layers.TCPOptionKindNop}, {OptionType: layers.TCPOptionKindNop},
	{OptionType: layers.TCPOptionKindTimestamps, OptionLength: 10, OptionData: []byte{1, 2, 3, 4, 5, 6, 7, 8}},
}

func TestSumMatchesItsDefinition(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 300)
	for n := range 300 {
		random := randomBytes(n)
		for _, b := range [][]byte{random, ones[:n], make([]byte, n)} {
			for _, start := range []uint64{0, 1, 1<<64 - 1, 1<<64 - 2} {
				var prefix [8]byte
				binary.NativeEndian.PutUint64(prefix[:], start)
				var got [2]byte
				putSum(got[:], fold(sum(start, b)))
				// Zero has two forms in ones' complement; both mean zero.
				if want := slowSum(prefix[:], b); binary.BigEndian.Uint16(got[:])%0xffff != want%0xffff {
					t.Fatalf("sum of %d bytes from %x: %x, want %x", n, start, got, want)
				}
			}
		}
	}
}

func TestDecrementTTLKeepsTheChecksumGood(t *testing.T) {
	for id := range 1 << 16 { // goes through all checksums
		p := testPacketHeader(uint16(id))
		if !decrementTTL(p) || p[offTTL] != 63 || slowSum(p) != 0xffff || binary.BigEndian.Uint16(p[offCheck:]) == 0xffff {
			t.Fatalf("id %d: % x", id, p)
		}
	}
	for _, ttl := range []byte{0, 1} {
		p := testPacketHeader(1)
		p[offTTL] = ttl
		if decrementTTL(p) {
			t.Errorf("TTL %d passes", ttl)
		}
	}
}

// testPacketHeader is a header with a checksum by RFC 1071's own words.
func testPacketHeader(id uint16) []byte {
	p := []byte{0x45, 0, 0, 20, 0, 0, 0x40, 0, 64, protoUDP, 0, 0, 10, 244, 1, 5, 10, 244, 2, 6}
	binary.BigEndian.PutUint16(p[offID:], id)
	binary.BigEndian.PutUint16(p[offCheck:], ^slowSum(p))
	return p
}

// superTCP is a super-packet as the kernel makes it: checksums unfinished.
func superTCP(t testing.TB, s packetSpec, mss int) (vnetHeader, []byte) {
	p := testPacket(t, s)
	h := ipHeaderLen(p)
	v := vnetHeader{flags: vnetNeedsCsum, gso: gsoTCP4, gsoSize: uint16(mss), checksumStart: uint16(h), checksumOffs: offTCPSum}
	if s.proto == protoUDP {
		v.gso, v.checksumOffs = gsoUDP, offUDPSum
	}
	putSum(p[h+int(v.checksumOffs):], fold(pseudo(p, len(p)-h)))
	return v, p
}

func TestSplitTCP(t *testing.T) {
	spec := packetSpec{proto: protoTCP, payload: 3500, id: 0xffff, frag: layers.IPv4DontFragment, tos: 3, seq: 0xfffffc00, ipOptions: true,
		tcp: layers.TCP{ACK: true, PSH: true, FIN: true, ECE: true, CWR: true, Window: 500, Options: timestamps}}
	v, p := superTCP(t, spec, 1000)
	v.gso |= gsoECN
	got := gather(t, v, p)
	type segment struct {
		Len, ID       int
		Seq           uint32
		Flags, TOS, H byte
		DF            bool
	}
	var fields []segment
	var payload []byte
	for _, g := range got {
		wellFormed(t, g)
		h := ipHeaderLen(g)
		fields = append(fields, segment{len(g) - h - 32, int(binary.BigEndian.Uint16(g[offID:])), binary.BigEndian.Uint32(g[h+offSeq:]), g[h+offFlags], g[offTOS], g[0], g[offFrag] == 0x40})
		payload = append(payload, g[h+32:]...)
	}
	want := []segment{ // the id and the sequence number wrap; CWR first, FIN and PSH last
		{1000, 0xffff, 0xfffffc00, tcpACK | tcpECE | tcpCWR, 3, 0x46, true},
		{1000, 0, 0xffffffe8, tcpACK | tcpECE, 3, 0x46, true},
		{1000, 1, 0x3d0, tcpACK | tcpECE, 3, 0x46, true},
		{500, 2, 0x7b8, tcpACK | tcpECE | tcpPSH | tcpFIN, 3, 0x46, true},
	}
	if d := cmp.Diff(want, fields); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(payload, p[len(p)-3500:]) {
		t.Error("payload differs")
	}
}

func TestSplitUDP(t *testing.T) {
	v, p := superTCP(t, packetSpec{proto: protoUDP, payload: 2501, id: 7}, 1000)
	got := gather(t, v, p)
	if len(got) != 3 || len(got[2]) != 28+501 {
		t.Fatalf("%d segments", len(got))
	}
	for i, g := range got {
		wellFormed(t, g)
		if id := binary.BigEndian.Uint16(g[offID:]); int(id) != 7+i {
			t.Errorf("segment %d has id %d", i, id)
		}
	}
}

func TestSuperPacketRefused(t *testing.T) {
	v, p := superTCP(t, packetSpec{proto: protoTCP, payload: 3000, tcp: layers.TCP{ACK: true}}, 1000)
	fragment := testPacket(t, packetSpec{proto: protoTCP, payload: 3000, frag: layers.IPv4MoreFragments, tcp: layers.TCP{ACK: true}})
	badOffset := append([]byte(nil), p...)
	badOffset[minIP+offDataOffs] = 0x40
	long := append([]byte(nil), p[:45]...)
	long[minIP+offDataOffs] = 0xf0
	zero, udp, ipv6 := v, v, v
	zero.gsoSize, udp.gso, ipv6.gso = 0, gsoUDP, 4
	for name, c := range map[string]struct {
		v vnetHeader
		p []byte
	}{
		"no size": {zero, p}, "wrong protocol": {udp, p}, "IPv6": {ipv6, p}, "fragment": {v, fragment},
		"data offset too small": {v, badOffset}, "data offset beyond the end": {v, long}, "no transport header": {v, p[:25]},
	} {
		if _, ok := newSuperPacket(c.v, c.p); ok {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFinishChecksum(t *testing.T) {
	for _, proto := range []byte{protoTCP, protoUDP} {
		for _, n := range []int{0, 1, 2, 63, 64, 65, 1443, 1444} {
			v, p := superTCP(t, packetSpec{proto: proto, payload: n, tcp: layers.TCP{ACK: true}}, 0)
			v.gso = gsoNone
			if !finishChecksum(v, p) {
				t.Fatalf("refused at %d bytes", n)
			}
			wellFormed(t, p)
			v.checksumOffs = uint16(len(p))
			if finishChecksum(v, p) {
				t.Error("a checksum outside the packet was accepted")
			}
		}
	}
}

func TestSplitCoalesceSplitIsStable(t *testing.T) {
	for _, proto := range []byte{protoTCP, protoUDP} {
		for _, payload := range []int{1001, 2000, 1000*maxRun - 1, 60000} {
			spec := packetSpec{proto: proto, payload: payload, id: 65530, tcp: layers.TCP{ACK: true, PSH: true, CWR: true, ECE: true, Options: timestamps}}
			v, p := superTCP(t, spec, 1000)
			once := gather(t, v, p)
			d := coalesceAll(once)
			if len(d.packets) != 1 {
				t.Errorf("%d bytes of protocol %d became %d packets, want 1", payload, proto, len(d.packets))
			}
			if !bytes.Equal(d.packets[0], p) {
				t.Errorf("the super-packet is not the one it came from")
			}
			if diff := cmp.Diff(once, d.segmentAll(t)); diff != "" {
				t.Errorf("%d bytes of protocol %d: %s", payload, proto, diff)
			}
		}
	}
}

// TestKeptApart lists pairs of packets that no super-packet may hold together.
func TestKeptApart(t *testing.T) {
	first := packetSpec{proto: protoTCP, payload: 100, id: 1, seq: 1000, tcp: layers.TCP{ACK: true, Window: 10, Options: timestamps}}
	second := first
	second.id, second.seq = 2, 1100
	if d := coalesceAll([][]byte{testPacket(t, first), testPacket(t, second)}); len(d.packets) != 1 || d.headers[0].gso != gsoTCP4 {
		t.Fatal("two consecutive segments do not merge: the cases below would prove nothing")
	}
	for name, change := range map[string]func(a, b *packetSpec){
		"gap in sequence":     func(_, b *packetSpec) { b.seq++ },
		"gap in IP id":        func(_, b *packetSpec) { b.id++ },
		"same IP id, no DF":   func(_, b *packetSpec) { b.id-- },
		"window":              func(_, b *packetSpec) { b.tcp.Window++ },
		"options":             func(_, b *packetSpec) { b.tcp.Options = nil },
		"TOS":                 func(_, b *packetSpec) { b.tos = 3 },
		"TTL":                 func(_, b *packetSpec) { b.ttl = 9 },
		"DF":                  func(_, b *packetSpec) { b.frag = layers.IPv4DontFragment },
		"CWR later":           func(_, b *packetSpec) { b.tcp.CWR = true },
		"ECE":                 func(_, b *packetSpec) { b.tcp.ECE = true },
		"RST":                 func(_, b *packetSpec) { b.tcp.RST = true },
		"URG":                 func(_, b *packetSpec) { b.tcp.URG = true },
		"SYN first":           func(a, _ *packetSpec) { a.tcp.SYN = true },
		"no ACK":              func(a, b *packetSpec) { a.tcp.ACK, b.tcp.ACK = false, false },
		"PSH first":           func(a, _ *packetSpec) { a.tcp.PSH = true },
		"FIN first":           func(a, _ *packetSpec) { a.tcp.FIN = true },
		"longer second":       func(_, b *packetSpec) { b.payload++ },
		"empty second":        func(_, b *packetSpec) { b.payload = 0 },
		"IP options":          func(a, b *packetSpec) { a.ipOptions, b.ipOptions = true, true },
		"fragments":           func(a, b *packetSpec) { a.frag, b.frag = layers.IPv4MoreFragments, layers.IPv4MoreFragments },
		"fragment of another": func(_, b *packetSpec) { b.fragOffset = 10 },
		"protocol":            func(_, b *packetSpec) { b.proto = protoUDP },
	} {
		a, b := first, second
		change(&a, &b)
		in := [][]byte{testPacket(t, a), testPacket(t, b)}
		if d := coalesceAll(in); !cmp.Equal(d.packets, in) {
			t.Errorf("%s: %d packets, or changed ones", name, len(d.packets))
		}
	}
}

func TestBadChecksumsAreNotLaundered(t *testing.T) {
	for _, proto := range []byte{protoTCP, protoUDP} {
		for _, bad := range []int{0, 1} { // which of the two
			for _, at := range []int{offTOS, offCheck, 30, 60} { // header fields, payload
				in := [][]byte{
					testPacket(t, packetSpec{proto: proto, payload: 100, id: 1, seq: 1000, tcp: layers.TCP{ACK: true}}),
					testPacket(t, packetSpec{proto: proto, payload: 100, id: 2, seq: 1100, tcp: layers.TCP{ACK: true}}),
				}
				in[bad][at] ^= 0x10
				if d := coalesceAll(in); !cmp.Equal(d.packets, in) {
					t.Errorf("protocol %d: packet %d with byte %d flipped was merged", proto, bad, at)
				}
			}
		}
	}
	none := [][]byte{testPacket(t, packetSpec{proto: protoUDP, payload: 9, id: 1}), testPacket(t, packetSpec{proto: protoUDP, payload: 9, id: 2})}
	for _, p := range none {
		p[minIP+offUDPSum], p[minIP+offUDPSum+1] = 0, 0
	}
	if d := coalesceAll(none); !cmp.Equal(d.packets, none) {
		t.Error("datagrams without checksum were given one")
	}
}

// TestConstantID: packets that may not be fragmented may all have one id.
func TestConstantID(t *testing.T) {
	var in [][]byte
	for i := range 3 {
		in = append(in, testPacket(t, packetSpec{proto: protoUDP, payload: 50, frag: layers.IPv4DontFragment, fill: byte(i)}))
	}
	d := coalesceAll(in)
	if len(d.packets) != 1 {
		t.Fatalf("%d packets, want 1", len(d.packets))
	}
	for i, p := range d.segmentAll(t) {
		wellFormed(t, p)
		if !bytes.Equal(p[28:], in[i][28:]) {
			t.Errorf("payload of segment %d differs", i)
		}
	}
}

// TestNoUDPSuperPacketsForOldKernels: without USO datagrams stay apart, TCP does not.
func TestNoUDPSuperPacketsForOldKernels(t *testing.T) {
	for proto, want := range map[byte]bool{protoUDP: false, protoTCP: true} {
		var r packetRun
		r.start(testPacket(t, packetSpec{proto: proto, payload: 9, id: 1, tcp: layers.TCP{ACK: true}}), false)
		if got := r.add(testPacket(t, packetSpec{proto: proto, payload: 9, id: 2, seq: 9, tcp: layers.TCP{ACK: true}}), false); got != want {
			t.Errorf("protocol %d merged: %v", proto, got)
		}
	}
}

func TestNetUnreachable(t *testing.T) {
	offender := testPacket(t, packetSpec{proto: protoUDP, payload: 100, ipOptions: true})
	p := netUnreachable(make([]byte, maxICMP), offender)
	if slowSum(p[:20]) != 0xffff || slowSum(p[20:]) != 0xffff {
		t.Errorf("bad checksums in % x", p)
	}
	if len(p) != 20+8+24+8 || p[9] != protoICMP || p[20] != 3 || p[21] != 0 || !bytes.Equal(p[28:], offender[:32]) {
		t.Errorf("not a net unreachable that quotes header and 8 bytes: % x", p)
	}
	if !bytes.Equal(p[16:20], offender[12:16]) {
		t.Errorf("it goes to %v", p[16:20])
	}
	for name, change := range map[string]func(p []byte){
		"about ICMP":           func(p []byte) { p[offProto] = protoICMP },
		"about later fragment": func(p []byte) { p[offFrag+1] = 1 },
		"about multicast":      func(p []byte) { p[offDst] = 224 },
		"about broadcast":      func(p []byte) { copy(p[offDst:], []byte{255, 255, 255, 255}) },
		"to nobody":            func(p []byte) { copy(p[offSrc:], []byte{0, 0, 0, 0}) },
	} {
		p := append([]byte(nil), offender...)
		change(p)
		if answer := netUnreachable(make([]byte, maxICMP), p); answer != nil {
			t.Errorf("%s: answered", name)
		}
	}
}

func TestLongestLeaseWins(t *testing.T) {
	lease := func(subnet, remote string) datapath.TunnelLease {
		return datapath.TunnelLease{Subnet: netip.MustParsePrefix(subnet), Remote: netip.MustParseAddrPort(remote)}
	}
	table, refused := newLeaseTable([]datapath.TunnelLease{
		lease("10.244.0.0/16", "192.0.2.16:8285"), lease("10.244.3.0/24", "192.0.2.24:8285"), lease("10.244.3.9/32", "192.0.2.32:8286"),
		lease("10.244.4.77/24", "192.0.2.44:8285"), lease("fd00::/64", "192.0.2.1:8285"), lease("10.9.0.0/16", "[fd00::1]:8285"),
	})
	if len(refused) != 2 {
		t.Errorf("refused: %v", refused)
	}
	for dst, want := range map[string]string{
		"10.244.3.9": "192.0.2.32:8286", "10.244.3.8": "192.0.2.24:8285", "10.244.5.1": "192.0.2.16:8285",
		"10.244.4.1": "192.0.2.44:8285", "10.245.0.1": "", "10.9.1.1": "",
	} {
		got := ""
		if sa := table.lookup(netip.MustParseAddr(dst).AsSlice()); sa != nil {
			port := binary.NativeEndian.AppendUint16(nil, sa.Port)
			got = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), binary.BigEndian.Uint16(port)).String()
		}
		if got != want {
			t.Errorf("%s goes to %q, want %q", dst, got, want)
		}
	}
	everything, _ := newLeaseTable([]datapath.TunnelLease{lease("0.0.0.0/0", "192.0.2.1:8285")})
	if everything.lookup([]byte{1, 2, 3, 4}) == nil {
		t.Error("a /0 does not match")
	}
}

// FuzzSplitCoalesce splits what claims to be a super-packet, merges the segments
// and splits again: the same segments must come out, all with good checksums.
func FuzzSplitCoalesce(f *testing.F) {
	f.Add(byte(gsoTCP4), uint16(100), uint16(1000), byte(tcpACK), []byte{})
	f.Add(byte(gsoTCP4|gsoECN), uint16(1), uint16(300), byte(tcpACK|tcpCWR|tcpFIN), []byte{1, 1, 1, 1})
	f.Add(byte(gsoUDP), uint16(1444), uint16(60000), byte(0), []byte{})
	f.Fuzz(func(t *testing.T, gso byte, mss, payload uint16, flags byte, options []byte) {
		spec := packetSpec{proto: protoTCP, payload: int(payload) % 65000, id: mss, seq: uint32(payload) << 16, tcp: layers.TCP{Window: 1}}
		if gso == gsoUDP {
			spec.proto = protoUDP
		} else if n := len(options) / 4 * 4; n > 0 && n <= 40 {
			spec.tcp.Options = []layers.TCPOption{{OptionType: 253, OptionLength: uint8(n), OptionData: options[:n-2]}}
		}
		v, p := superTCP(t, spec, int(mss))
		v.gso = gso
		if spec.proto == protoTCP {
			p[minIP+offFlags] = flags
		}
		if _, ok := newSuperPacket(v, p); !ok {
			return
		}
		once := gather(t, v, p)
		for _, g := range once {
			wellFormed(t, g)
		}
		if diff := cmp.Diff(once, coalesceAll(once).segmentAll(t)); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzCoalesce merges arbitrary packets: whatever is merged must come apart into
// what went in, and nothing may be lost.
func FuzzCoalesce(f *testing.F) {
	v, p := superTCP(f, packetSpec{proto: protoTCP, payload: 300, tcp: layers.TCP{ACK: true}}, 100)
	f.Add(bytes.Join(gather(f, v, p), nil), uint16(140), uint64(0))
	f.Fuzz(func(t *testing.T, data []byte, size uint16, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		var in [][]byte
		for len(data) > 0 && size > 0 {
			p := append([]byte(nil), data[:min(int(size), len(data))]...)
			data = data[len(p):]
			for range random.IntN(3) {
				p[random.IntN(len(p))] ^= 1 << random.IntN(8)
			}
			if admit(p) == dropNone {
				in = append(in, p)
			}
		}
		if diff := cmp.Diff(in, coalesceAll(in).segmentAll(t)); diff != "" {
			t.Error(diff)
		}
	})
}
