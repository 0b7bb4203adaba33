package netfilter

import (
	"encoding/json"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/topology"
)

// cluster is one of kube-proxy's golden cases with the rules that the kernel
// showed of it.
type cluster struct {
	Node     string
	Options  kubeproxy.Options
	Snapshot topology.Snapshot
	rules    *Rules
}

func clusters(t *testing.T) map[string]*cluster {
	t.Helper()
	files, err := filepath.Glob("../kubeproxy/testdata/*.save.golden")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	out := map[string]*cluster{}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".save.golden")
		data, err := os.ReadFile(strings.TrimSuffix(f, ".save.golden") + ".json")
		if err != nil {
			t.Fatal(err)
		}
		c := &cluster{}
		if err := json.Unmarshal(data, c); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if c.rules, err = Parse(map[string]string{"all": string(text)}); err != nil {
			t.Fatal(err)
		}
		out[name] = c
	}
	return out
}

// usable are the endpoints that traffic may go to: the ready ones, and if there
// are none those that still serve while they end (KEP-1669).
func (c *cluster) usable(p topology.ServicePort, local bool) []netip.AddrPort {
	pick := func(want func(e topology.Endpoint) bool) []netip.AddrPort {
		var out []netip.AddrPort
		for _, e := range p.Endpoints {
			if e.Address.Is4() && want(e) && (!local || e.Node == c.Node) {
				out = append(out, netip.AddrPortFrom(e.Address, uint16(e.Port)))
			}
		}
		return out
	}
	if ready := pick(func(e topology.Endpoint) bool { return e.Ready }); len(ready) > 0 {
		return ready
	}
	return pick(func(e topology.Endpoint) bool { return e.Serving && e.Terminating })
}

func (c *cluster) query(hook, table, src string, dst netip.AddrPort, proto topology.Protocol) Query {
	node, _ := c.Snapshot.NodeByName(c.Node)
	return Query{
		Hook: hook, Table: table, In: "veth0", State: "NEW",
		Packet: datapath.Packet{Src: netip.MustParseAddr(src), SPort: 40000, Dst: dst.Addr(), DPort: dst.Port(), Proto: strings.ToLower(string(proto)), TTL: 64, Length: 60, Flags: "SYN"},
		AddrType: func(a netip.Addr, _ string) (string, bool) {
			if a == node.Address || a.IsLoopback() {
				return "LOCAL", true
			}
			return "UNICAST", true
		},
	}
}

