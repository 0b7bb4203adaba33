package observe

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Encapsulation says how one IPv4 packet is carried in another.
type Encapsulation string

// The encapsulations of the datapath modes.
const (
	NoEncap    Encapsulation = ""
	EncapUDP   Encapsulation = "udp"   // the bare packet in a datagram (flannel pkg/backend/udp)
	EncapVXLAN Encapsulation = "vxlan" // a frame in VXLAN in a datagram (RFC 7348)
	EncapIPIP  Encapsulation = "ipip"  // a packet in a packet (RFC 2003)
)

// LinkType says what a device's packets begin with.
type LinkType string

// The link types of a lab's devices.
const (
	LinkEthernet LinkType = "ethernet"
	LinkRaw      LinkType = "raw" // the IP header: TUN and IPIP devices
)

// Decoded is what a captured packet says, outer to inner.
type Decoded struct {
	Ethernet *Ethernet // the outermost frame header; nil on devices without one
	Encap    Encapsulation
	VNI      uint32 // with EncapVXLAN
	Outer    IPv4   // the carrying packet; not valid with NoEncap
	IP       IPv4   // the carried, or the only, packet; not valid if it is not IPv4
	// Truncated is set where the bytes end before the headers or the lengths
	// in them say.
	Truncated bool
}

// Ethernet is a frame header.
type Ethernet struct {
	Src, Dst net.HardwareAddr
	Type     uint16 // EtherType
}

// IPv4 is a packet's header with what the transport header adds.
type IPv4 struct {
	Src, Dst         netip.Addr
	Protocol         uint8 // IANA protocol number
	TTL              uint8
	Length           int // bytes, with header
	ID               uint16
	FragmentOffset   int // bytes
	MoreFragments    bool
	DF               bool   // don't fragment
	SrcPort, DstPort uint16 // TCP, UDP and SCTP
	TCP              *TCP
	ICMP             *ICMP
}

// TCP is what identifies a segment of a handshake.
type TCP struct {
	Seq, Ack      uint32
	SYN, ACK, RST bool
	FIN           bool
}

// ICMP is an ICMP header. Quoted is set where the message is an error.
type ICMP struct {
	Type, Code uint8
	ID, Seq    uint16 // echo
	MTU        uint16 // next-hop MTU of "fragmentation needed" (RFC 1191 §4)
	Quoted     *IPv4  // the packet that the error is about, as far as it is quoted
}

// Valid reports whether there is a packet at all.
func (p IPv4) Valid() bool { return p.Src.IsValid() }

// Source is the source address with its port, zero where there are no ports.
func (p IPv4) Source() netip.AddrPort { return netip.AddrPortFrom(p.Src, p.SrcPort) }

// Destination is the destination address with its port, zero where there are no ports.
func (p IPv4) Destination() netip.AddrPort { return netip.AddrPortFrom(p.Dst, p.DstPort) }

// IsError reports whether the message is about another packet (RFC 1122 §3.2.2).
func (m ICMP) IsError() bool {
	switch m.Type {
	case layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4TypeSourceQuench, layers.ICMPv4TypeRedirect,
		layers.ICMPv4TypeTimeExceeded, layers.ICMPv4TypeParameterProblem:
		return true
	}
	return false
}

// Ports are the UDP destination ports by which encapsulated packets are known.
type Ports struct {
	UDP   uint16 // flannel's UDP backend
	VXLAN uint16
}

// DefaultPorts are flannel's (pkg/backend/udp, and the kernel's own VXLAN
// default in drivers/net/vxlan). IANA's 4789 is not what flannel uses.
var DefaultPorts = Ports{UDP: 8285, VXLAN: 8472}

// Decode reads a packet. It never fails: what cannot be read is left out, and
// Truncated says if bytes were missing.
func Decode(link LinkType, data []byte, ports Ports) Decoded {
	d := &decoder{ports: ports}
	if link == LinkRaw {
		d.packet(data)
		return d.out
	}
	payload, etherType := d.frame(data)
	if etherType == layers.EthernetTypeIPv4 {
		d.packet(payload)
	}
	return d.out
}

type decoder struct {
	ports Ports
	out   Decoded
}

// SetTruncated implements gopacket.DecodeFeedback.
func (d *decoder) SetTruncated() { d.out.Truncated = true }

var _ gopacket.DecodeFeedback = (*decoder)(nil)

// frame reads an Ethernet header by hand: gopacket's takes frames shorter than
// 14 bytes for an error without saying that they are truncated.
func (d *decoder) frame(data []byte) ([]byte, layers.EthernetType) {
	const header = 14 // IEEE 802.3: two addresses and a type
	if len(data) < header {
		d.SetTruncated()
		return nil, 0
	}
	etherType := binary.BigEndian.Uint16(data[12:])
	if d.out.Ethernet == nil {
		d.out.Ethernet = &Ethernet{Dst: net.HardwareAddr(data[:6]), Src: net.HardwareAddr(data[6:12]), Type: etherType}
	}
	return data[header:], layers.EthernetType(etherType)
}

