package mesh

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
)

// udpHeader is how long UDP's header is, in bytes: ports, length and checksum, of
// two bytes each (RFC 768).
const udpHeader = 8

// watch sees what comes to a UDP port that somebody else holds, as the kernel does
// for a VXLAN device: raw sockets get a copy of what has passed the firewall (linux
// net/ipv4/ip_input.c, ip_protocol_deliver_rcu). It answers for that one.
func (s *server) watch(p Place) (io.Closer, error) {
	c, err := net.ListenIP("ip4:udp", &net.IPAddr{IP: p.Address.AsSlice()})
	if err != nil {
		return nil, err
	}
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFromIP(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil || n < udpHeader || int(binary.BigEndian.Uint16(buf[2:])) != p.Port {
				continue
			}
			if id, ok := parsePacket(buf[udpHeader:n], question, s.nonce); ok {
				s.note(id)
				_, _ = c.WriteTo(datagram(p.Port, int(binary.BigEndian.Uint16(buf)), packet(answer, s.nonce, id)), from)
			}
		}
	}()
	return c, nil
}

// datagram is a UDP datagram without a checksum, which IPv4 allows (RFC 768).
func datagram(from, to int, payload []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(from))
	b = binary.BigEndian.AppendUint16(b, uint16(to))
	b = binary.BigEndian.AppendUint16(b, uint16(udpHeader+len(payload)))
	b = binary.BigEndian.AppendUint16(b, 0)
	return append(b, payload...)
}
