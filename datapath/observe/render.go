package observe

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gopacket/gopacket/layers"
)

// RenderOptions of a text rendering.
type RenderOptions struct {
	Colour bool // mark changes with ANSI colours
}

// renderWidth is how many columns a rendering may take.
const renderWidth = 100

// Render writes steps for reading: a line for each sighting, which tells what
// changed since the line above it. A lone "…" says that nothing did.
func Render(w io.Writer, steps []Step, opts RenderOptions) error {
	var b strings.Builder
	if len(steps) == 0 {
		b.WriteString("nothing was seen of the packet\n")
	}
	place, device := 0, 0
	for _, s := range steps {
		place = max(place, utf8.RuneCountInString(s.Place.Label))
		device = max(device, utf8.RuneCountInString(s.Device))
	}
	place = min(place, 24)
	for i, s := range steps {
		first := i == 0 || steps[i-1].Reply != s.Reply
		if first {
			heading(&b, steps[i:], i > 0)
		}
		head := fmt.Sprintf("%4d  %-*s  %-*s  %-3s %7s  ", s.Seq, place, clip(s.Place.Label, place), device, s.Device, s.Direction, micros(s, first))
		room := renderWidth - utf8.RuneCountInString(head)
		for n, line := range wrap(s.pieces(first), room) {
			if n > 0 {
				head = strings.Repeat(" ", utf8.RuneCountInString(head))
			}
			b.WriteString(head + paint(line, opts.Colour) + "\n")
		}
	}
	_, err := io.WriteString(w, b.String())
	if err != nil {
		return fmt.Errorf("render path: %w", err)
	}
	return nil
}

// heading introduces the request or the reply that steps begin with.
func heading(b *strings.Builder, steps []Step, blank bool) {
	n := 0
	for n < len(steps) && steps[n].Reply == steps[0].Reply {
		n++
	}
	name := "request"
	if steps[0].Reply {
		name = "reply"
	}
	if blank {
		b.WriteString("\n")
	}
	took := steps[n-1].Time.Sub(steps[0].Time)
	fmt.Fprintf(b, "%s: %s, %d bytes, %d sightings in %.1f µs\n", name, Describe(steps[0].Packet.IP), steps[0].Packet.IP.Length, n, inMicros(took))
}

func inMicros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// micros is the time since the step before, which the first one has none of.
func micros(s Step, first bool) string {
	if first {
		return "µs"
	}
	return fmt.Sprintf("%+.1f", inMicros(s.Since))
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}

// piece is a part of a line that is not broken.
type piece struct {
	text   string
	colour string // ANSI SGR parameters; empty for none
}

// The colours of what a reader looks for.
const (
	colourNAT    = "33" // yellow
	colourTunnel = "36" // cyan
	colourDead   = "2"  // faint
)

// wrap puts pieces on lines of at most room columns; a longer one stands alone.
func wrap(pieces []piece, room int) [][]piece {
	var lines [][]piece
	used := 0
	for _, p := range pieces {
		width := utf8.RuneCountInString(p.text)
		if len(lines) == 0 || used+1+width > room {
			lines = append(lines, nil)
			used = -1
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], p)
		used += 1 + width
	}
	return lines
}

func paint(line []piece, colour bool) string {
	texts := make([]string, len(line))
	for i, p := range line {
		texts[i] = p.text
		if colour && p.colour != "" {
			texts[i] = "\x1b[" + p.colour + "m" + p.text + "\x1b[0m"
		}
	}
	return strings.Join(texts, " ")
}

// pieces says what a reader needs of a step: everything of the first one, and
// of the others what changed.
func (s Step) pieces(first bool) []piece {
	kinds := map[ChangeKind]bool{}
	for _, c := range s.Changes {
		kinds[c.Kind] = true
	}
	inner := s.innerPieces(first, kinds)
	var out []piece
	switch {
	case s.Packet.Encap != NoEncap && (first || kinds[Encap]):
		out = append(out, s.Packet.carrier()...)
		if len(inner) > 0 {
			out = append(out, piece{text: "["})
			out = append(out, inner...)
			out = append(out, piece{text: "]"})
		}
	case kinds[Decap]:
		out = append(out, inner...)
		out = append(out, piece{text: "out of " + tunnelNames[s.carriedBefore()], colour: colourTunnel})
	default:
		out = inner
	}
	if kinds[CarrierRouted] {
		out = append(out, piece{text: fmt.Sprintf("outer ttl %d", s.Packet.Outer.TTL)})
	}
	if s.Packet.Truncated {
		out = append(out, piece{text: "truncated", colour: colourDead})
	}
	if s.DeadEnd {
		out = append(out, piece{text: "for another MAC: goes no further here", colour: colourDead})
	}
	if len(out) == 0 {
		out = []piece{{text: "…"}}
	}
	return out
}

