package observe

import (
	"bytes"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// toService are the sightings of a connection to a service over VXLAN and what
// comes back, with times chosen.
func toService() []Event {
	start := time.Unix(1700000000, 0)
	tuple := func(src, dst string, ttl uint8, seen TCP) IPv4 {
		s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
		return IPv4{Src: s.Addr(), SrcPort: s.Port(), Dst: d.Addr(), DstPort: d.Port(), Protocol: 6, TTL: ttl, Length: 60, TCP: &seen}
	}
	in := func(from, to string, p IPv4) Decoded {
		return Decoded{Encap: EncapVXLAN, VNI: 1, IP: p, Outer: IPv4{Src: addr(from), Dst: addr(to), Protocol: 17, TTL: 64, DstPort: 8472}}
	}
	syn, synAck := TCP{SYN: true}, TCP{SYN: true, ACK: true}
	asked := tuple("10.244.1.2:40112", "10.96.0.10:8080", 64, syn)
	toPod := tuple("10.244.1.2:40112", "10.244.2.3:80", 63, syn)
	arrived := tuple("10.244.1.2:40112", "10.244.2.3:80", 62, syn)
	answer := tuple("10.244.2.3:80", "10.244.1.2:40112", 64, synAck)
	back := tuple("10.244.2.3:80", "10.244.1.2:40112", 63, synAck)
	undone := tuple("10.96.0.10:8080", "10.244.1.2:40112", 62, synAck)
	const there, here = "192.168.233.40", "192.168.233.30"
	client, node01, node02, server := Place{Label: "default/client"}, Place{Label: "node01"}, Place{Label: "node02"}, Place{Label: "default/nginx-0"}
	fabric, node03 := Place{Label: "fabric", Wire: true}, Place{Label: "node03"}
	return []Event{
		{Time: start, Place: client, Device: "eth0", Direction: Out, Packet: Decoded{IP: asked}},
		{Time: start.Add(4100), Place: node01, Device: "veth1a2b3c4d", Direction: In, OtherHost: true, Packet: Decoded{IP: asked}},
		{Time: start.Add(4100), Place: node01, Device: "cni0", Direction: In, Packet: Decoded{IP: asked}},
		{Time: start.Add(39000), Place: node01, Device: "flannel.1", Direction: Out, Packet: Decoded{IP: toPod}},
		{Time: start.Add(45500), Place: node01, Device: "eth0", Direction: Out, Packet: in(here, there, toPod)},
		{Time: start.Add(47000), Place: fabric, Device: "p-node01", Direction: In, OtherHost: true, Packet: in(here, there, toPod)},
		{Time: start.Add(49000), Place: fabric, Device: "p-node03", Direction: Out, Packet: in(here, there, toPod)},
		{Time: start.Add(50000), Place: node03, Device: "eth0", Direction: In, OtherHost: true, Packet: in(here, there, toPod)},
		{Time: start.Add(51000), Place: fabric, Device: "p-node02", Direction: Out, Packet: in(here, there, toPod)},
		{Time: start.Add(52000), Place: node02, Device: "eth0", Direction: In, Packet: in(here, there, toPod)},
		{Time: start.Add(58000), Place: node02, Device: "flannel.1", Direction: In, Packet: Decoded{IP: toPod}},
		{Time: start.Add(70000), Place: node02, Device: "cni0", Direction: Out, Packet: Decoded{IP: arrived}},
		{Time: start.Add(71000), Place: node02, Device: "veth5e6f7a8b", Direction: Out, Packet: Decoded{IP: arrived}},
		{Time: start.Add(72000), Place: server, Device: "eth0", Direction: In, Packet: Decoded{IP: arrived}},
		{Time: start.Add(90000), Place: server, Device: "eth0", Direction: Out, Packet: Decoded{IP: answer}},
		{Time: start.Add(120000), Place: node01, Device: "flannel.1", Direction: In, Packet: Decoded{IP: back}},
		{Time: start.Add(135000), Place: node01, Device: "cni0", Direction: Out, Packet: Decoded{IP: undone}},
	}
}

func TestRender(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, Path(toService()), RenderOptions{}); err != nil {
		t.Fatal(err)
	}
	want := `request: TCP SYN, 60 bytes, 14 sightings in 72.0 µs
   1  default/client   eth0          out      µs  10.244.1.2:40112 → 10.96.0.10:8080 ttl 64
   2  node01           veth1a2b3c4d  in     +4.1  …
   3  node01           cni0          in     +0.0  …
   4  node01           flannel.1     out   +34.9  10.244.1.2:40112 → 10.244.2.3:80 ttl 63 DNAT
   5  node01           eth0          out    +6.5  VXLAN vni 1 192.168.233.30 → 192.168.233.40:8472
   6  fabric           p-node01      in     +1.5  …
   7  fabric           p-node03      out    +2.0  …
   8  node03           eth0          in     +1.0  for another MAC: goes no further here
   9  fabric           p-node02      out    +1.0  …
  10  node02           eth0          in     +1.0  …
  11  node02           flannel.1     in     +6.0  10.244.1.2:40112 → 10.244.2.3:80 out of VXLAN
  12  node02           cni0          out   +12.0  ttl 62
  13  node02           veth5e6f7a8b  out    +1.0  …
  14  default/nginx-0  eth0          in     +1.0  …

reply: TCP SYN-ACK, 60 bytes, 3 sightings in 45.0 µs
  15  default/nginx-0  eth0          out      µs  10.244.2.3:80 → 10.244.1.2:40112 ttl 64
  16  node01           flannel.1     in    +30.0  ttl 63
  17  node01           cni0          out   +15.0  10.96.0.10:8080 → 10.244.1.2:40112 ttl 62
                                                  DNAT undone
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("rendered (-want +got):\n%s\n%s", diff, b.String())
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if n := utf8.RuneCountInString(line); n > 100 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}

// Colour adds to the text and changes nothing of it.
func TestRenderColour(t *testing.T) {
	var plain, coloured bytes.Buffer
	for b, colour := range map[*bytes.Buffer]bool{&plain: false, &coloured: true} {
		if err := Render(b, Path(toService()), RenderOptions{Colour: colour}); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.Contains(coloured.String(), "\x1b[33mDNAT\x1b[0m") {
		t.Error("NAT is not marked")
	}
	if diff := cmp.Diff(plain.String(), regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(coloured.String(), "")); diff != "" {
		t.Errorf("without colours (-want +got):\n%s", diff)
	}
}

func TestRenderNothing(t *testing.T) {
	var b bytes.Buffer
	if err := Render(&b, Path(nil), RenderOptions{}); err != nil || b.String() != "nothing was seen of the packet\n" {
		t.Errorf("rendered %q, %v", b.String(), err)
	}
}

// A repeat of the SYN is another packet (another IP identification), and an
// ICMP redirect is not the answer.
func TestPathIsOfOnePacket(t *testing.T) {
	events := toService()[:5]
	again := events[0]
	again.Packet.IP.ID++
	redirect := Event{Place: Place{Label: "node01"}, Packet: Decoded{IP: IPv4{Src: addr("10.244.1.1"), Dst: addr("10.244.1.2"), Protocol: 1, ICMP: &ICMP{Type: 5, Quoted: &IPv4{}}}}}
	if steps := Path(append(events, again, redirect)); len(steps) != 5 {
		t.Errorf("path of %d steps, not of the five sightings of the first SYN: %q", len(steps), lines(steps))
	}
}

// A SYN-ACK's repeats have the identification of the first, zero.
func TestPathEndsWhereAPacketIsSentAgain(t *testing.T) {
	events := toService()
	for i := range events {
		events[i].Packet.IP.ID = 0
	}
	want := lines(Path(events[:5]))
	again := events[0]
	again.Time = again.Time.Add(time.Second)
	if diff := cmp.Diff(want, lines(Path(append(slices.Clone(events[:5]), again, events[1])))); diff != "" {
		t.Errorf("with a repeat (-want +got):\n%s", diff)
	}
}
