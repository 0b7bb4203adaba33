package netfilter

import (
	"fmt"

	"slipway/datapath/kubeproxy"
)

// kind is what a target does with the packet's way.
type kind int8

const (
	baffles kind = iota // is not understood
	decides
	jumps
	goes // like jumps, but never comes back
	returns
	passes // to the next rule
)

// target is a rule's target, ready to be done.
type target struct {
	kind    kind
	effect  string                          // in words, where it is always the same
	outcome Outcome                         // of decides: verdict and reject's answer
	chain   *chain                          // of jumps and goes
	change  func(w *way) string             // changes the packet or the connection, and says how
	nat     func(w *way) (*NAT, error)      // of decides, in table nat
	pick    func(w *way) ([]picked, string) // nftables: what is done is chosen by a map
	why     string                          // of baffles
}

// harmless: whether the rule matches makes no difference.
func (t *target) harmless() bool { return t.kind == passes && t.change == nil }

// idle are targets that let the packet pass, and change nothing that rules here
// can see: they log, count, or touch what is behind the headers.
var idle = map[string]string{
	"LOG": "log", "NFLOG": "log", "ULOG": "log", "TRACE": "trace", "AUDIT": "audit", "RATEEST": "count", "IDLETIMER": "count", "LED": "count",
	"TCPMSS": "clamp MSS", "TCPOPTSTRIP": "strip TCP options", "CLASSIFY": "classify", "CHECKSUM": "fill in the checksum",
	"TOS": "set type of service", "DSCP": "set type of service", "ECN": "clear ECN", "SECMARK": "mark for security", "CONNSECMARK": "mark for security",
	"TEE": "send a copy away",
}

func (t *table) newTarget(k kubeproxy.Target) target {
	if c := t.chains[k.Name]; c != nil && len(k.Options) == 0 {
		if k.Goto {
			return target{kind: goes, chain: c, effect: "goto " + c.name}
		}
		return target{kind: jumps, chain: c, effect: "jump " + c.name}
	}
	if effect, ok := idle[k.Name]; ok {
		return target{kind: passes, effect: effect}
	}
	o := &options{of: "target " + k.Name, list: k.Options, seen: make([]bool, len(k.Options)), name: k.Name}
	out := o.target(k)
	if err := o.finish(); err != nil {
		return target{why: err.Error()}
	}
	return out
}

func (o *options) target(k kubeproxy.Target) target {
	switch k.Name {
	case "":
		return target{kind: passes, effect: "count"}
	case "ACCEPT":
		return target{kind: decides, effect: "accept", outcome: Outcome{Verdict: Accept}}
	case "DROP":
		return target{kind: decides, effect: "drop", outcome: Outcome{Verdict: Drop}}
	case "RETURN":
		return target{kind: returns, effect: "return"}
	case "REJECT":
		with, ok := o.value("--reject-with")
		if !ok {
			with = "icmp-port-unreachable"
		}
		return target{kind: decides, effect: "reject with " + with, outcome: Outcome{Verdict: Reject, RejectWith: with}}
	case "MARK":
		return target{kind: passes, change: o.markTarget()}
	case "CONNMARK":
		return target{kind: passes, change: o.connmarkTarget()}
	case "NOTRACK":
		return target{kind: passes, change: noTrack}
	case "CT":
		if !o.plainFlag("--notrack") {
			o.fail("only --notrack is understood")
		}
		return target{kind: passes, change: noTrack}
	case "TTL":
		return target{kind: passes, change: o.ttlTarget()}
	case "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP":
		return target{kind: decides, outcome: Outcome{Verdict: Accept}, nat: o.natTarget()}
	default:
		return target{why: "target " + k.Name + " is not understood"}
	}
}

// noTrack is linux net/netfilter/xt_CT.c: what has a connection keeps it.
func noTrack(w *way) string {
	if w.e.state == "INVALID" {
		w.noTrack = true
	}
	return "do not track"
}

func hex(n uint32) string { return fmt.Sprintf("0x%x", n) }

// xmark is what the four ways to change a mark come to: the mask's bits are
// cleared, then the value's flipped (iptables extensions/libxt_MARK.c,
// mark_tg_parse, and libxt_CONNMARK.c, connmark_tg_parse).
func (o *options) xmark() (value, mask uint32, ok bool) {
	if s, ok := o.value("--set-xmark"); ok {
		value, mask, _ = o.masked(s)
		return value, mask, true
	}
	if s, ok := o.value("--set-mark"); ok {
		value, mask, masked := o.masked(s)
		if masked {
			mask |= value
		}
		return value, mask, true
	}
	if n, ok := o.number("--and-mark"); ok {
		return 0, ^n, true
	}
	if n, ok := o.number("--or-mark"); ok {
		return n, n, true
	}
	if n, ok := o.number("--xor-mark"); ok {
		return n, 0, true
	}
	return 0, 0, false
}

func (o *options) markTarget() func(w *way) string {
	value, mask, ok := o.xmark()
	if !ok {
		o.fail("which mark is not said")
	}
	return func(w *way) string {
		w.packet.Mark = w.packet.Mark&^mask ^ value
		return "mark " + hex(w.packet.Mark)
	}
}

// connmarkTarget is linux net/netfilter/xt_connmark.c, connmark_tg_shift.
func (o *options) connmarkTarget() func(w *way) string {
	save, restore := o.plainFlag("--save-mark"), o.plainFlag("--restore-mark")
	if !save && !restore {
		value, mask, ok := o.xmark()
		if !ok {
			o.fail("which mark is not said")
		}
		return onConnection(func(w *way) string {
			w.ctmark = w.ctmark&^mask ^ value
			return "connection mark " + hex(w.ctmark)
		})
	}
	nf, ct := ^uint32(0), ^uint32(0)
	if n, ok := o.number("--mask"); ok {
		nf, ct = n, n
	}
	if n, ok := o.number("--nfmask"); ok {
		nf = n
	}
	if n, ok := o.number("--ctmask"); ok {
		ct = n
	}
	if save {
		return onConnection(func(w *way) string {
			w.ctmark = w.ctmark&^ct ^ w.packet.Mark&nf
			return "connection mark " + hex(w.ctmark)
		})
	}
	return onConnection(func(w *way) string {
		w.packet.Mark = w.packet.Mark&^nf ^ w.ctmark&ct
		return "mark " + hex(w.packet.Mark)
	})
}

// onConnection does a change only where there is a connection.
func onConnection(change func(w *way) string) func(w *way) string {
	return func(w *way) string {
		if w.noTrack || !w.e.tracked() {
			return "nothing: there is no connection"
		}
		return change(w)
	}
}

// ttlTarget is linux net/netfilter/xt_HL.c, ttl_tg.
func (o *options) ttlTarget() func(w *way) string {
	set, isSet := o.number("--ttl-set")
	inc, _ := o.number("--ttl-inc")
	dec, isDec := o.number("--ttl-dec")
	return func(w *way) string {
		n := int(w.view.ttl)
		switch {
		case isSet:
			n = int(set)
		case isDec:
			n = max(n-int(dec), 0)
		default:
			n = min(n+int(inc), 255)
		}
		w.view.ttl = uint8(n)
		if !w.view.outer {
			w.packet.TTL = uint8(n)
		} else {
			outer := *w.packet.Outer
			outer.TTL = uint8(n)
			w.packet.Outer = &outer
		}
		return fmt.Sprintf("ttl %d", n)
	}
}
