package netfilter_test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/netfilter"
	"slipway/topology"
)

// nftRules makes a table of the parts "CHAIN: RULE" and base chains
// "CHAIN type hook priority [policy]".
func nftRules(t *testing.T, sets []datapath.NFSet, base string, rules ...string) *netfilter.Rules {
	t.Helper()
	table := datapath.NFTable{Family: "ip", Name: "t", Sets: sets}
	at := map[string]int{}
	chain := func(c datapath.NFChain) {
		at[c.Name] = len(table.Chains)
		table.Chains = append(table.Chains, c)
	}
	b := datapath.NFChain{Name: "base"}
	if n, err := fmt.Sscan(base, &b.Type, &b.Hook, &b.Priority); err != nil || n != 3 {
		t.Fatal(base, err)
	}
	b.Policy = strings.TrimPrefix(strings.Fields(base + " accept")[3], "policy")
	chain(b)
	for _, r := range rules {
		name, text, _ := strings.Cut(r, ": ")
		if _, ok := at[name]; !ok {
			chain(datapath.NFChain{Name: name})
		}
		c := &table.Chains[at[name]]
		c.Rules = append(c.Rules, datapath.NFRule{Text: text})
	}
	r, err := netfilter.Parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	r.AddNFT([]datapath.NFTable{table})
	return r
}

func syn(from, to string) datapath.Packet {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return datapath.Packet{Src: src.Addr(), SPort: src.Port(), Dst: dst.Addr(), DPort: dst.Port(), Proto: "tcp", TTL: 64, Length: 60, Flags: "SYN"}
}

