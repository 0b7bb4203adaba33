package netfilter

import (
	"math"
	"strconv"
	"strings"
)

// Matches that look at the packet itself.

func ports(o *options) (src, dst span) {
	return o.spanOption("--sport", math.MaxUint16), o.spanOption("--dport", math.MaxUint16)
}

func udpMatch(o *options) match {
	src, dst := ports(o)
	proto := protocols[o.name]
	return func(w *way) answer {
		v := &w.view
		return is(v.proto == proto && src.match(uint32(v.sport)) && dst.match(uint32(v.dport)))
	}
}

// tcpMatch is linux net/netfilter/xt_tcpudp.c, tcp_mt.
func tcpMatch(o *options) match {
	src, dst := ports(o)
	var mask, want uint8
	var not, asked bool
	if x, ok := o.find("--tcp-flags", 2); ok {
		var ok1, ok2 bool
		mask, ok1 = tcpFlags(x.Values[0])
		want, ok2 = tcpFlags(x.Values[1])
		if not, asked = x.Not, true; !ok1 || !ok2 {
			o.fail("flags %q are not understood", x.Values)
		}
	} else if set, n := o.flag("--syn"); set {
		mask, want, not, asked = flagBits["FIN"]|flagBits["SYN"]|flagBits["RST"]|flagBits["ACK"], flagBits["SYN"], n, true
	}
	return func(w *way) answer {
		v := &w.view
		switch {
		case v.proto != protoTCP, !src.match(uint32(v.sport)), !dst.match(uint32(v.dport)):
			return answer{}
		case !asked:
			return answer{is: yes}
		case !v.hasFlags:
			return dontKnow("the packet's TCP flags are not known")
		}
		return is((v.flags&mask == want) != not)
	}
}

// icmpNames are the names that are written most (iptables extensions/libxt_icmp.h).
var icmpNames = map[string]string{
	"echo-reply": "0", "pong": "0", "destination-unreachable": "3", "network-unreachable": "3/0", "host-unreachable": "3/1",
	"protocol-unreachable": "3/2", "port-unreachable": "3/3", "fragmentation-needed": "3/4", "source-quench": "4",
	"redirect": "5", "echo-request": "8", "ping": "8", "time-exceeded": "11", "ttl-exceeded": "11",
	"ttl-zero-during-transit": "11/0", "parameter-problem": "12", "any": "255",
}

// icmpAny is the type that matches every type (linux net/netfilter/xt_tcpudp.c,
// type_code_in_range).
const icmpAny = 255

func icmpMatch(o *options) match {
	s, not, ok := o.negatable("--icmp-type")
	if !ok {
		s = "any"
	}
	if n, named := icmpNames[s]; named {
		s = n
	}
	typ, code, coded := strings.Cut(s, "/")
	wantType, codes := o.parse(typ), span{max: math.MaxUint8}
	if coded {
		codes = o.spanOf(code, math.MaxUint8)
	}
	return func(w *way) answer {
		switch m := w.view.icmp; {
		case w.view.proto != protoICMP:
			return answer{}
		case wantType == icmpAny:
			return is(!not)
		case m == nil:
			return dontKnow("the packet's ICMP type is not known")
		default:
			return is((uint32(m.Type) == wantType && codes.has(uint32(m.Code))) != not)
		}
	}
}

// multiportMatch is linux net/netfilter/xt_multiport.c.
func multiportMatch(o *options) match {
	var list string
	var not, src, dst bool
	for _, form := range []struct {
		name     string
		src, dst bool
	}{{"--sports", true, false}, {"--dports", false, true}, {"--ports", true, true}} {
		if v, n, ok := o.negatable(form.name); ok {
			list, not, src, dst = v, n, form.src, form.dst
		}
	}
	var spans []span
	for s := range strings.SplitSeq(list, ",") {
		spans = append(spans, o.spanOf(s, math.MaxUint16))
	}
	return func(w *way) answer {
		switch w.view.proto {
		case protoTCP, protoUDP, protoSCTP:
		default:
			return answer{}
		}
		for _, s := range spans {
			if src && s.has(uint32(w.view.sport)) || dst && s.has(uint32(w.view.dport)) {
				return is(!not)
			}
		}
		return is(not)
	}
}

func iprangeMatch(o *options) match {
	read := func(name string) span {
		s, not, ok := o.negatable(name)
		if !ok {
			return span{max: math.MaxUint32}
		}
		from, to, ranged := strings.Cut(s, "-")
		if !ranged {
			to = from
		}
		a, ok1 := parseIPv4(from)
		b, ok2 := parseIPv4(to)
		if !ok1 || !ok2 {
			o.fail("not addresses: %q", s)
		}
		return span{min: a, max: b, not: not}
	}
	src, dst := read("--src-range"), read("--dst-range")
	return func(w *way) answer { return is(src.match(w.view.src) && dst.match(w.view.dst)) }
}

func lengthMatch(o *options) match {
	s := o.spanOption("--length", math.MaxUint16)
	return func(w *way) answer {
		if w.view.length <= 0 {
			return dontKnow("the packet's length is not known")
		}
		return is(s.match(uint32(w.view.length)))
	}
}

func ttlMatch(o *options) match {
	s := span{max: math.MaxUint8}
	if v, not, ok := o.negatable("--ttl-eq"); ok {
		s = o.spanOf(v, math.MaxUint8)
		s.not = not
	}
	if n, ok := o.number("--ttl-lt"); ok {
		if n == 0 {
			o.fail("no TTL is less than 0")
		}
		s.max = n - 1
	}
	if n, ok := o.number("--ttl-gt"); ok {
		s.min = n + 1
	}
	return func(w *way) answer { return is(s.match(uint32(w.view.ttl))) }
}

// pkttypeMatch goes by the destination address: a frame to another machine does
// not come this far (linux net/netfilter/xt_pkttype.c).
func pkttypeMatch(o *options) match {
	want, not, _ := o.negatable("--pkt-type")
	switch want {
	case "unicast", "broadcast", "multicast":
	default:
		o.fail("packet type %q is not understood", want)
	}
	return func(w *way) answer {
		kind := "unicast"
		if address(w.view.dst).IsMulticast() {
			kind = "multicast"
		} else if t, ok := w.addrType(w.view.dst, ""); !ok {
			return dontKnow("the routing type of %s is not known", address(w.view.dst))
		} else if t == "BROADCAST" {
			kind = "broadcast"
		}
		return is((kind == want) != not)
	}
}

// statisticMatch is linux net/netfilter/xt_statistic.c.
func statisticMatch(o *options) match {
	mode, _ := o.value("--mode")
	switch mode {
	case "random":
		s, not, _ := o.negatable("--probability")
		p, err := strconv.ParseFloat(s, 64)
		if err != nil || p < 0 || p > 1 {
			o.fail("not a probability: %q", s)
		}
		const scale = 1 << 31 // the kernel's unit
		return chance(math.Round(p*scale)/scale, not, "")
	case "nth":
		s, not, _ := o.negatable("--every")
		o.value("--packet") // where it begins to count, long ago
		every := o.parse(s)
		if every == 0 {
			o.fail("every 0th packet")
			return always
		}
		return chance(1/float64(every), not, "a rule counts packets and takes one of every "+s+"; which one it takes is not known")
	default:
		o.fail("mode %q is not understood", mode)
		return always
	}
}

func chance(p float64, not bool, note string) match {
	if not {
		p = 1 - p
	}
	switch p {
	case 0:
		return func(*way) answer { return answer{} }
	case 1:
		return always
	}
	return func(*way) answer { return answer{is: maybe, chance: p, note: note} }
}
