package observe

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestHeaders: an echo request in VXLAN is 14+20+8+8 bytes before the frame of the
// pod, whose own headers are 14+20+8.
func TestHeaders(t *testing.T) {
	frame, err := hex.DecodeString(strings.ReplaceAll(
		"020000000002 020000000001 0800"+ // underlay frame
			"4500 0052 0000 0000 40 11 0000 0a000001 0a000002"+ // 82 bytes, UDP
			"c000 2118 003e 0000"+ // 49152 → 8472, 62 bytes, no checksum
			"08000000 00000100"+ // VNI 1
			"0e0000000002 0e0000000001 0800"+
			"4500 0020 0001 4000 3f 01 0000 0af40002 0af40102"+ // 32 bytes, DF, ICMP
			"0800 0000 0007 0001 61626364", " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	e := Event{LinkType: LinkEthernet, Data: frame, Packet: Decode(LinkEthernet, frame, DefaultPorts)}
	want := []Header{
		{0, 14, "Ethernet", "02:00:00:00:00:01 → 02:00:00:00:00:02, type 0x0800 IPv4"},
		{14, 20, "IPv4", "10.0.0.1 → 10.0.0.2, ttl 64, protocol 17 UDP, length 82, id 0"},
		{34, 8, "UDP", "49152 → 8472, length 62, no checksum"},
		{42, 8, "VXLAN", "flags 0x08, vni 1"},
		{50, 14, "Ethernet", "0e:00:00:00:00:01 → 0e:00:00:00:00:02, type 0x0800 IPv4"},
		{64, 20, "IPv4", "10.244.0.2 → 10.244.1.2, ttl 63, protocol 1 ICMPv4, length 32, id 1, DF"},
		{84, 8, "ICMP", "EchoRequest, id 7, seq 1"},
		{92, 4, "data", "4 bytes"},
	}
	if diff := cmp.Diff(want, e.Headers()); diff != "" {
		t.Error(diff)
	}
	for n := range frame { // whatever is cut off, nothing is read beyond
		for _, h := range (Event{LinkType: LinkEthernet, Data: frame[:n], Packet: Decode(LinkEthernet, frame[:n], DefaultPorts)}).Headers() {
			if h.Offset+h.Length > n {
				t.Fatalf("of %d bytes: %+v", n, h)
			}
		}
	}
}