// checkShares demands that each endpoint gets its equal part.
func checkShares(t *testing.T, what string, out []Outcome, want []netip.AddrPort) {
	t.Helper()
	if s := sum(out); math.Abs(s-1) > 1e-9 {
		t.Errorf("%s: probabilities sum up to %v", what, s)
	}
	got := map[netip.AddrPort]float64{}
	for _, o := range out {
		switch {
		case o.Verdict != Accept:
			t.Errorf("%s: %v: %s (%s)", what, o.Verdict, o.Unknown, o.Why)
		case o.NAT == nil:
			t.Errorf("%s: not translated: %+v", what, o.Hits)
		default:
			if o.NAT.Kind != DNAT || o.NAT.Min != o.NAT.Max || o.NAT.Source {
				t.Errorf("%s: %+v", what, o.NAT)
			}
			got[o.NAT.Min] += o.Probability
		}
	}
	// kube-proxy rounds 1/n to ten digits
	for _, e := range want {
		if math.Abs(got[e]-1/float64(len(want))) > 1e-8 {
			t.Errorf("%s: %v has %v of %d equal parts", what, e, got[e], len(want))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: goes to %v, want %v", what, got, want)
	}
}

const (
	aPod     = "10.244.1.99" // nobody's endpoint
	outsider = "192.168.99.99"
	masqMark = 0x4000
)

func TestClusterIPsOfGoldenCases(t *testing.T) {
	shared, refused := 0, 0
	for name, c := range clusters(t) {
		for _, svc := range c.Snapshot.Services {
			if !svc.ClusterIP.Is4() {
				continue
			}
			for _, p := range svc.Ports {
				what := name + " " + svc.Key() + ":" + p.Name
				dst := netip.AddrPortFrom(svc.ClusterIP, uint16(p.Port))
				out := c.rules.Eval(c.query("prerouting", "nat", aPod, dst, p.Protocol))
				want := c.usable(p, svc.InternalPolicyLocal)
				if len(want) > 0 {
					checkShares(t, what, out, want)
					shared++
					continue
				}
				verdict := Reject
				if len(c.usable(p, false)) > 0 {
					verdict = Drop // elsewhere there are some
				}
				if len(out) != 1 || out[0].Verdict != Accept || out[0].NAT != nil {
					t.Errorf("%s: %+v", what, out)
				}
				out = c.rules.Eval(c.query("forward", "filter", aPod, dst, p.Protocol))
				if len(out) != 1 || out[0].Verdict != verdict {
					t.Errorf("%s without endpoints: %+v, want %v", what, out, verdict)
				}
				refused++
			}
		}
	}
	if shared < 20 || refused < 3 {
		t.Errorf("only %d services with and %d without endpoints", shared, refused)
	}
}

func TestNodePortsOfGoldenCases(t *testing.T) {
	shared := 0
	for name, c := range clusters(t) {
		node, _ := c.Snapshot.NodeByName(c.Node)
		for _, svc := range c.Snapshot.Services {
			for _, p := range svc.Ports {
				if p.NodePort == 0 {
					continue
				}
				what := name + " " + svc.Key() + ":" + p.Name + " by its node port"
				dst := netip.AddrPortFrom(node.Address, uint16(p.NodePort))
				want := c.usable(p, svc.ExternalPolicyLocal)
				out := c.rules.Eval(c.query("prerouting", "nat", outsider, dst, p.Protocol))
				if len(want) == 0 {
					if out = c.rules.Eval(c.query("input", "filter", outsider, dst, p.Protocol)); len(out) != 1 || out[0].Verdict == Accept {
						t.Errorf("%s without endpoints: %+v", what, out)
					}
					continue
				}
				checkShares(t, what, out, want)
				for _, o := range out {
					if marked := o.Packet.Mark&(1<<c.Options.MasqueradeBit) != 0; marked == svc.ExternalPolicyLocal {
						t.Errorf("%s: to be masqueraded %v with a local policy %v", what, marked, svc.ExternalPolicyLocal)
					}
				}
				shared++
			}
		}
	}
	if shared < 5 {
		t.Errorf("only %d node ports", shared)
	}
}

// A pod that comes to itself, and what comes from outside, is masqueraded.
func TestMasqueradeOfGoldenCase(t *testing.T) {
	c := clusters(t)["demo"]
	dst := netip.MustParseAddrPort("10.96.12.34:8080")
	for src, marked := range map[string]int{aPod: 0, "10.244.2.3": 1, outsider: 3} {
		out := c.rules.Eval(c.query("prerouting", "nat", src, dst, "TCP"))
		got := 0
		for _, o := range out {
			if o.Packet.Mark&masqMark == 0 {
				continue
			}
			got++
			if src == "10.244.2.3" && o.NAT.Min.Addr().String() != src {
				t.Errorf("%s to %v is marked", src, o.NAT.Min)
			}
			q := c.query("postrouting", "nat", src, o.NAT.Min, "TCP")
			q.Packet.Mark = o.Packet.Mark
			last := c.rules.Eval(q)
			if len(last) != 1 || last[0].NAT == nil || last[0].NAT.Kind != Masquerade || !last[0].NAT.RandomFully || last[0].Packet.Mark != 0 {
				t.Errorf("marked packet from %s: %+v", src, last)
			}
		}
		if got != marked {
			t.Errorf("%d of the ways from %s are marked, want %d", got, src, marked)
		}
	}
	out := c.rules.Eval(c.query("postrouting", "nat", aPod, dst, "TCP"))
	if len(out) != 1 || out[0].NAT != nil || out[0].Verdict != Accept || out[0].Deciding.Rule != "policy ACCEPT" {
		t.Errorf("unmarked packet: %+v", out)
	}
}

// A client that an endpoint has seen comes back to it, as long as it is remembered.
func TestAffinityOfGoldenCase(t *testing.T) {
	c := clusters(t)["affinity"]
	for _, svc := range c.Snapshot.Services {
		p := svc.Ports[0]
		eps := c.usable(p, svc.InternalPolicyLocal)
		if !svc.AffinityClientIP || len(eps) < 2 {
			continue
		}
		q := c.query("prerouting", "nat", aPod, netip.AddrPortFrom(svc.ClusterIP, uint16(p.Port)), p.Protocol)
		first := c.rules.Eval(q)
		checkShares(t, svc.Key(), first, eps)
		seen := first[1]
		if len(seen.Remembered) != 1 || seen.Remembered[0].Address != netip.MustParseAddr(aPod) || len(seen.Notes) != 1 {
			t.Fatalf("%s: remembers %v, notes %q", svc.Key(), seen.Remembered, seen.Notes)
		}
		age := 10 * time.Second
		q.Recent = func(list string, a netip.Addr, within time.Duration) (int, bool) {
			if slices.Contains(seen.Remembered, Remembered{list, a}) && (within == 0 || age < within) {
				return 1, true
			}
			return 0, true
		}
		again := c.rules.Eval(q)
		if len(again) != 1 || again[0].NAT.Min != seen.NAT.Min || len(again[0].Notes) != 0 {
			t.Errorf("%s: comes back to %+v, was at %v", svc.Key(), again, seen.NAT.Min)
		}
		age = 1000 * time.Hour
		checkShares(t, svc.Key()+" after a long time", c.rules.Eval(q), eps)
	}
}