// packet reads the outermost IPv4 packet, and the one that it carries if any.
func (d *decoder) packet(data []byte) {
	ip, payload := d.ipv4(data)
	d.out.IP = ip
	if !ip.Valid() || ip.FragmentOffset > 0 {
		return
	}
	encap, carried := d.carried(ip, payload)
	if encap == NoEncap {
		return
	}
	inner, _ := d.ipv4(carried)
	if !inner.Valid() {
		d.out.VNI = 0
		return // an ARP request, or IPv6, in VXLAN: shown as the datagram that it is
	}
	d.out.Encap, d.out.Outer, d.out.IP = encap, ip, inner
}

// carried returns the bytes of the packet inside another, if it has one.
func (d *decoder) carried(ip IPv4, payload []byte) (Encapsulation, []byte) {
	if layers.IPProtocol(ip.Protocol) == layers.IPProtocolIPv4 {
		return EncapIPIP, payload
	}
	if layers.IPProtocol(ip.Protocol) != layers.IPProtocolUDP || len(payload) < udpHeader {
		return NoEncap, nil
	}
	body := payload[udpHeader:]
	switch ip.DstPort {
	case d.ports.VXLAN:
		return d.vxlan(body)
	case d.ports.UDP:
		if len(body) > 0 && body[0]>>4 == 4 {
			return EncapUDP, body
		}
	default:
		if looksLikeVXLAN(body) {
			return d.vxlan(body) // a tunnel whose ends do not agree about the port
		}
	}
	return NoEncap, nil
}

// looksLikeVXLAN recognises VXLAN at any port: its flags and all that is
// reserved (RFC 7348 §5), and a frame with an IPv4 packet behind.
func looksLikeVXLAN(body []byte) bool {
	const header, frame = 8, 14
	return len(body) > header+frame && binary.BigEndian.Uint32(body) == 0x08000000 && body[7] == 0 &&
		binary.BigEndian.Uint16(body[header+frame-2:]) == uint16(layers.EthernetTypeIPv4) && body[header+frame]>>4 == 4
}

func (d *decoder) vxlan(body []byte) (Encapsulation, []byte) {
	var vx layers.VXLAN
	if err := vx.DecodeFromBytes(body, d); err != nil || !vx.ValidIDFlag {
		return NoEncap, nil
	}
	frame, etherType := d.frame(vx.Payload)
	if etherType != layers.EthernetTypeIPv4 {
		return NoEncap, nil
	}
	d.out.VNI = vx.VNI
	return EncapVXLAN, frame
}

const udpHeader = 8 // bytes (RFC 768)

// ipv4 reads one IPv4 header and the transport header behind it, and returns
// the packet's payload.
func (d *decoder) ipv4(data []byte) (IPv4, []byte) {
	var ip layers.IPv4
	if len(data) > 0 && data[0]>>4 != 4 {
		return IPv4{}, nil
	}
	if err := ip.DecodeFromBytes(data, d); err != nil {
		return IPv4{}, nil
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	p := IPv4{
		Src: src, Dst: dst, Protocol: uint8(ip.Protocol), TTL: ip.TTL, Length: int(ip.Length), ID: ip.Id,
		FragmentOffset: int(ip.FragOffset) * 8, MoreFragments: ip.Flags&layers.IPv4MoreFragments != 0,
		DF: ip.Flags&layers.IPv4DontFragment != 0,
	}
	if p.FragmentOffset == 0 {
		d.transport(&p, ip.Payload)
	}
	return p, ip.Payload
}

// transport reads what it can of the transport header. It reads fixed fields
// only, so that the eight bytes that an ICMP error must quote (RFC 792) do.
func (d *decoder) transport(p *IPv4, b []byte) {
	switch layers.IPProtocol(p.Protocol) {
	case layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolSCTP:
		if len(b) < 4 {
			d.SetTruncated()
			return
		}
		p.SrcPort, p.DstPort = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		switch {
		case layers.IPProtocol(p.Protocol) == layers.IPProtocolTCP:
			p.TCP = d.tcp(b)
		case len(b) < udpHeader: // SCTP's common header is longer (RFC 9260 §3.1); this much is read
			d.SetTruncated()
		}
	case layers.IPProtocolICMPv4:
		p.ICMP = d.icmp(b)
	}
}

func (d *decoder) tcp(b []byte) *TCP {
	const fixed = 20 // bytes (RFC 9293 §3.1)
	t := &TCP{}
	if len(b) >= 8 {
		t.Seq = binary.BigEndian.Uint32(b[4:])
	}
	if len(b) < fixed {
		d.SetTruncated()
		return t
	}
	t.Ack = binary.BigEndian.Uint32(b[8:])
	flags := b[13]
	t.FIN, t.SYN, t.RST, t.ACK = flags&0x01 != 0, flags&0x02 != 0, flags&0x04 != 0, flags&0x10 != 0
	return t
}

func (d *decoder) icmp(b []byte) *ICMP {
	var m layers.ICMPv4
	if err := m.DecodeFromBytes(b, d); err != nil {
		return nil
	}
	out := &ICMP{Type: m.TypeCode.Type(), Code: m.TypeCode.Code()}
	if !out.IsError() {
		out.ID, out.Seq = m.Id, m.Seq
		return out
	}
	if m.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeFragmentationNeeded) {
		out.MTU = m.Seq // the low half of the field that echo calls identifier and sequence
	}
	// A quotation is shorter than its own length says; that is not truncation.
	quote := decoder{ports: d.ports}
	if quoted, _ := quote.ipv4(m.Payload); quoted.Valid() {
		out.Quoted = &quoted
	}
	return out
}
