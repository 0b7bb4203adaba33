package observe

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Header is one header of a packet, as it stands in its bytes.
type Header struct {
	Offset int    `json:"offset"` // bytes from the frame's first
	Length int    `json:"length"` // bytes
	Name   string `json:"name"`   // "IPv4"
	Text   string `json:"text"`   // the fields that matter
}

// Headers takes a packet apart, from the outermost header to the payload. What
// cannot be read ends it.
func (e Event) Headers() []Header {
	h := &headers{data: e.Data, encap: e.Packet.Encap}
	if e.LinkType == LinkRaw {
		h.ipv4()
	} else {
		h.frame()
	}
	if rest := len(h.data) - h.at; rest > 0 {
		h.add(rest, "data", fmt.Sprintf("%d bytes", rest))
	}
	return h.out
}

// headers is a packet that is being read, and how far.
type headers struct {
	data  []byte
	at    int
	encap Encapsulation // what the first datagram holds
	out   []Header
}

func (h *headers) add(length int, name, text string) {
	h.out = append(h.out, Header{Offset: h.at, Length: length, Name: name, Text: text})
	h.at += length
}

// rest is what was not read yet, if it holds n bytes at least.
func (h *headers) rest(n int) ([]byte, bool) {
	return h.data[h.at:], len(h.data)-h.at >= n
}

func (h *headers) frame() {
	b, ok := h.rest(14) // IEEE 802.3
	if !ok {
		return
	}
	kind := layers.EthernetType(binary.BigEndian.Uint16(b[12:]))
	h.add(14, "Ethernet", fmt.Sprintf("%s → %s, type 0x%04x %s", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]), uint16(kind), kind))
	switch kind {
	case layers.EthernetTypeIPv4:
		h.ipv4()
	case layers.EthernetTypeARP:
		h.arp()
	}
}

func (h *headers) arp() {
	b, ok := h.rest(28) // RFC 826 with IPv4 over Ethernet
	if !ok {
		return
	}
	text := fmt.Sprintf("request: who has %s? tell %s (%s)", dotted(b[24:28]), dotted(b[14:18]), net.HardwareAddr(b[8:14]))
	if binary.BigEndian.Uint16(b[6:]) == layers.ARPReply {
		text = fmt.Sprintf("reply: %s is at %s", dotted(b[14:18]), net.HardwareAddr(b[8:14]))
	}
	h.add(28, "ARP", text)
}

func (h *headers) ipv4() {
	b, _ := h.rest(0)
	var ip layers.IPv4
	if err := ip.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return
	}
	// A frame may be longer than its packet (RFC 894).
	h.data = h.data[:min(len(h.data), h.at+int(ip.Length))]
	text := fmt.Sprintf("%s → %s, ttl %d, protocol %d %s, length %d, id %d", ip.SrcIP, ip.DstIP, ip.TTL, ip.Protocol, ip.Protocol, ip.Length, ip.Id)
	if ip.Flags&layers.IPv4DontFragment != 0 {
		text += ", DF"
	}
	if ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset > 0 {
		text += fmt.Sprintf(", fragment at %d", int(ip.FragOffset)*8)
	}
	h.add(len(ip.Contents), "IPv4", text)
	if ip.FragOffset > 0 {
		return
	}
	switch ip.Protocol {
	case layers.IPProtocolIPv4:
		h.ipv4()
	case layers.IPProtocolUDP:
		h.udp()
	case layers.IPProtocolTCP:
		h.tcp()
	case layers.IPProtocolICMPv4:
		h.icmp()
	}
}

func (h *headers) udp() {
	b, ok := h.rest(8) // RFC 768
	if !ok {
		return
	}
	checksum := "no checksum"
	if v := binary.BigEndian.Uint16(b[6:]); v != 0 {
		checksum = fmt.Sprintf("checksum 0x%04x", v)
	}
	h.add(8, "UDP", fmt.Sprintf("%d → %d, length %d, %s", binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:]), checksum))
	encap := h.encap
	h.encap = NoEncap // of what is inside
	switch encap {
	case EncapUDP:
		h.ipv4()
	case EncapVXLAN:
		if b, ok := h.rest(8); ok { // RFC 7348 §5: flags, reserved, VNI, reserved
			h.add(8, "VXLAN", fmt.Sprintf("flags 0x%02x, vni %d", b[0], binary.BigEndian.Uint32(b[4:])>>8))
			h.frame()
		}
	}
}

func (h *headers) tcp() {
	b, _ := h.rest(0)
	var t layers.TCP
	if err := t.DecodeFromBytes(b, gopacket.NilDecodeFeedback); err != nil {
		return
	}
	var flags []string
	for _, f := range []struct {
		set  bool
		name string
	}{{t.SYN, "SYN"}, {t.FIN, "FIN"}, {t.RST, "RST"}, {t.PSH, "PSH"}, {t.ACK, "ACK"}} {
		if f.set {
			flags = append(flags, f.name)
		}
	}
	h.add(len(t.Contents), "TCP", fmt.Sprintf("%d → %d, %s", uint16(t.SrcPort), uint16(t.DstPort), strings.Join(flags, ",")))
}

func (h *headers) icmp() {
	b, ok := h.rest(8) // RFC 792
	if !ok {
		return
	}
	kind := layers.CreateICMPv4TypeCode(b[0], b[1])
	text := kind.String()
	switch b[0] {
	case layers.ICMPv4TypeEchoRequest, layers.ICMPv4TypeEchoReply:
		text += fmt.Sprintf(", id %d, seq %d", binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:]))
	}
	h.add(8, "ICMP", text)
}
