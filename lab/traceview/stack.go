package traceview

import (
	"fmt"

	"slipway/datapath"
)

// layer is one header of a packet, outermost first.
type layer struct {
	Name   string  `json:"name"`
	Outer  bool    `json:"outer"` // of the carrying packet
	Gone   bool    `json:"gone"`  // was there before this step
	New    bool    `json:"new"`   // was not
	Fields []field `json:"fields"`
}

// field of a header. Was is what it was before, if that is something else.
type field struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	Was     string `json:"was,omitempty"`
	Changed bool   `json:"changed,omitempty"`
}

// stack lists the headers of a packet as it leaves a step, with what the step
// changed in them.
func stack(before *datapath.Packet, after datapath.Packet) []layer {
	now := headers(after)
	if before == nil {
		return now
	}
	old := headers(*before)
	out := []layer{}
	for _, l := range old {
		if find(now, l.Name) == nil {
			l.Gone = true
			out = append(out, l)
		}
	}
	for _, l := range now {
		was := find(old, l.Name)
		l.New = was == nil
		for i := range l.Fields {
			f := &l.Fields[i]
			if was == nil {
				continue
			}
			for _, o := range was.Fields {
				if o.Name == f.Name && o.Value != f.Value {
					f.Was, f.Changed = o.Value, true
				}
			}
		}
		out = append(out, l)
	}
	return out
}

func find(list []layer, name string) *layer {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// headers are a packet's layers. What is not known of them is left out.
func headers(p datapath.Packet) []layer {
	out := []layer{}
	if o := p.Outer; o != nil {
		out = append(out, build("outer IP", true, "source", addr(o.Src), "destination", addr(o.Dst), "ttl", zero(number(o.TTL)), "protocol", outerProtocol(o.Type)))
		if o.Type != "ipip" {
			out = append(out, build("outer UDP", true, "source port", port(o.SPort), "destination port", port(o.DPort)))
		}
		if o.VNI != nil {
			out = append(out, build("VXLAN", true, "vni", number(*o.VNI)))
		}
	}
	df := ""
	if p.DF {
		df = "DF"
	}
	out = append(out, build("IP", false, "source", addr(p.Src), "destination", addr(p.Dst), "ttl", zero(number(p.TTL)), "protocol", p.Proto, "length", zero(number(p.Length)), "id", hex(uint32(p.ID)), "flags", df))
	switch {
	case p.ICMP != nil:
		out = append(out, build("ICMP", false, "message", icmpName(p.ICMP), "id", port(p.ICMP.ID), "sequence", port(p.ICMP.Seq)))
	case p.SPort != 0 || p.DPort != 0:
		out = append(out, build(upper(p.Proto), false, "source port", port(p.SPort), "destination port", port(p.DPort), "flags", p.Flags))
	}
	if p.Mark != 0 {
		out = append(out, build("skb (not on the wire)", false, "mark", hex(p.Mark)))
	}
	return out
}

// outerProtocol is the IP protocol of a tunnel's outer header.
func outerProtocol(tunnel string) string {
	if tunnel == "ipip" {
		return "ipip (4)"
	}
	return "udp (17)"
}

func upper(proto string) string {
	switch proto {
	case "tcp":
		return "TCP"
	case "udp":
		return "UDP"
	case "sctp":
		return "SCTP"
	}
	return fmt.Sprintf("protocol %s", orUnknown(proto))
}

func build(name string, outer bool, pairs ...string) layer {
	l := layer{Name: name, Outer: outer, Fields: []field{}}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			l.Fields = append(l.Fields, field{Name: pairs[i], Value: pairs[i+1]})
		}
	}
	return l
}
