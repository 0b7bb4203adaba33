package tracer

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"slipway/datapath/trace"
	"slipway/internal/plantest"
	"slipway/lab"
	"slipway/topology"
)

// testState is a lab of three nodes with services of every kind that a
// destination can name.
func testState() *lab.State {
	s := plantest.ThreeNodes(topology.FlannelVXLAN)
	s.Proxy.NodePorts = topology.PortRange{First: 30000, Last: 32767}
	for i := range s.Pods {
		if s.Pods[i].Name != "client" {
			s.Pods[i].Ports = []topology.ContainerPort{{Name: "http", Port: 80, Protocol: topology.TCPProtocol}, {Name: "dns", Port: 53, Protocol: topology.UDPProtocol}}
			s.Pods[i].Hostname, s.Pods[i].Subdomain = s.Pods[i].Name, "web"
		}
	}
	ends := func(port int) []topology.Endpoint {
		return []topology.Endpoint{{Address: s.Pods[1].Address, Port: port, Node: "node02", Pod: s.Pods[1].Key(), Ready: true}}
	}
	s.Services = []topology.Service{
		{Namespace: "default", Name: "nginx-svc", Type: topology.NodePort, ClusterIP: netip.MustParseAddr("10.96.0.20"), ExternalIPs: []netip.Addr{netip.MustParseAddr("203.0.113.7")}, Ports: []topology.ServicePort{
			{Name: "http", Protocol: topology.TCPProtocol, Port: 8080, NodePort: 30080, Endpoints: ends(80)},
			{Name: "dns", Protocol: topology.UDPProtocol, Port: 53, NodePort: 30053, Endpoints: ends(53)},
		}},
		{Namespace: "default", Name: "web", Headless: true, Ports: []topology.ServicePort{{Name: "http", Protocol: topology.TCPProtocol, Port: 80, Endpoints: ends(80)}}},
		{Namespace: "default", Name: "far", Type: topology.ExternalName, ExternalName: "example.org"},
		{Namespace: "kube-system", Name: "kube-dns", ClusterIP: netip.MustParseAddr("10.96.0.10"), Ports: []topology.ServicePort{{Name: "dns", Protocol: topology.UDPProtocol, Port: 53}}},
	}
	return &lab.State{Lab: "three", Snapshot: &s}
}

func TestDestination(t *testing.T) {
	st := testState()
	web := st.Snapshot.Pods[1].Address
	service := func(port uint16, proto string) trace.Endpoint {
		return trace.Endpoint{Service: "default/nginx-svc", Address: netip.MustParseAddr("10.96.0.20"), Port: port, Protocol: proto}
	}
	pod := trace.Endpoint{Pod: "default/web-0", Node: "node02", Address: web, Port: 80, Protocol: "tcp"}
	node := func(port uint16, proto, svc string) trace.Endpoint {
		return trace.Endpoint{Node: "node01", Address: netip.MustParseAddr("192.168.233.30"), Port: port, Protocol: proto, Service: svc}
	}
	for _, c := range []struct {
		to, proto string
		want      trace.Endpoint
	}{
		{"nginx-svc", "", service(8080, "tcp")},
		{"nginx-svc", "udp", service(53, "udp")},
		{"nginx-svc:dns", "", service(53, "udp")},
		{"svc/nginx-svc:8080", "", service(8080, "tcp")},
		{"default/nginx-svc", "", service(8080, "tcp")},
		{"nginx-svc.default", "", service(8080, "tcp")},
		{"nginx-svc.default.svc.cluster.local:8080", "", service(8080, "tcp")},
		{"10.96.0.20:8080", "", service(8080, "tcp")},
		{"nginx-svc:9999", "", service(9999, "tcp")}, // not there, which is worth a trace
		{"203.0.113.7:8080", "", trace.Endpoint{Service: "default/nginx-svc", Address: netip.MustParseAddr("203.0.113.7"), Port: 8080, Protocol: "tcp"}},
		{"kube-dns", "", trace.Endpoint{Service: "kube-system/kube-dns", Address: netip.MustParseAddr("10.96.0.10"), Port: 53, Protocol: "udp"}},
		{"web-0", "", pod},
		{"default/web-0:http", "", pod},
		{"pod/web-0:80", "", pod},
		{web.String(), "", pod},
		{"web-0.web.default.svc.cluster.local", "", trace.Endpoint{Service: "default/web", Pod: pod.Pod, Node: pod.Node, Address: web, Port: 80, Protocol: "tcp"}},
		{"web", "", trace.Endpoint{Service: "default/web", Pod: pod.Pod, Node: pod.Node, Address: web, Port: 80, Protocol: "tcp"}},
		{"web-0:53", "udp", trace.Endpoint{Pod: pod.Pod, Node: pod.Node, Address: web, Port: 53, Protocol: "udp"}},
		{"web-0", "icmp", trace.Endpoint{Pod: pod.Pod, Node: pod.Node, Address: web, Protocol: "icmp"}},
		{"client", "", trace.Endpoint{Pod: "default/client", Node: "node01", Address: st.Snapshot.Pods[0].Address, Protocol: "icmp"}},
		{"node01", "", node(0, "icmp", "")},
		{"node01:30080", "", node(30080, "tcp", "default/nginx-svc")},
		{"node01:30053", "", node(30053, "udp", "default/nginx-svc")},
		{"node01:22", "", node(22, "tcp", "")},
		{"198.51.100.1", "", trace.Endpoint{Address: netip.MustParseAddr("198.51.100.1"), Protocol: "icmp"}},
	} {
		t.Run(c.to+" "+c.proto, func(t *testing.T) {
			got, err := destination(st, c.to, c.proto)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(trace.Endpoint{}, "Name"), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDestinationRefused(t *testing.T) {
	st := testState()
	for _, c := range []struct{ to, proto, says string }{
		{"nobody", "", `no node or pod "nobody"`},
		{"svc/nobody", "", "no such service"},
		{"nginx-svc:", "", "the port after the colon is missing"},
		{":80", "", "there is no destination"},
		{"web-0:70000", "", "a port is 1 to 65535"},
		{"web-0:ssh", "", "no port of that name"},
		{"nginx-svc:ssh", "", "only 8080/tcp, 53/udp"},
		{"nginx-svc", "sctp", "has no sctp port"},
		{"node01", "tcp", "tcp needs a port"},
		{"node01:80", "icmp", "ICMP has no ports"},
		{"far", "", "DNS answers with example.org"},
		{"fabric", "", "only switches frames"},
		{"2001:db8::1", "", "IPv6 is not traced"},
	} {
		t.Run(c.to, func(t *testing.T) {
			_, err := destination(st, c.to, c.proto)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
	var name *NameError
	if _, _, err := source(st, "fabric"); !errors.As(err, &name) {
		t.Errorf("fabric as a source: %v", err)
	}
}