// innerPieces are addresses, TTL and NAT of the carried packet. Out of the
// tunnel the addresses are shown again, though they did not change.
func (s Step) innerPieces(first bool, kinds map[ChangeKind]bool) []piece {
	ip := s.Packet.IP
	var out []piece
	nat := kinds[DNAT] || kinds[SNAT] || kinds[UnDNAT] || kinds[UnSNAT]
	if first || nat || kinds[Decap] {
		out = append(out, piece{text: endpoint(ip, ip.Source()) + " → " + endpoint(ip, ip.Destination())})
	}
	if first || kinds[Routed] {
		out = append(out, piece{text: fmt.Sprintf("ttl %d", ip.TTL)})
	}
	for _, c := range []struct {
		kind ChangeKind
		text string
	}{{DNAT, "DNAT"}, {SNAT, "SNAT"}, {UnDNAT, "DNAT undone"}, {UnSNAT, "SNAT undone"}} {
		if kinds[c.kind] {
			out = append(out, piece{text: c.text, colour: colourNAT})
		}
	}
	return out
}

// tunnelNames are the encapsulations as readers know them.
var tunnelNames = map[Encapsulation]string{EncapVXLAN: "VXLAN", EncapUDP: "UDP", EncapIPIP: "IPIP"}

// carriedBefore is the encapsulation that a step took off.
func (s Step) carriedBefore() Encapsulation {
	for _, c := range s.Changes {
		if c.Kind == Decap {
			return Encapsulation(c.From)
		}
	}
	return NoEncap
}

// carrier describes the tunnel that a packet is in.
func (d Decoded) carrier() []piece {
	name, to := tunnelNames[d.Encap], d.Outer.Destination().String()
	switch d.Encap {
	case EncapVXLAN:
		name += fmt.Sprintf(" vni %d", d.VNI)
	case EncapIPIP:
		to = d.Outer.Dst.String()
	}
	return []piece{{text: name, colour: colourTunnel}, {text: d.Outer.Src.String() + " → " + to}}
}

// Describe names what a packet is: "TCP SYN", "UDP", "ICMP echo request".
func Describe(p IPv4) string {
	switch {
	case !p.Valid():
		return "not IPv4"
	case p.TCP != nil:
		return "TCP" + tcpFlags(*p.TCP)
	case p.ICMP != nil:
		return "ICMP " + describeICMP(p)
	default:
		return layers.IPProtocol(p.Protocol).String()
	}
}

func tcpFlags(t TCP) string {
	if f := t.flags("-"); f != "" {
		return " " + f
	}
	return ""
}

// flags names the flags that are set.
func (t TCP) flags(separator string) string {
	var names []string
	for _, f := range []struct {
		set  bool
		name string
	}{{t.SYN, "SYN"}, {t.FIN, "FIN"}, {t.RST, "RST"}, {t.ACK, "ACK"}} {
		if f.set {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, separator)
}

// unreachable names the codes of destination unreachable (RFC 792, RFC 1122
// §3.2.2.1, RFC 1812 §5.2.7.1).
var unreachable = map[uint8]string{
	0: "network unreachable", 1: "host unreachable", 2: "protocol unreachable", 3: "port unreachable",
	4: "fragmentation needed", 9: "network prohibited", 10: "host prohibited", 13: "administratively prohibited",
}

func describeICMP(p IPv4) string {
	m := p.ICMP
	switch m.Type {
	case layers.ICMPv4TypeEchoRequest:
		return "echo request"
	case layers.ICMPv4TypeEchoReply:
		return "echo reply"
	case layers.ICMPv4TypeTimeExceeded:
		return "time exceeded"
	case layers.ICMPv4TypeDestinationUnreachable:
		name := cmp.Or(unreachable[m.Code], fmt.Sprintf("unreachable (code %d)", m.Code))
		if m.MTU > 0 {
			name += fmt.Sprintf(", mtu %d", m.MTU)
		}
		return name
	}
	return fmt.Sprintf("type %d code %d", m.Type, m.Code)
}

// endpoint writes an address, with its port where the protocol has any.
func endpoint(p IPv4, a netip.AddrPort) string {
	if p.TCP == nil && p.SrcPort == 0 && p.DstPort == 0 {
		return a.Addr().String()
	}
	return a.String()
}
