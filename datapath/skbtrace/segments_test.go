package skbtrace_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

const udpTunnelPort = 8285

// syn is a TCP SYN without payload (RFC 791, RFC 9293 §3.1); nobody verifies it.
func syn(src, dst string, sport, dport uint16) []byte {
	p := make([]byte, 60) // ten words of TCP options, as Linux sends
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], net.ParseIP(src).To4())
	copy(p[16:], net.ParseIP(dst).To4())
	binary.BigEndian.PutUint16(p[20:], sport)
	binary.BigEndian.PutUint16(p[22:], dport)
	p[32], p[33] = 10<<4, 2
	return p
}

// The process of a UDP tunnel hands packets to the kernel together, of which
// any may be the wanted one (udp(7), UDP_SEGMENT).
func TestOneOfSeveralInADatagramIsSeen(t *testing.T) {
	testnet.Need(t, testnet.Root)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.0.2.1/24", b, "eth0", "192.0.2.2/24")
	var server, tunnel *net.UDPConn
	check(t, b.Do(func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{Port: udpTunnelPort})
		return err
	}))
	defer server.Close() //nolint:errcheck // a test's
	check(t, a.Do(func() (err error) {
		tunnel, err = net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: udpTunnelPort})
		return err
	}))
	defer tunnel.Close() //nolint:errcheck // a test's
	tr := open(t, skbtrace.Options{
		Namespaces: []*netns.NS{a, b}, Ports: skbtrace.Ports{UDP: udpTunnelPort},
		Flows: []skbtrace.Flow{flow("tcp", "10.3.0.1:40002", "10.3.1.1:80")},
	})
	strange, wanted := syn("10.3.0.1", "10.3.1.1", 40001, 80), syn("10.3.0.1", "10.3.1.1", 40002, 80)
	for _, together := range [][]byte{bytes.Join([][]byte{strange, wanted, strange}, nil), bytes.Join([][]byte{strange, strange}, nil)} {
		segment := make([]byte, unix.CmsgSpace(2))
		binary.NativeEndian.PutUint64(segment, uint64(unix.CmsgLen(2)))
		binary.NativeEndian.PutUint32(segment[8:], unix.IPPROTO_UDP)
		binary.NativeEndian.PutUint32(segment[12:], unix.UDP_SEGMENT)
		binary.NativeEndian.PutUint16(segment[16:], uint16(len(strange)))
		_, _, err := tunnel.WriteMsgUDP(together, segment, nil)
		check(t, err)
	}
	events := collect(t, tr, nil)
	seen := map[string]bool{}
	for i, n := range names(t, events, map[string]*netns.NS{"a": a, "b": b}) {
		seen[n] = true
		if inner := events[i].Data[28:]; len(inner) < len(wanted) || !bytes.Equal(inner[:len(wanted)], wanted) {
			t.Errorf("%s shows another packet: % x", n, events[i].Data)
		}
	}
	for _, where := range []string{"a output/-450", "a postrouting/450", "a queue eth0", "a xmit eth0", "b rx eth0", "b receive eth0", "b prerouting/-450"} {
		if !seen[where] {
			t.Errorf("the packet was not seen at %s, only at %v", where, seen)
		}
	}
}
