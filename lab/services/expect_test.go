package services

import (
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/topology"
)

// The rules of kube-proxy's own goldens, from each kind of client. Shares and
// masquerade are what Kubernetes' documentation of traffic policies says:
// "Using Source IP", externalTrafficPolicy and internalTrafficPolicy.
func TestExpected(t *testing.T) {
	const pod, outside, self = "10.244.1.9", "192.168.233.99", "192.168.233.11"
	third := map[string]float64{"10.244.1.2:80": 1. / 3, "10.244.2.3:80": 1. / 3, "10.244.3.10:80": 1. / 3}
	kept := func(m map[string]float64) map[string]float64 { return suffix(m, " kept") }
	lost := func(m map[string]float64) map[string]float64 { return suffix(m, " lost") }
	here := map[string]float64{"10.244.1.2:80": 1}
	for _, c := range []struct {
		name, rules, from, to string
		want                  map[string]float64
	}{
		{"pod to cluster IP", "demo", pod, "10.96.12.34:8080", kept(third)},
		{"node to cluster IP", "demo", self, "10.96.12.34:8080", lost(third)},
		{"outside to node port", "demo", outside, self + ":30000", lost(third)},
		{"a pod to itself", "demo", "10.244.1.2", "10.96.12.34:8080", map[string]float64{"10.244.1.2:80 lost": 1. / 3, "10.244.2.3:80 kept": 1. / 3, "10.244.3.10:80 kept": 1. / 3}},
		{"outside to Local node port", "policies", outside, self + ":30020", kept(here)},
		{"pod to Local node port", "policies", pod, self + ":30020", kept(third)},
		{"node to its Local node port", "policies", self, self + ":30020", lost(third)},
		{"outside to Local node port without endpoint", "policies", outside, self + ":30021", map[string]float64{"dropped": 1}},
		{"pod to internal Local", "policies", pod, "10.96.3.3:80", kept(here)},
		{"pod to internal Local without endpoint", "policies", pod, "10.96.3.5:80", map[string]float64{"dropped": 1}},
		{"pod to nothing", "no-endpoints", pod, "10.96.1.1:80", map[string]float64{"refused": 1}},
		{"outside to nothing", "no-endpoints", outside, self + ":30001", map[string]float64{"refused": 1}},
		{"pod to no service", "demo", pod, "10.96.0.99:80", map[string]float64{"passed": 1}},
		{"allowed source", "load-balancers", "198.51.100.7", "192.168.233.233:80", lost(third)},
		{"other source", "load-balancers", "198.51.100.8", "192.168.233.233:80", map[string]float64{"dropped": 1}},
		{"everything masqueraded", "masquerade-all", pod, "10.96.12.34:8080", lost(third)},
	} {
		got := expectedOf(t, c.rules, c.from, c.to, c.from == self)
		near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-6 })
		if d := cmp.Diff(c.want, got, near); d != "" {
			t.Errorf("%s (-want +got)\n%s", c.name, d)
		}
	}
}

func suffix(m map[string]float64, s string) map[string]float64 {
	out := map[string]float64{}
	for k, v := range m {
		out[k+s] = v
	}
	return out
}

// expectedOf evaluates a golden's rules on a node with the address 192.168.233.11.
func expectedOf(t *testing.T, rules, from, to string, self bool) map[string]float64 {
	t.Helper()
	_, l := ruleset(t, rules)
	node := netip.MustParseAddr("192.168.233.11")
	l.State = &datapath.NetState{Routes: []datapath.FIBRoute{{Table: 255, Type: "local", Dst: netip.PrefixFrom(node, 32), Dev: "eth0"}}}
	dst := netip.MustParseAddrPort(to)
	a := &arrival{
		node: l, in: "eth0", out: func(netip.Addr) string { return "eth0" }, local: func(a netip.Addr) bool { return a == node },
		packet: datapath.Packet{Src: netip.MustParseAddr(from), Dst: dst.Addr(), SPort: anyPort, DPort: dst.Port(), Proto: "tcp", TTL: 64, Length: 60, Flags: "SYN"},
	}
	if self {
		a.in = ""
	}
	e := a.expect()
	if e.Unknown > 0 {
		t.Errorf("%s to %s: not understood: %s", from, to, e.Rule)
	}
	out := map[string]float64{}
	for _, s := range e.Shares {
		out[s.Endpoint.String()+map[bool]string{true: " lost", false: " kept"}[s.Masqueraded]] = s.Probability
	}
	for what, p := range map[string]float64{"refused": e.Refused, "dropped": e.Dropped, "passed": e.Passed} {
		if p > 0 {
			out[what] = p
		}
	}
	return out
}

func TestFind(t *testing.T) {
	s := &topology.Snapshot{Services: []topology.Service{
		{Namespace: "default", Name: "web", ClusterIP: netip.MustParseAddr("10.96.0.1"), Ports: []topology.ServicePort{
			{Name: "http", Port: 80, Protocol: topology.TCPProtocol, NodePort: 30080}, {Name: "dns", Port: 53, Protocol: topology.TCPProtocol}, {Name: "dns-udp", Port: 53, Protocol: topology.UDPProtocol},
		}},
		{Namespace: "a", Name: "api"}, {Namespace: "b", Name: "api"}, {Namespace: "b", Name: "only"},
	}}
	for name, want := range map[string]string{
		"web": "default/web 3", "web:http": "default/web 1", "web:30080": "default/web 1", "web:53": "default/web 2", "web:53/udp": "default/web 1",
		"10.96.0.1:80": "default/web 1", "only": "b/only 0", "a/api": "a/api 0", "api.b": "b/api 0", "api.b.svc": "b/api 0",
		"api": "may be any of several; there are a/api, b/api", "wep": "no service", "web:81": "no port of default/web \"81\"", "web:": "say which port of default/web",
		"10.96.0.2": "no service",
	} {
		f, err := Find(s, name)
		got := f.Service.Key() + " " + string(rune('0'+len(f.Ports)))
		var wrong *NameError
		if errors.As(err, &wrong) {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestFraction(t *testing.T) {
	for p, want := range map[float64]string{
		0: "0", 1: "1", 0.33333333349: "1/3", 0.5: "1/2", 2. / 3: "2/3", 1. / 250: "1/250", 0.41421356: "0.4142",
	} {
		if got := Fraction(p); got != want {
			t.Errorf("%g is %s, want %s", p, got, want)
		}
	}
}
