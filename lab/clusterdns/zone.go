package clusterdns

import (
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"slipway/topology"
)

// Domain is the cluster's zone.
const Domain = "cluster.local."

const (
	// ttl of all answers in seconds, as in kubeadm's configuration of CoreDNS.
	ttl = 30
	// schemaVersion is what dns-version.cluster.local says.
	schemaVersion = "1.1.0"
)

// zone is everything that one snapshot makes known, by lower-case name. A name
// with no records of the asked type is still a name: that is the difference
// between an empty answer and NXDOMAIN.
type zone struct {
	serial     uint32
	names      map[string]*records
	namespaces map[string]bool
	nameserver string // the DNS service's own name
}

// records of one name. Their owner is filled in when they are sent.
type records struct {
	a     []netip.Addr
	srv   []target
	ptr   []string
	cname string
	txt   string
}

// target of an SRV record, with the address that is sent along.
type target struct {
	host string
	port int
	addr netip.Addr
}

func newZone(s topology.Snapshot, serial uint32) *zone {
	z := &zone{serial: serial, names: map[string]*records{}, namespaces: map[string]bool{}}
	z.at(Domain)
	z.at("svc." + Domain)
	z.at("pod." + Domain)
	z.at("dns-version." + Domain).txt = schemaVersion
	z.nameserver = "ns.dns." + Domain
	for _, p := range s.Pods {
		z.namespace(p.Namespace)
	}
	for _, svc := range s.Services {
		z.namespace(svc.Namespace)
		z.service(svc)
		if svc.ClusterIP.IsValid() && svc.ClusterIP == s.ClusterDNS {
			z.nameserver = serviceName(svc)
		}
	}
	// Only now is it known which addresses are services' own: their name alone
	// is what the reverse of such an address is.
	for _, svc := range s.Services {
		z.endpointPTRs(svc)
	}
	if s.ClusterDNS.IsValid() {
		z.at(z.nameserver).a = []netip.Addr{s.ClusterDNS}
	}
	return z
}

func (z *zone) at(name string) *records {
	name = strings.ToLower(name)
	r := z.names[name]
	if r == nil {
		r = &records{}
		z.names[name] = r
	}
	return r
}

func (z *zone) namespace(ns string) {
	if !z.namespaces[ns] {
		z.namespaces[ns] = true
		z.at(ns + ".svc." + Domain)
		z.at(ns + ".pod." + Domain)
	}
}

func serviceName(s topology.Service) string { return s.Name + "." + s.Namespace + ".svc." + Domain }

func (z *zone) service(s topology.Service) {
	name := serviceName(s)
	switch {
	case s.Type == topology.ExternalName:
		z.at(name).cname = dns.Fqdn(s.ExternalName)
		return
	case s.ClusterIP.IsValid():
		z.at(name).a = []netip.Addr{s.ClusterIP}
		z.at(reverseName(s.ClusterIP)).ptr = []string{name}
		for _, p := range s.Ports {
			z.addPort(name, p, target{host: name, port: p.Port, addr: s.ClusterIP})
		}
	}
	for _, p := range s.Ports {
		for _, e := range p.Endpoints {
			if !published(s, e) {
				continue
			}
			t := target{host: endpointName(e) + "." + name, port: e.Port, addr: e.Address}
			addAddr(z.at(t.host), e.Address)
			z.at(t.host).srv = append(z.at(t.host).srv, t)
			if !s.ClusterIP.IsValid() {
				addAddr(z.at(name), e.Address)
				z.addPort(name, p, t)
			}
		}
	}
}

// addPort makes a target known under the service's own name, which lists all
// ports, and under _port._protocol, where the port has a name. CoreDNS answers
// address queries for the latter, too.
func (z *zone) addPort(service string, p topology.ServicePort, t target) {
	z.at(service).srv = append(z.at(service).srv, t)
	if p.Name == "" {
		return
	}
	proto := "_" + string(p.Protocol) + "." + service
	z.at(proto)
	r := z.at("_" + p.Name + "." + proto)
	r.srv = append(r.srv, t)
	addAddr(r, t.addr)
}

func addAddr(r *records, a netip.Addr) {
	for _, have := range r.a {
		if have == a {
			return
		}
	}
	r.a = append(r.a, a)
}

// published: DNS lists endpoints that are ready, or all where the service says
// publishNotReadyAddresses.
func published(s topology.Service, e topology.Endpoint) bool { return e.Ready || s.PublishNotReady }

// endpointName is the endpoint's label below its service: the pod's hostname if
// it has one, else its address with dashes.
func endpointName(e topology.Endpoint) string {
	if e.Hostname != "" {
		return e.Hostname
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(e.Address.String())
}

func (z *zone) endpointPTRs(s topology.Service) {
	if s.Type == topology.ExternalName {
		return
	}
	seen := map[netip.Addr]bool{}
	for _, p := range s.Ports {
		for _, e := range p.Endpoints {
			if !published(s, e) || seen[e.Address] {
				continue
			}
			seen[e.Address] = true
			if r := z.at(reverseName(e.Address)); len(r.ptr) == 0 || !z.isService(r.ptr[0]) {
				r.ptr = append(r.ptr, endpointName(e)+"."+serviceName(s))
			}
		}
	}
}

// isService reports whether a name is of the form service.namespace.svc.Domain.
func (z *zone) isService(name string) bool {
	return dns.CountLabel(name) == dns.CountLabel(Domain)+3
}

func reverseName(a netip.Addr) string {
	name, _ := dns.ReverseAddr(a.String()) // fails only for what is no address
	return name
}

// lookup returns a name's records, nil if there is no such name. Pods' names
// are computed: whatever address a.b.c.d is, a-b-c-d.NAMESPACE.pod is its name.
func (z *zone) lookup(name string) *records {
	name = strings.ToLower(name)
	if r := z.names[name]; r != nil {
		return r
	}
	rest, ok := strings.CutSuffix(name, ".pod."+Domain)
	if !ok {
		return nil
	}
	label, ns, ok := strings.Cut(rest, ".")
	if !ok || !z.namespaces[ns] {
		return nil
	}
	a, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
	if err != nil {
		return nil
	}
	return &records{a: []netip.Addr{a}}
}
