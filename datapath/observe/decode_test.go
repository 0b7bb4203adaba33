package observe

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// bytesOf serialises layers with right lengths and checksums.
func bytesOf(t testing.TB, ls ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ls...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func ethernet() *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: layers.EthernetTypeIPv4}
}

func ipv4(src, dst string, proto layers.IPProtocol, ttl uint8, id uint16) *layers.IPv4 {
	return &layers.IPv4{Version: 4, SrcIP: net.ParseIP(src).To4(), DstIP: net.ParseIP(dst).To4(), Protocol: proto, TTL: ttl, Id: id}
}

func udp(ip *layers.IPv4, src, dst uint16) *layers.UDP {
	u := &layers.UDP{SrcPort: layers.UDPPort(src), DstPort: layers.UDPPort(dst)}
	_ = u.SetNetworkLayerForChecksum(ip)
	return u
}

func tcpSYN(ip *layers.IPv4, src, dst uint16, seq uint32) *layers.TCP {
	s := &layers.TCP{SrcPort: layers.TCPPort(src), DstPort: layers.TCPPort(dst), SYN: true, Seq: seq, Window: 64240}
	_ = s.SetNetworkLayerForChecksum(ip)
	return s
}

// synFromPod is a SYN with data: 20 bytes of IP, 20 of TCP, and 12 that keep a
// frame from being padded to Ethernet's least length.
func synFromPod(t testing.TB) []byte {
	ip := ipv4("10.244.1.2", "10.244.2.3", layers.IPProtocolTCP, 63, 7)
	return bytesOf(t, ip, tcpSYN(ip, 40112, 80, 1000), gopacket.Payload("slipway-test"))
}

var wantSYN = IPv4{
	Src: addr("10.244.1.2"), Dst: addr("10.244.2.3"), Protocol: 6, TTL: 63, ID: 7, Length: 52,
	SrcPort: 40112, DstPort: 80, TCP: &TCP{Seq: 1000, SYN: true},
}

var comparers = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{})}

type packetCase struct {
	name string
	link LinkType
	data []byte
	want Decoded
}

func packetCases(t testing.TB) []packetCase {
	carrier := ipv4("192.168.233.30", "192.168.233.40", layers.IPProtocolUDP, 64, 9)
	outer := func(length int, dst uint16) IPv4 {
		return IPv4{Src: addr("192.168.233.30"), Dst: addr("192.168.233.40"), Protocol: 17, TTL: 64, ID: 9, Length: length, SrcPort: 50000, DstPort: dst}
	}
	ipip := ipv4("192.168.233.30", "192.168.233.40", layers.IPProtocolIPv4, 64, 9)
	frame := &Ethernet{Src: macA, Dst: macB, Type: 0x0800}
	syn := synFromPod(t)
	vx := &layers.VXLAN{ValidIDFlag: true, VNI: 1}
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 17, Seq: 3}
	tooBig := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1450}
	return []packetCase{
		{"raw TCP", LinkRaw, syn, Decoded{IP: wantSYN}},
		{"TCP in a frame", LinkEthernet, bytesOf(t, ethernet(), gopacket.Payload(syn)), Decoded{Ethernet: frame, IP: wantSYN}},
		// 20 IP + 8 UDP + 8 VXLAN + 14 Ethernet + 52
		{"VXLAN", LinkEthernet, bytesOf(t, ethernet(), carrier, udp(carrier, 50000, 8472), vx, ethernet(), gopacket.Payload(syn)),
			Decoded{Ethernet: frame, Encap: EncapVXLAN, VNI: 1, Outer: outer(102, 8472), IP: wantSYN}},
		{"VXLAN at another port", LinkEthernet, bytesOf(t, ethernet(), carrier, udp(carrier, 50000, 4789), vx, ethernet(), gopacket.Payload(syn)),
			Decoded{Ethernet: frame, Encap: EncapVXLAN, VNI: 1, Outer: outer(102, 4789), IP: wantSYN}},
		// 20 IP + 8 UDP + 52
		{"UDP", LinkEthernet, bytesOf(t, ethernet(), carrier, udp(carrier, 50000, 8285), gopacket.Payload(syn)),
			Decoded{Ethernet: frame, Encap: EncapUDP, Outer: outer(80, 8285), IP: wantSYN}},
		{"IPIP", LinkEthernet, bytesOf(t, ethernet(), ipip, gopacket.Payload(syn)),
			Decoded{Ethernet: frame, Encap: EncapIPIP, IP: wantSYN,
				Outer: IPv4{Src: addr("192.168.233.30"), Dst: addr("192.168.233.40"), Protocol: 4, TTL: 64, ID: 9, Length: 72}}},
		{"ICMP echo", LinkRaw, bytesOf(t, ipv4("10.0.0.1", "10.0.0.2", layers.IPProtocolICMPv4, 64, 1), echo, gopacket.Payload("hello")),
			Decoded{IP: IPv4{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), Protocol: 1, TTL: 64, ID: 1, Length: 33, ICMP: &ICMP{Type: 8, ID: 17, Seq: 3}}}},
		// An error need quote no more than the header and eight bytes (RFC 792).
		{"ICMP error", LinkRaw, bytesOf(t, ipv4("10.0.0.254", "10.244.1.2", layers.IPProtocolICMPv4, 64, 1), tooBig, gopacket.Payload(syn[:28])),
			Decoded{IP: IPv4{Src: addr("10.0.0.254"), Dst: addr("10.244.1.2"), Protocol: 1, TTL: 64, ID: 1, Length: 56,
				ICMP: &ICMP{Type: 3, Code: 4, MTU: 1450, Quoted: &IPv4{
					Src: addr("10.244.1.2"), Dst: addr("10.244.2.3"), Protocol: 6, TTL: 63, ID: 7, Length: 52,
					SrcPort: 40112, DstPort: 80, TCP: &TCP{Seq: 1000}}}}}},
		{"plain datagram to the tunnel's port", LinkRaw, bytesOf(t, carrier, udp(carrier, 50000, 8285), gopacket.Payload("hello")),
			Decoded{IP: outer(33, 8285)}},
	}
}

