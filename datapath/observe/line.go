package observe

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Line says in one line, as tcpdump does, what an event's packet is: of a packet
// in a tunnel the carrying one, and in brackets the carried one.
func (e Event) Line() string {
	d := e.Packet
	if !d.IP.Valid() {
		return e.otherLine()
	}
	var out []string
	if d.Encap != NoEncap {
		for _, p := range d.carrier() {
			out = append(out, p.text)
		}
		out = append(out, fmt.Sprintf("ttl %d", d.Outer.TTL), "["+describeLine(d.IP)+"]")
	} else {
		out = append(out, describeLine(d.IP))
	}
	if d.Truncated && e.WireLength <= len(e.Data) {
		out = append(out, "truncated")
	}
	return strings.Join(out, " ")
}

func describeLine(p IPv4) string {
	what := Describe(p)
	switch {
	case p.FragmentOffset > 0:
		what += fmt.Sprintf(" fragment at %d", p.FragmentOffset)
	case p.MoreFragments:
		what += " first fragment"
	case p.ICMP != nil && !p.ICMP.IsError():
		what += fmt.Sprintf(" id %d seq %d", p.ICMP.ID, p.ICMP.Seq)
	}
	return fmt.Sprintf("%s → %s %s ttl %d, %d bytes", endpoint(p, p.Source()), endpoint(p, p.Destination()), what, p.TTL, p.Length)
}

// otherLine is the line of what is not IPv4.
func (e Event) otherLine() string {
	if e.Packet.Ethernet == nil {
		return fmt.Sprintf("not IPv4, %d bytes", e.WireLength)
	}
	if kind := layers.EthernetType(e.Packet.Ethernet.Type); kind != layers.EthernetTypeARP {
		return fmt.Sprintf("%s → %s %s, %d bytes", e.Packet.Ethernet.Src, e.Packet.Ethernet.Dst, kind, e.WireLength)
	}
	const header = 14 // IEEE 802.3
	var a layers.ARP
	if err := a.DecodeFromBytes(e.Data[header:], gopacket.NilDecodeFeedback); err != nil || len(a.SourceProtAddress) != 4 || len(a.DstProtAddress) != 4 {
		return fmt.Sprintf("ARP, %d bytes", e.WireLength)
	}
	from, to := dotted(a.SourceProtAddress), dotted(a.DstProtAddress)
	if a.Operation == layers.ARPReply {
		return fmt.Sprintf("ARP %s is at %s", from, e.Packet.Ethernet.Src)
	}
	return fmt.Sprintf("ARP who has %s? tell %s", to, from)
}

func dotted(b []byte) string {
	v := binary.BigEndian.Uint32(b)
	return fmt.Sprintf("%d.%d.%d.%d", v>>24, v>>16&255, v>>8&255, v&255)
}
