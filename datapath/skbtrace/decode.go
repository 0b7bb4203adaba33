package skbtrace

import (
	"bytes"
	"fmt"
	"strings"
	"unsafe"
)

// packetTypes are named by PACKET_HOST and on (include/uapi/linux/if_packet.h).
var packetTypes = [...]string{"host", "broadcast", "multicast", "otherhost", "outgoing"}

// decode reads an event as the programs wrote it.
func decode(raw []byte) (Event, error) {
	if len(raw) < int(unsafe.Sizeof(skbtraceEvent{})) {
		return Event{}, fmt.Errorf("an event of %d bytes is too short", len(raw))
	}
	r := (*skbtraceEvent)(unsafe.Pointer(&raw[0])) // the kernel aligns samples at 8 bytes
	e := Event{
		TimeNs: int64(r.Time), Skb: r.Skb, CPU: int(r.Cpu), Point: Point(r.Point),
		Inode: r.Inode, Device: text(r.Device[:]), Index: int(r.Index),
		ICMPType: r.IcmpType, ICMPCode: r.IcmpCode,
		Length: int(r.Length), Mark: r.Mark,
		Data: bytes.Clone(r.Data[:min(int(r.Captured), SnapLen)]),
	}
	if int(r.PacketType) < len(packetTypes) {
		e.PacketType = packetTypes[r.PacketType]
	}
	if r.Ethernet != 0 {
		e.DstMAC, e.SrcMAC = [6]byte(r.Mac[:6]), [6]byte(r.Mac[6:12])
	}
	switch e.Point {
	case Hook:
		e.Hook, e.Priority = hooks[r.Hook], priorities[r.Slot]
		e.In, e.Out = text(r.In[:]), text(r.Out[:])
	case Free:
		e.Reason, e.Location = reasonName(r.Reason), function(text(r.Symbol[:]))
	case Consume:
		e.Location = function(text(r.Symbol[:]))
	}
	return e, nil
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// function leaves out what compilers add to a symbol (".isra.0") and what the
// kernel adds (" [module]"). An address without a symbol is left out whole.
func function(symbol string) string {
	if strings.HasPrefix(symbol, "0x") {
		return ""
	}
	if i := strings.IndexAny(symbol, ". "); i > 0 {
		return symbol[:i]
	}
	return symbol
}
