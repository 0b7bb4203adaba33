package tracer

import (
	"fmt"
	"net/netip"

	"slipway/datapath/trace"
	"slipway/topology"
)

// findDuplicates looks whether a packet ended at a place that has its address
// without being the one that the cluster gave it to. Who refuses it there is
// not to blame; who answers it deceives the sender, which a note says.
func findDuplicates(t *trace.Trace, branches []trace.Branch, o *trace.Observation, s *topology.Snapshot) {
	if s == nil {
		return
	}
	for i := range branches {
		b := &branches[i]
		if b.Cause != nil && b.Cause.Reply {
			continue
		}
		if note := blameDuplicate(b.Hops, b.Cause, s); note != "" && i == 0 {
			t.Notes = append(t.Notes, note)
		}
	}
	if o != nil && (o.Cause == nil || !o.Cause.Reply) {
		blameDuplicate(o.Request, o.Cause, s) // the note is the prediction's
	}
}

// blameDuplicate makes the second owner of an address the cause of a refusal.
// Of a delivery it only says so.
func blameDuplicate(hops []trace.Hop, c *trace.Cause, s *topology.Snapshot) (note string) {
	if len(hops) == 0 || hops[len(hops)-1].Stage != trace.Deliver {
		return ""
	}
	last := hops[len(hops)-1]
	owner := ownerOf(s, last.Packet.Dst)
	if owner == "" || owner == last.Place {
		return ""
	}
	text := fmt.Sprintf("%s has the address %s, which is that of %s", last.Place, last.Packet.Dst, owner)
	if c == nil {
		return text + ": the packet was delivered to the wrong place"
	}
	if c.Reason == trace.ReasonNoListener {
		c.Reason, c.Table, c.Text = trace.ReasonDuplicate, "local", text
		c.Hint = fmt.Sprintf("ip route show table local %s on %s", last.Packet.Dst, last.Place)
	}
	return ""
}

// ownerOf is the label of the place that the cluster gave an address to; empty
// if it gave it to none.
func ownerOf(s *topology.Snapshot, a netip.Addr) string {
	for _, p := range s.Pods {
		if p.Address == a {
			return p.Key()
		}
	}
	for _, n := range s.Nodes {
		if n.Address == a || n.TunnelAddress == a {
			return n.Name
		}
	}
	return ""
}
