package netfilter

import (
	"fmt"

	"slipway/datapath/kubeproxy"
)

// truth is whether something matches.
type truth int8

const (
	no truth = iota
	yes
	maybe   // chance decides
	unknown // it is not known
)

// answer is what a match says of a packet.
type answer struct {
	is       truth
	chance   float64      // of maybe
	why      string       // of unknown
	note     string       // an assumption
	remember []Remembered // entries that xt_recent makes
}

// match asks one "-m NAME …".
type match func(w *way) answer

func is(ok bool) answer {
	if ok {
		return answer{is: yes}
	}
	return answer{}
}

func dontKnow(format string, args ...any) answer {
	return answer{is: unknown, why: fmt.Sprintf(format, args...)}
}

// matches asks the rest of the header and all matches of the rule. What is known
// not to match decides, whatever else is unknown.
func (w *way) matches(b *body) answer {
	if b.broken != "" {
		return dontKnow("%s", b.broken)
	}
	if !b.head.match(&w.view, w.e.q.In, w.e.q.Out) {
		return answer{}
	}
	all := answer{is: yes, chance: 1}
	for _, m := range b.matches {
		a := m(w)
		if a.note != "" && all.is != unknown {
			if all.note = a.note; a.is != maybe {
				w.note(a.note)
			}
		}
		if all.is == yes {
			w.remembered = append(w.remembered, a.remember...)
		} else {
			all.remember = append(all.remember, a.remember...)
		}
		switch {
		case a.is == no:
			return answer{}
		case a.is == unknown && all.is != unknown:
			all.is, all.why = unknown, a.why
		case a.is == maybe && all.is != unknown:
			all.is = maybe
			all.chance *= a.chance
		}
	}
	return all
}

// matchers make matches from their options.
var matchers = map[string]func(o *options) match{
	"comment":   func(o *options) match { o.value("--comment"); return always },
	"nfacct":    func(o *options) match { o.value("--nfacct-name"); return always },
	"tcp":       tcpMatch,
	"udp":       udpMatch,
	"sctp":      udpMatch,
	"icmp":      icmpMatch,
	"multiport": multiportMatch,
	"mark":      markMatch,
	"connmark":  connmarkMatch,
	"conntrack": conntrackMatch,
	"state":     stateMatch,
	"addrtype":  addrtypeMatch,
	"statistic": statisticMatch,
	"recent":    recentMatch,
	"physdev":   physdevMatch,
	"pkttype":   pkttypeMatch,
	"set":       setMatch,
	"iprange":   iprangeMatch,
	"length":    lengthMatch,
	"ttl":       ttlMatch,
}

func always(*way) answer { return answer{is: yes} }

// unseen says why matches that are known by name cannot be evaluated.
var unseen = map[string]string{
	"limit":     "how much of the limit is used up is not known",
	"hashlimit": "how much of the limit is used up is not known",
	"rpfilter":  "the route back is not looked up",
	"owner":     "the socket's owner is not known",
	"cgroup":    "the socket's control group is not known",
	"socket":    "the sockets are not known",
	"u32":       "the packet's bytes are not known",
	"bpf":       "the packet's bytes are not known",
	"string":    "the packet's bytes are not known",
	"quota":     "how much of the quota is used up is not known",
	"connbytes": "what the connection has carried is not known",
	"connlimit": "how many connections there are is not known",
	"time":      "the time is not known",
	"mac":       "the frame's addresses are not known",
	"tos":       "the packet's type of service is not known",
	"dscp":      "the packet's type of service is not known",
	"ecn":       "the packet's type of service is not known",
}

func newMatch(m kubeproxy.Match) match {
	build, ok := matchers[m.Name]
	if !ok {
		why := unseen[m.Name]
		if why == "" {
			why = "match " + m.Name + " is not understood"
		}
		return func(*way) answer { return dontKnow("%s", why) }
	}
	o := &options{of: "match " + m.Name, list: m.Options, seen: make([]bool, len(m.Options)), name: m.Name}
	test := build(o)
	if err := o.finish(); err != nil {
		why := err.Error()
		return func(*way) answer { return dontKnow("%s", why) }
	}
	return test
}