func TestDecode(t *testing.T) {
	for _, c := range packetCases(t) {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Decode(c.link, c.data, DefaultPorts), comparers); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// Every proper prefix of a packet lacks bytes that its headers announce.
func TestDecodeSaysTruncated(t *testing.T) {
	for _, c := range packetCases(t) {
		for n := range c.data {
			if got := Decode(c.link, c.data[:n], DefaultPorts); !got.Truncated {
				t.Errorf("%s cut to %d of %d bytes is not reported as truncated: %+v", c.name, n, len(c.data), got)
			}
		}
	}
}

func TestDecodeOtherProtocols(t *testing.T) {
	arp := bytesOf(t, &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: layers.EthernetTypeARP}, gopacket.Payload(make([]byte, 28)))
	got := Decode(LinkEthernet, arp, DefaultPorts)
	if got.IP.Valid() || got.Truncated || got.Ethernet.Type != 0x0806 {
		t.Errorf("ARP decoded as %+v", got)
	}
	carrier := ipv4("192.168.233.30", "192.168.233.40", layers.IPProtocolUDP, 64, 9)
	carried := Decode(LinkRaw, bytesOf(t, carrier, udp(carrier, 50000, 8472), &layers.VXLAN{ValidIDFlag: true, VNI: 5}, gopacket.Payload(arp)), DefaultPorts)
	if carried.Encap != NoEncap || carried.VNI != 0 || carried.IP.DstPort != 8472 {
		t.Errorf("ARP in VXLAN decoded as %+v", carried)
	}
}

// FuzzDecode holds the decoder to what its callers rely on: it does not panic,
// an encapsulation has two valid packets, and the packet inside reads the same
// when it is decoded alone.
func FuzzDecode(f *testing.F) {
	for _, c := range packetCases(f) {
		f.Add(c.link == LinkRaw, c.data)
		f.Add(c.link == LinkRaw, c.data[:len(c.data)/2])
	}
	f.Fuzz(func(t *testing.T, raw bool, data []byte) {
		link := LinkEthernet
		if raw {
			link = LinkRaw
		}
		d := Decode(link, data, DefaultPorts)
		_ = Describe(d.IP)
		if (d.Encap == NoEncap) == d.Outer.Valid() {
			t.Fatalf("encapsulation %q with outer packet %+v", d.Encap, d.Outer)
		}
		if d.Encap != NoEncap && !d.IP.Valid() {
			t.Fatalf("encapsulation %q of nothing", d.Encap)
		}
		if d.IP.Valid() && d.Encap == NoEncap && !raw {
			if diff := cmp.Diff(d.IP, Decode(LinkRaw, data[14:], DefaultPorts).IP, comparers); diff != "" {
				t.Fatalf("the packet reads differently without its frame (-in +out):\n%s", diff)
			}
		}
	})
}
