package clusterdns

import (
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/miekg/dns"
)

// maxCNAME bounds how many ExternalName services may point at one another.
const maxCNAME = 8

// answer a query. It never fails: what cannot be answered is an rcode.
func (z *zone) answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	if q.Opcode != dns.OpcodeQuery {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	if len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeRefused
		return m
	}
	m.Authoritative = true
	m.Compress = true
	ask := q.Question[0]
	if !strings.HasSuffix(strings.ToLower(ask.Name), "."+Domain) && !strings.EqualFold(ask.Name, Domain) && !isReverse(ask.Name) {
		// Elsewhere a resolver would be asked; here nothing exists outside.
		m.Rcode = dns.RcodeNameError
		return m
	}
	r := z.lookup(ask.Name)
	if r == nil {
		m.Rcode = dns.RcodeNameError
		m.Ns = []dns.RR{z.soa(ask.Name)}
		return m
	}
	z.fill(m, r, ask)
	if len(m.Answer) == 0 {
		m.Ns = []dns.RR{z.soa(ask.Name)}
	}
	return m
}

func isReverse(name string) bool {
	return strings.HasSuffix(strings.ToLower(name), ".in-addr.arpa.") || strings.HasSuffix(strings.ToLower(name), ".ip6.arpa.")
}

// fill puts the records of the asked type into m.
func (z *zone) fill(m *dns.Msg, r *records, ask dns.Question) {
	if r.cname != "" {
		if ask.Qtype == dns.TypeA || ask.Qtype == dns.TypeAAAA || ask.Qtype == dns.TypeCNAME {
			z.follow(m, r, ask)
		}
		return
	}
	switch ask.Qtype {
	case dns.TypeA:
		m.Answer = addresses(ask.Name, r.a)
	case dns.TypeSRV:
		z.services(m, ask.Name, r.srv)
	case dns.TypePTR:
		for _, p := range r.ptr {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: header(ask.Name, dns.TypePTR), Ptr: p})
		}
	case dns.TypeTXT:
		if r.txt != "" {
			m.Answer = []dns.RR{&dns.TXT{Hdr: header(ask.Name, dns.TypeTXT), Txt: []string{r.txt}}}
		}
	case dns.TypeSOA:
		if strings.EqualFold(ask.Name, Domain) {
			m.Answer = []dns.RR{z.soa(ask.Name)}
		}
	case dns.TypeNS:
		if strings.EqualFold(ask.Name, Domain) {
			m.Answer = []dns.RR{&dns.NS{Hdr: header(ask.Name, dns.TypeNS), Ns: z.nameserver}}
			if ns := z.lookup(z.nameserver); ns != nil {
				m.Extra = addresses(z.nameserver, ns.a)
			}
		}
	}
}

// follow an ExternalName service: its CNAME, and what that leads to if it is a
// name of the cluster's.
func (z *zone) follow(m *dns.Msg, r *records, ask dns.Question) {
	owner := ask.Name
	for range maxCNAME {
		m.Answer = append(m.Answer, &dns.CNAME{Hdr: header(owner, dns.TypeCNAME), Target: r.cname})
		owner = r.cname
		if r = z.lookup(owner); r == nil || ask.Qtype == dns.TypeCNAME {
			return
		}
		if r.cname == "" {
			if ask.Qtype == dns.TypeA {
				m.Answer = append(m.Answer, addresses(owner, r.a)...)
			}
			return
		}
	}
}

// services adds SRV records and, once each, the addresses of their targets. The
// weight is shared out as CoreDNS does: 100 among them all, at least 1.
func (z *zone) services(m *dns.Msg, owner string, targets []target) {
	seen := map[string]bool{}
	for _, t := range targets {
		m.Answer = append(m.Answer, &dns.SRV{
			Hdr: header(owner, dns.TypeSRV), Weight: uint16(max(1, 100/len(targets))), Port: uint16(t.port), Target: t.host,
		})
		if !seen[t.host] {
			seen[t.host] = true
			m.Extra = append(m.Extra, addresses(t.host, []netip.Addr{t.addr})...)
		}
	}
}

// addresses in random order, so that clients that take the first are spread
// (CoreDNS's loadbalance plugin, which kubeadm turns on).
func addresses(owner string, list []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, i := range rand.Perm(len(list)) {
		if list[i].Is4() {
			out = append(out, &dns.A{Hdr: header(owner, dns.TypeA), A: list[i].AsSlice()})
		}
	}
	return out
}

// soa of the zone that name is in, with CoreDNS's timers. Its TTL is also how
// long a negative answer may be remembered (RFC 2308 §3).
func (z *zone) soa(name string) dns.RR {
	apex := Domain
	if isReverse(name) {
		apex = "in-addr.arpa."
		if strings.HasSuffix(strings.ToLower(name), ".ip6.arpa.") {
			apex = "ip6.arpa."
		}
	}
	return &dns.SOA{
		Hdr: header(apex, dns.TypeSOA), Ns: "ns.dns." + apex, Mbox: "hostmaster." + apex,
		Serial: z.serial, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

func header(name string, kind uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: kind, Class: dns.ClassINET, Ttl: ttl}
}
