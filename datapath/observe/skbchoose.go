package observe

import (
	"net/netip"
	"slices"

	"slipway/datapath"

	"github.com/gopacket/gopacket/layers"
)

// choose picks the sightings of one packet and of its answer. A packet keeps
// its IP identification through NAT, forwarding and tunnels.
func choose(all []sighting, sent datapath.Packet) (request, reply []sighting) {
	c := &chooser{sent: sent, asked: map[conversation]bool{}}
	for _, s := range all {
		ip := s.packet.IP
		if !ip.Valid() {
			continue
		}
		switch {
		case c.isRequest(ip):
			c.asked[conversation{ip.Protocol, ip.Source(), ip.Destination()}] = true
			request = append(request, s)
		case c.isReply(ip):
			reply = append(reply, s)
		}
	}
	return firstSending(request), firstSending(reply)
}

// sent is the packet as it was sent. Where the sender's own hooks may have
// rewritten it before any device saw it, and they are not looked at, it is what
// first opens an exchange there.
func (w *World) sent(all []sighting) datapath.Packet {
	c := chooser{sent: w.Sent}
	if !w.NoHooks || slices.ContainsFunc(all, func(s sighting) bool { return c.isSent(s.packet.IP) }) {
		return w.Sent
	}
	for _, s := range all {
		ip := s.packet.IP
		if s.place.Namespace == w.Sender.Namespace && s.moves() && ip.Valid() && asks(ip) && protocolName(ip.Protocol) == w.Sent.Proto {
			return datapath.Packet{Proto: w.Sent.Proto, Src: ip.Src, Dst: ip.Dst, SPort: ip.SrcPort, DPort: ip.DstPort}
		}
	}
	return w.Sent
}

type chooser struct {
	sent  datapath.Packet
	first *IPv4 // the request as it was first seen
	back  *IPv4 // and the reply
	asked map[conversation]bool
}

// isRequest reports whether a packet is the one that was sent. The first that
// fits decides which that is.
func (c *chooser) isRequest(ip IPv4) bool {
	if c.first == nil {
		if !c.isSent(ip) {
			return false
		}
		c.first = &ip
		return true
	}
	if !samePacket(ip, *c.first) || asks(ip) != asks(*c.first) {
		return false
	}
	// A datagram that goes the other way may have the same identification.
	return ip.FragmentOffset > 0 || !c.asked[conversation{ip.Protocol, ip.Destination(), ip.Source()}] || ip.Source() == ip.Destination()
}

// asks reports whether a packet opens an exchange, as far as it says so.
func asks(ip IPv4) bool {
	switch {
	case ip.TCP != nil:
		return ip.TCP.SYN && !ip.TCP.ACK
	case ip.ICMP != nil:
		return !ip.ICMP.IsError() && ip.ICMP.Type != layers.ICMPv4TypeEchoReply
	}
	return true
}

// isSent compares with what was sent; its zero parts match everything.
func (c *chooser) isSent(ip IPv4) bool {
	s := c.sent
	address := func(want, have netip.Addr) bool { return !want.IsValid() || want == have }
	port := func(want, have uint16) bool { return want == 0 || want == have }
	switch {
	case s.Proto != "" && s.Proto != protocolName(ip.Protocol), ip.FragmentOffset > 0, !asks(ip):
		return false
	case !address(s.Src, ip.Src), !address(s.Dst, ip.Dst), !port(s.SPort, ip.SrcPort), !port(s.DPort, ip.DstPort):
		return false
	case s.ICMP != nil && ip.ICMP != nil && !port(s.ICMP.ID, ip.ICMP.ID):
		return false
	}
	return true
}

// samePacket compares what nothing on the way changes.
func samePacket(a, b IPv4) bool {
	switch {
	case a.Protocol != b.Protocol || a.ID != b.ID:
		return false
	case a.TCP != nil && b.TCP != nil:
		return a.TCP.Seq == b.TCP.Seq && *a.TCP == *b.TCP
	case a.ICMP != nil && b.ICMP != nil:
		return a.ICMP.Type == b.ICMP.Type && a.ICMP.Code == b.ICMP.Code && a.ICMP.Seq == b.ICMP.Seq
	}
	return true
}

// isReply reports whether a packet is the answer. The first that fits decides
// which that is; only an ICMP error on the way takes over.
func (c *chooser) isReply(ip IPv4) bool {
	if c.first == nil || !c.answers(ip) {
		return false
	}
	if c.back == nil {
		c.back = &ip
		return true
	}
	return samePacket(ip, *c.back)
}

func (c *chooser) answers(ip IPv4) bool {
	f := c.first
	switch {
	case ip.ICMP != nil && ip.ICMP.Type == layers.ICMPv4TypeRedirect:
		return false // advice for later packets
	case ip.ICMP != nil && ip.ICMP.Quoted != nil:
		return c.quotes(*ip.ICMP.Quoted)
	case ip.Protocol != f.Protocol:
		return false
	case f.TCP != nil:
		return ip.TCP != nil && ip.TCP.ACK && ip.TCP.Ack == f.TCP.Seq+1 && (ip.TCP.SYN || ip.TCP.RST)
	case f.ICMP != nil:
		return ip.ICMP != nil && ip.ICMP.Type == layers.ICMPv4TypeEchoReply && ip.ICMP.Seq == f.ICMP.Seq && c.reversed(ip)
	}
	return c.reversed(ip)
}

// reversed reports whether a packet goes against the request, as that was at
// any point of its way: NAT maps the two directions onto each other. What an
// answer became on its way is known by then.
func (c *chooser) reversed(ip IPv4) bool {
	if c.asked[conversation{ip.Protocol, ip.Destination(), ip.Source()}] {
		return true
	}
	return c.back != nil && samePacket(ip, *c.back)
}

// quotes reports whether a quotation is of the request: the quoted header has
// its identification, or where that is zero, its addresses at some point.
func (c *chooser) quotes(quoted IPv4) bool {
	if quoted.Protocol != c.first.Protocol || quoted.ID != c.first.ID {
		return false
	}
	return quoted.ID != 0 || c.asked[conversation{quoted.Protocol, quoted.Source(), quoted.Destination()}]
}
