package observe

import (
	"fmt"

	"slipway/datapath/trace"
)

// carried adds hops where a packet went into a tunnel or came out of one: they
// rest on the events before and after.
func carried(list []*passage) []*passage {
	var out []*passage
	for i, p := range list {
		if i > 0 {
			if t := tunnelled(list[i-1], p); t != nil {
				out = append(out, t)
			}
		}
		out = append(out, p)
	}
	return out
}

// tunnelled is the hop between two passages of one namespace if the carrying
// packet is there in one only; else nil. Where another piece of memory holds
// the packet afterwards, a process carried it.
func tunnelled(a, b *passage) *passage {
	outer := b.hop.Packet.Outer
	if a.hop.Namespace != b.hop.Namespace || (a.hop.Packet.Outer == nil) == (outer == nil) {
		return nil
	}
	hop := b.hop
	hop.Rule, hop.Table, hop.Rules = "", "", nil
	hop.Stage, hop.Action, hop.Device = trace.Encap, trace.EncapAction, a.hop.Device
	if outer == nil {
		hop.Stage, hop.Action, hop.Device = trace.Decap, trace.DecapAction, b.hop.Device
		outer = a.hop.Packet.Outer
	}
	if outer.Type == string(EncapUDP) && a.last().life != b.first().life {
		hop.Stage = trace.Userspace
	}
	return &passage{hop: hop, events: []sighting{*a.last(), *b.first()}}
}

func unnamed(inode uint64) string { return fmt.Sprintf("netns:[%d]", inode) }

func lostNote(n int) string {
	return fmt.Sprintf("the kernel had no room for %d events: hops may be missing", n)
}
