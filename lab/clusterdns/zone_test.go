package clusterdns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"slipway/topology"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func endpoint(addr string, port int, hostname string, ready bool) topology.Endpoint {
	return topology.Endpoint{Address: ip(addr), Port: port, Hostname: hostname, Ready: ready}
}

// snapshot has one service of each kind.
func snapshot() topology.Snapshot {
	db := []topology.Endpoint{
		endpoint("10.244.1.5", 5432, "db-0", true), endpoint("10.244.2.5", 5432, "", true), endpoint("10.244.3.5", 5432, "", false),
	}
	return topology.Snapshot{
		Lab:        "demo",
		ClusterDNS: ip("10.96.0.10"),
		Pods:       []topology.Pod{{Namespace: "batch", Name: "job-1", Address: ip("10.244.1.9")}},
		Services: []topology.Service{
			{Namespace: "kube-system", Name: "kube-dns", Type: topology.ClusterIP, ClusterIP: ip("10.96.0.10"), Ports: []topology.ServicePort{
				{Name: "dns", Protocol: topology.UDPProtocol, Port: 53}, {Name: "dns-tcp", Protocol: topology.TCPProtocol, Port: 53},
			}},
			{Namespace: "default", Name: "nginx-svc", Type: topology.NodePort, ClusterIP: ip("10.96.0.20"), Ports: []topology.ServicePort{
				{Name: "http", Protocol: topology.TCPProtocol, Port: 8080, Endpoints: []topology.Endpoint{endpoint("10.244.1.2", 80, "", true), endpoint("10.244.2.2", 80, "", true)}},
				{Name: "metrics", Protocol: topology.TCPProtocol, Port: 9100, Endpoints: []topology.Endpoint{endpoint("10.244.1.2", 9100, "", true)}},
			}},
			{Namespace: "default", Name: "db", Type: topology.ClusterIP, Headless: true, Ports: []topology.ServicePort{
				{Name: "pg", Protocol: topology.TCPProtocol, Port: 5432, Endpoints: db},
			}},
			{Namespace: "default", Name: "db-all", Type: topology.ClusterIP, Headless: true, PublishNotReady: true, Ports: []topology.ServicePort{
				{Protocol: topology.TCPProtocol, Port: 5432, Endpoints: db[2:]},
			}},
			{Namespace: "default", Name: "empty", Type: topology.ClusterIP, Headless: true},
			{Namespace: "default", Name: "ext", Type: topology.ExternalName, ExternalName: "db.example.com"},
			{Namespace: "default", Name: "inner", Type: topology.ExternalName, ExternalName: "nginx-svc.default.svc.cluster.local"},
			{Namespace: "default", Name: "loop", Type: topology.ExternalName, ExternalName: "loop.default.svc.cluster.local"},
		},
	}
}

// show writes an answer as "RCODE rdata, rdata | additional", sorted, with the
// authority section's SOA as "SOA zone".
func show(m *dns.Msg) string {
	data := func(list []dns.RR) []string {
		var out []string
		for _, rr := range list {
			switch rr := rr.(type) {
			case *dns.SOA:
				out = append(out, "SOA "+rr.Hdr.Name)
			case *dns.OPT:
			default:
				out = append(out, dns.TypeToString[rr.Header().Rrtype]+strings.TrimPrefix(rr.String(), rr.Header().String()))
			}
		}
		slices.Sort(out)
		return out
	}
	s := dns.RcodeToString[m.Rcode]
	for _, part := range data(m.Answer) {
		s += " " + strings.ReplaceAll(part, "IN\t", "")
	}
	for _, part := range append(data(m.Ns), data(m.Extra)...) {
		s += " | " + part
	}
	return s
}