// said is outcomes in short: "accept 0.5 dnat to 10.0.0.1:80".
func said(list []netfilter.Outcome) string {
	var out []string
	for _, o := range list {
		s := fmt.Sprintf("%s %.4g", o.Verdict, o.Probability)
		if o.NAT != nil {
			s += " " + o.NAT.String()
		}
		if o.RejectWith != "" {
			s += " " + o.RejectWith
		}
		if o.Packet.Mark != 0 {
			s += fmt.Sprintf(" mark %#x", o.Packet.Mark)
		}
		if o.Unknown != "" {
			s += " at " + o.Unknown
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestNFTRules(t *testing.T) {
	sets := []datapath.NFSet{
		{Name: "wide", Type: "ipv4_addr", Elements: []datapath.NFElement{{Key: "10.0.0.0/8"}, {Key: "192.0.2.1-192.0.2.9"}}},
		{Name: "seen", Type: "ipv4_addr", Dynamic: true, Elements: []datapath.NFElement{{Key: "10.1.1.1"}}},
		{Name: "m", Type: "ipv4_addr . inet_proto . inet_service", Value: "verdict", Elements: []datapath.NFElement{
			{Key: "10.96.0.1 . tcp . 80", Value: "goto c"}, {Key: "10.96.0.1 . udp . 80", Value: "drop"}, {Key: "10.96.0.2 . icmp . 0", Value: "drop"},
		}},
	}
	web := syn("10.1.1.1:4000", "10.96.0.1:80")
	ping := datapath.Packet{Src: web.Src, Dst: web.Dst, Proto: "icmp", TTL: 64, Length: 84, ICMP: &datapath.ICMPInfo{Type: 8}}
	pingOther := ping
	pingOther.Dst = netip.MustParseAddr("10.96.0.2")
	const filter, nat = "filter forward 0", "nat prerouting -100"
	for name, c := range map[string]struct {
		base   string
		rules  []string
		packet datapath.Packet
		want   string
	}{
		"policy accept":         {filter, nil, web, "accept 1"},
		"policy drop":           {filter + " drop", nil, web, "drop 1"},
		"wide set":              {filter, []string{"base: ip saddr @wide reject with icmp host-prohibited"}, web, "reject 1 icmp-host-prohibited"},
		"not in a set":          {filter, []string{"base: ip daddr != { 10.0.0.0/16 , 192.0.2.1 } drop"}, web, "drop 1"},
		"state":                 {filter, []string{"base: ct state established,related accept", "base: ct state new drop"}, web, "drop 1"},
		"jump returns":          {filter, []string{"base: jump c", "base: drop", "c: tcp dport 81 accept"}, web, "drop 1"},
		"goto does not":         {filter, []string{"base: goto c", "base: drop", "c: tcp dport 81 accept"}, web, "accept 1"},
		"other protocol's port": {filter, []string{"base: udp dport != 81 drop"}, web, "accept 1"},
		"map, found":            {filter, []string{"base: ip daddr . meta l4proto . th dport vmap @m", "c: reject with tcp reset"}, web, "reject 1 tcp-reset"},
		"map, not found":        {filter, []string{"base: ip daddr . meta l4proto . th dport vmap @m", "base: drop", "c: accept"}, syn("10.1.1.1:4000", "10.96.0.1:81"), "drop 1"},
		"no ports":              {filter, []string{"base: ip daddr . meta l4proto . th dport vmap @m", "c: accept"}, ping, "accept 1"},
		"no ports, and asked":   {filter, []string{"base: ip daddr . meta l4proto . th dport vmap @m", "c: accept"}, pingOther, "unknown 1 at ip daddr . meta l4proto . th dport vmap @m"},
		"mark":                  {filter, []string{"base: mark set mark or 0x4000", "base: mark and 0x4000 != 0 mark set mark xor 0x4001 accept"}, web, "accept 1 mark 0x1"},
		"remembered client":     {nat, []string{"base: ip saddr @seen dnat to 10.0.0.9:8080"}, web, "accept 1 dnat to 10.0.0.9:8080"},
		"chance":                {nat, []string{"base: meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.0.0.1 . 80 , 1 : 10.0.0.2 . 81 }"}, web, "accept 0.5 dnat to 10.0.0.1:80; accept 0.5 dnat to 10.0.0.2:81"},
		"unequal chance": {nat, []string{"base: numgen random mod 3 vmap { 0 : goto a , 1 : goto a , 2 : drop }", "a: masquerade"}, web,
			"accept 0.3333 masquerade; accept 0.3333 masquerade; drop 0.3333"},
		"chance with a hole":     {nat, []string{"base: numgen random mod 3 vmap { 0 : drop , 1 : drop }"}, web, "unknown 1 at numgen random mod 3 vmap { 0 : drop , 1 : drop }"},
		"foreign, matched":       {filter, []string{`base: ip saddr 10.1.1.1 {"limit":{"rate":5}} drop`}, web, `unknown 1 at ip saddr 10.1.1.1 {"limit":{"rate":5}} drop`},
		"foreign, not matched":   {filter, []string{`base: ip saddr 10.1.1.2 {"limit":{"rate":5}} drop`, "base: drop"}, web, "drop 1"},
		"a chain that is gone":   {filter, []string{"base: jump nowhere"}, web, "unknown 1 at jump nowhere"},
		"of no connection":       {"filter prerouting -300", []string{"base: ct state new drop", "base: ct state invalid accept"}, web, "accept 1"},
		"translated destination": {filter, []string{"base: ct status dnat drop"}, web, "drop 1"},
	} {
		t.Run(name, func(t *testing.T) {
			hook := strings.Fields(c.base)[1]
			q := netfilter.Query{Hook: hook, Table: "ip t base", Packet: c.packet, In: "eth0", State: "NEW", DNATed: hook == "forward"}
			if got := said(nftRules(t, sets, c.base, c.rules...).Eval(q)); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Where tables and base chains are asked, in order.
func TestStops(t *testing.T) {
	r := nftRules(t, nil, "filter forward -10")
	var got []string
	for _, s := range r.Stops("forward") {
		got = append(got, s.Table)
	}
	if want := "mangle,ip t base,filter,security"; strings.Join(got, ",") != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = nftRules(t, nil, "nat output 50") // a nat chain's priority does not move it from where the kernel translates
	got = nil
	for _, s := range r.Stops("output") {
		got = append(got, s.Table)
	}
	if want := "raw,mangle,nat,ip t base,filter,security"; strings.Join(got, ",") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The planned table shares a service out equally, masquerades what comes by a
// node port, and never by chance fails to translate.
func TestPlannedTable(t *testing.T) {
	addr := netip.MustParseAddr
	s := topology.Snapshot{Nodes: []topology.NodeState{{Node: topology.Node{Name: "node01", Address: addr("192.168.1.1")}}}}
	s.Network.PodCIDR, s.Network.ServiceCIDR = netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/16")
	s.Proxy.Mode = topology.ProxyNFTables
	svc := topology.Service{Namespace: "default", Name: "web", Type: topology.NodePort, ClusterIP: addr("10.96.0.1"),
		Ports: []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: 80, NodePort: 30080}}}
	for i := range 7 {
		svc.Ports[0].Endpoints = append(svc.Ports[0].Endpoints, topology.Endpoint{Address: netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 2)}), Port: 8080, Ready: true, Serving: true})
	}
	s.Services = []topology.Service{svc}
	set, err := kubeproxy.Plan(s, "node01", kubeproxy.DefaultOptions(s))
	if err != nil {
		t.Fatal(err)
	}
	r, err := netfilter.ParseState(&datapath.NetState{NFTPlanned: []datapath.NFTable{*set.NFT}})
	if err != nil {
		t.Fatal(err)
	}
	for to, mark := range map[string]uint32{"10.96.0.1:80": 0, "192.168.1.1:30080": 0x4000} {
		q := netfilter.Query{Hook: "prerouting", Table: "ip kube-proxy nat-prerouting", Packet: syn("10.244.9.9:4000", to), In: "eth0", State: "NEW"}
		list := r.Eval(q)
		sum := 0.0
		for _, o := range list {
			sum += o.Probability
			if o.NAT == nil || o.NAT.Kind != netfilter.DNAT || o.NAT.Min.Port() != 8080 || math.Abs(o.Probability-1.0/7) > 1e-9 || o.Packet.Mark != mark {
				t.Errorf("%s: %s", to, said([]netfilter.Outcome{o}))
			}
		}
		if len(list) != 7 || math.Abs(sum-1) > 1e-9 {
			t.Errorf("%s: %d outcomes, %f in all", to, len(list), sum)
		}
	}
}
