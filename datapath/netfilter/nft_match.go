package netfilter

import (
	"slices"
	"strconv"
	"strings"

	"slipway/datapath/nft"
)

// Values of fields are compared as texts in one form: addresses and numbers in
// decimal, protocols by number, states and types in lower case.
const (
	absent    = "" // the packet has no such field, so that no rule about it matches
	anyNumber = "?"
)

// field is a packet's value of a field; why says that it is not known.
func (w *way) field(f nft.Field) (value, why string) {
	v := &w.view
	kind, _, _ := strings.Cut(f.Name, " ")
	switch f.Name {
	case "ip saddr":
		return address(v.src).String(), ""
	case "ip daddr":
		return address(v.dst).String(), ""
	case "ip protocol", "meta l4proto":
		return strconv.Itoa(int(v.proto)), ""
	case "th sport", "tcp sport", "udp sport":
		return w.portOf(kind, v.sport), ""
	case "th dport", "tcp dport", "udp dport":
		return w.portOf(kind, v.dport), ""
	case "meta iifname":
		return w.e.q.In, ""
	case "meta oifname":
		return w.e.q.Out, ""
	case "mark":
		return strconv.FormatUint(uint64(w.packet.Mark&f.Mask), 10), ""
	case "fib saddr type", "fib daddr type":
		a := v.src
		if f.Name == "fib daddr type" {
			a = v.dst
		}
		rtn, ok := w.addrType(a, "")
		if !ok {
			return absent, "the routing type of " + address(a).String() + " is not known"
		}
		return strings.ToLower(rtn), ""
	}
	return w.connField(f.Name)
}

// portOf is a port; "th" reads it of any protocol, and of one without ports
// something else that happens to stand there.
func (w *way) portOf(kind string, port uint16) string {
	has := map[uint8]string{protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp"}[w.view.proto]
	switch {
	case kind == "th" && has == "":
		return anyNumber
	case kind != "th" && kind != has:
		return absent
	}
	return strconv.Itoa(int(port))
}

func (w *way) connField(name string) (value, why string) {
	s := w.connState()
	switch {
	case s == "":
		return absent, "the state of the connection is not known"
	case name == "ct state":
		return strings.ToLower(s), ""
	case s == "INVALID" || s == "UNTRACKED":
		return absent, "" // nft_ct.c breaks off without a connection
	case name == "ct direction":
		if w.e.q.Reply {
			return "reply", ""
		}
		return "original", ""
	}
	return absent, name + " is not understood"
}

// statusBits are the bits of ct status (nftables src/ct.c, ct_status_tbl) that
// are known here.
func (w *way) statusBits() map[string]bool {
	q := w.e.q
	return map[string]bool{
		"dnat": q.DNATed, "snat": q.SNATed, "assured": q.Assured,
		"seen-reply": q.SeenReply || q.State == "ESTABLISHED", "confirmed": q.Confirmed || q.State == "ESTABLISHED",
	}
}

// nftMatch compares fields with values.
func (t *table) nftMatch(m *nft.Match) match {
	switch {
	case len(m.Fields) == 1 && m.Fields[0].Name == "ct status":
		return statusMatch(m)
	case m.Set != "":
		in, why := t.setOf(m.Set)
		return func(w *way) answer {
			if why != "" {
				return dontKnow("%s", why)
			}
			_, found, why := in.find(w, m.Fields)
			if why != "" {
				return dontKnow("%s", why)
			}
			return notFound(w, m, found)
		}
	}
	in := newSet(m.Values)
	return func(w *way) answer {
		_, found, why := in.find(w, m.Fields)
		if why != "" {
			return dontKnow("%s", why)
		}
		return notFound(w, m, found)
	}
}

// notFound answers with the match's negation. A field that the packet does not
// have matches neither way.
func notFound(w *way, m *nft.Match, found bool) answer {
	for _, f := range m.Fields {
		if v, why := w.field(f); v == absent && why == "" && f.Name != "meta iifname" && f.Name != "meta oifname" {
			return answer{}
		}
	}
	return is(found != m.Not)
}

func statusMatch(m *nft.Match) match {
	return func(w *way) answer {
		switch s := w.connState(); {
		case s == "":
			return dontKnow("the state of the connection is not known")
		case s == "INVALID" || s == "UNTRACKED":
			return answer{}
		case m.Set != "" || m.Not:
			return dontKnow("this condition of ct status is not understood")
		}
		bits := w.statusBits()
		for _, v := range m.Values {
			if _, ok := bits[v]; !ok {
				return dontKnow("ct status %s is not known", v)
			}
		}
		return is(slices.ContainsFunc(m.Values, func(v string) bool { return bits[v] }))
	}
}