// The expectations are those of the Kubernetes DNS specification 1.1.0 and, where
// it leaves a choice, of CoreDNS's kubernetes plugin.
func TestAnswers(t *testing.T) {
	const (
		nodata   = "NOERROR | SOA cluster.local."
		nxdomain = "NXDOMAIN | SOA cluster.local."
	)
	z := newZone(snapshot(), 1)
	for _, c := range []struct{ name, kind, want string }{
		// §2.3: services with a cluster IP.
		{"nginx-svc.default.svc.cluster.local.", "A", "NOERROR A10.96.0.20"},
		{"NGINX-svc.Default.svc.cluster.LOCAL.", "A", "NOERROR A10.96.0.20"},
		{"nginx-svc.default.svc.cluster.local.", "AAAA", nodata},
		{"_http._tcp.nginx-svc.default.svc.cluster.local.", "SRV", "NOERROR SRV0 100 8080 nginx-svc.default.svc.cluster.local. | A10.96.0.20"},
		{"_http._tcp.nginx-svc.default.svc.cluster.local.", "A", "NOERROR A10.96.0.20"},
		{"_http._udp.nginx-svc.default.svc.cluster.local.", "SRV", nxdomain},
		{"nginx-svc.default.svc.cluster.local.", "SRV", "NOERROR SRV0 50 8080 nginx-svc.default.svc.cluster.local. SRV0 50 9100 nginx-svc.default.svc.cluster.local. | A10.96.0.20"},
		{"20.0.96.10.in-addr.arpa.", "PTR", "NOERROR PTRnginx-svc.default.svc.cluster.local."},
		{"10-244-1-2.nginx-svc.default.svc.cluster.local.", "A", "NOERROR A10.244.1.2"},
		{"2.1.244.10.in-addr.arpa.", "PTR", "NOERROR PTR10-244-1-2.nginx-svc.default.svc.cluster.local."},
		// §2.4: headless services list ready endpoints, by hostname or address.
		{"db.default.svc.cluster.local.", "A", "NOERROR A10.244.1.5 A10.244.2.5"},
		{"db-0.db.default.svc.cluster.local.", "A", "NOERROR A10.244.1.5"},
		{"10-244-2-5.db.default.svc.cluster.local.", "A", "NOERROR A10.244.2.5"},
		{"10-244-1-5.db.default.svc.cluster.local.", "A", nxdomain}, // it has a hostname
		{"_pg._tcp.db.default.svc.cluster.local.", "SRV", "NOERROR SRV0 50 5432 10-244-2-5.db.default.svc.cluster.local. SRV0 50 5432 db-0.db.default.svc.cluster.local. | A10.244.1.5 | A10.244.2.5"},
		{"5.1.244.10.in-addr.arpa.", "PTR", "NOERROR PTRdb-0.db.default.svc.cluster.local."},
		{"db-all.default.svc.cluster.local.", "A", "NOERROR A10.244.3.5"},
		{"empty.default.svc.cluster.local.", "A", nxdomain},
		// §2.5: external names.
		{"ext.default.svc.cluster.local.", "A", "NOERROR CNAMEdb.example.com."},
		{"ext.default.svc.cluster.local.", "SRV", nodata},
		{"inner.default.svc.cluster.local.", "A", "NOERROR A10.96.0.20 CNAMEnginx-svc.default.svc.cluster.local."},
		{"loop.default.svc.cluster.local.", "CNAME", "NOERROR CNAMEloop.default.svc.cluster.local."},
		// Pods, "pods insecure": any address, in any namespace that is there.
		{"10-244-1-9.batch.pod.cluster.local.", "A", "NOERROR A10.244.1.9"},
		{"10-244-1-9.nowhere.pod.cluster.local.", "A", nxdomain},
		{"not-an-address.batch.pod.cluster.local.", "A", nxdomain},
		{"x.10-244-1-9.batch.pod.cluster.local.", "A", nxdomain},
		// Names without records of their own, and the zone itself.
		{"default.svc.cluster.local.", "A", nodata},
		{"nowhere.svc.cluster.local.", "A", nxdomain},
		{"svc.cluster.local.", "A", nodata},
		{"nothere.default.svc.cluster.local.", "A", nxdomain},
		{"dns-version.cluster.local.", "TXT", `NOERROR TXT"1.1.0"`},
		{"cluster.local.", "SOA", "NOERROR SOA cluster.local."},
		{"cluster.local.", "NS", "NOERROR NSkube-dns.kube-system.svc.cluster.local. | A10.96.0.10"},
		// Everything else.
		{"9.9.9.9.in-addr.arpa.", "PTR", "NXDOMAIN | SOA in-addr.arpa."},
		{"example.com.", "A", "NXDOMAIN"},
		{"notcluster.local.", "A", "NXDOMAIN"},
		{".", "NS", "NXDOMAIN"},
	} {
		q := new(dns.Msg).SetQuestion(c.name, dns.StringToType[c.kind])
		m := z.answer(q)
		if got := show(m); got != c.want {
			t.Errorf("%s %s:\n got %s\nwant %s", c.name, c.kind, got, c.want)
		}
		if _, err := m.Pack(); err != nil {
			t.Errorf("%s %s does not pack: %v", c.name, c.kind, err)
		}
	}
}

func TestOwnerIsAsAsked(t *testing.T) {
	m := newZone(snapshot(), 1).answer(new(dns.Msg).SetQuestion("nGiNx-svc.default.svc.cluster.local.", dns.TypeA))
	if got := m.Answer[0].Header(); got.Name != "nGiNx-svc.default.svc.cluster.local." || got.Ttl != ttl || !m.Authoritative {
		t.Errorf("header %v, authoritative %v", got, m.Authoritative)
	}
}

// A client that takes the first address must not always get the same endpoint.
func TestHeadlessAnswersAreShuffled(t *testing.T) {
	z := newZone(snapshot(), 1)
	first := map[string]int{}
	for range 200 {
		m := z.answer(new(dns.Msg).SetQuestion("db.default.svc.cluster.local.", dns.TypeA))
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	if len(first) != 2 { // one alone has probability 2^-199
		t.Errorf("first addresses: %v, want both endpoints", first)
	}
}

func TestCNAMELoopEnds(t *testing.T) {
	m := newZone(snapshot(), 1).answer(new(dns.Msg).SetQuestion("loop.default.svc.cluster.local.", dns.TypeA))
	if len(m.Answer) == 0 || len(m.Answer) > maxCNAME {
		t.Errorf("%d records for a loop", len(m.Answer))
	}
}

func TestOddQuestions(t *testing.T) {
	z := newZone(snapshot(), 1)
	chaos := new(dns.Msg).SetQuestion("version.bind.", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	update := new(dns.Msg).SetUpdate("cluster.local.")
	got := []string{show(z.answer(chaos)), show(z.answer(update)), show(z.answer(new(dns.Msg)))}
	if diff := cmp.Diff([]string{"REFUSED", "NOTIMP", "REFUSED"}, got); diff != "" {
		t.Errorf("rcodes (-want +got):\n%s", diff)
	}
}

// manyEndpoints is a headless service whose answer fits no datagram.
func manyEndpoints(n int) topology.Snapshot {
	p := topology.ServicePort{Name: "http", Protocol: topology.TCPProtocol, Port: 80}
	for i := range n {
		p.Endpoints = append(p.Endpoints, endpoint(fmt.Sprintf("10.244.%d.%d", i/250, i%250+1), 80, "", true))
	}
	return topology.Snapshot{Services: []topology.Service{{Namespace: "default", Name: "big", Headless: true, Ports: []topology.ServicePort{p}}}}
}
