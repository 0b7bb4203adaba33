package netfilter

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// rules reads a table's rules; three chains of its own are declared.
func rules(t testing.TB, table, text string) *Rules {
	t.Helper()
	r, err := Parse(map[string]string{table: "*" + table + "\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n" + text + "COMMIT\n"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func syn(src, dst string) datapath.Packet {
	s, d := netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst)
	return datapath.Packet{Src: s.Addr(), Dst: d.Addr(), SPort: s.Port(), DPort: d.Port(), Proto: "tcp", TTL: 64, Length: 60, Flags: "SYN"}
}

func forwarded() Query {
	return Query{Hook: "forward", Table: "filter", Packet: syn("10.0.0.1:1000", "10.0.0.2:80"), In: "eth0", Out: "eth1", State: "NEW"}
}

func sum(out []Outcome) float64 {
	s := 0.0
	for _, o := range out {
		s += o.Probability
	}
	return s
}

func effects(o Outcome) []string {
	var out []string
	for _, h := range o.Hits {
		out = append(out, fmt.Sprintf("%s %d %s", h.Chain, h.Number, h.Effect))
	}
	return out
}

func TestJumpsGotosAndReturns(t *testing.T) {
	r := rules(t, "filter", `-A FORWARD -j A
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A A -g B
-A A -j ACCEPT
-A B -j C
-A B -m mark --mark 0x1 -j RETURN
-A B -j DROP
-A C -j MARK --set-xmark 0x1/0xff
-A C -j RETURN
-A C -j DROP
`)
	out := r.Eval(forwarded())
	if len(out) != 1 {
		t.Fatalf("%d outcomes: %+v", len(out), out)
	}
	o := out[0]
	if o.Verdict != Reject || o.RejectWith != "tcp-reset" || o.Packet.Mark != 1 || o.Probability != 1 {
		t.Errorf("%+v", o)
	}
	// B was gone to, so its return leaves A too, behind the jump
	want := []string{"FORWARD 1 jump A", "A 1 goto B", "B 1 jump C", "C 1 mark 0x1", "C 2 return", "B 2 return", "FORWARD 2 reject with tcp-reset"}
	if d := cmp.Diff(want, effects(o)); d != "" {
		t.Error(d)
	}
	if o.Deciding == nil || *o.Deciding != o.Hits[6] || o.Deciding.Rule != "-A FORWARD -p tcp -j REJECT --reject-with tcp-reset" {
		t.Errorf("decided by %+v", o.Deciding)
	}
}

// Chance forks, and each way has the product of the chances on it.
func TestForks(t *testing.T) {
	r := rules(t, "filter", `-A FORWARD -m statistic --mode random --probability 0.25000000000 -j A
-A FORWARD -m statistic --mode random ! --probability 0.25000000000 -j DROP
-A A -m statistic --mode nth --every 4 --packet 1 -j DROP
`)
	out := r.Eval(forwarded())
	got := map[string]float64{}
	for _, o := range out {
		got[fmt.Sprintf("%s after %v", o.Verdict, effects(o))] = o.Probability
	}
	want := map[string]float64{
		"drop after [FORWARD 1 jump A A 1 drop]":           0.25 * 0.25,
		"drop after [FORWARD 1 jump A FORWARD 2 drop]":     0.25 * 0.75 * 0.75,
		"accept after [FORWARD 1 jump A FORWARD 0 accept]": 0.25 * 0.75 * 0.25,
		"drop after [FORWARD 2 drop]":                      0.75 * 0.75,
		"accept after [FORWARD 0 accept]":                  0.75 * 0.25,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if math.Abs(sum(out)-1) > 1e-12 {
		t.Error(sum(out))
	}
	if len(out[0].Notes) != 1 || out[0].Hits[1].Probability != 0.25 {
		t.Errorf("counting is not told: %+v", out[0])
	}
}

// What is not understood is said, with the rule; but only where it matters.
func TestUnknown(t *testing.T) {
	const odd = "-A FORWARD -p tcp -m odd --option 3 -m tcp --dport 80 -j ACCEPT"
	for name, c := range map[string]struct {
		rules   string
		change  func(q *Query)
		unknown string
	}{
		"a match":             {rules: odd + "\n-A FORWARD -j DROP\n", unknown: odd},
		"the rest fails":      {rules: odd + "\n-A FORWARD -j DROP\n", change: func(q *Query) { q.Packet.DPort = 81 }},
		"the header fails":    {rules: "-A FORWARD -s 10.9.0.0/16 -m odd -j ACCEPT\n-A FORWARD -j DROP\n"},
		"comes too late":      {rules: "-A FORWARD -j DROP\n" + odd + "\n"},
		"a target":            {rules: "-A FORWARD -j TPROXY --on-port 15001\n", unknown: "-A FORWARD -j TPROXY --on-port 15001"},
		"a log does no harm":  {rules: "-A FORWARD -m limit --limit 3/min -j LOG --log-prefix \"x: \"\n-A FORWARD -j DROP\n"},
		"a limit":             {rules: "-A FORWARD -m limit --limit 3/min -j ACCEPT\n", unknown: "-A FORWARD -m limit --limit 3/min -j ACCEPT"},
		"an option":           {rules: "-A FORWARD -m conntrack --ctexpire 100 -j ACCEPT\n", unknown: "-A FORWARD -m conntrack --ctexpire 100 -j ACCEPT"},
		"no state":            {rules: "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT\n", change: func(q *Query) { q.State = "" }, unknown: "-A FORWARD -m conntrack --ctstate NEW -j ACCEPT"},
		"no routing type":     {rules: "-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT\n", unknown: "-A FORWARD -m addrtype --dst-type LOCAL -j ACCEPT"},
		"no members":          {rules: "-A FORWARD -m set --match-set pods src -j ACCEPT\n", unknown: "-A FORWARD -m set --match-set pods src -j ACCEPT"},
		"no flags":            {rules: "-A FORWARD -p tcp --syn -j ACCEPT\n", change: func(q *Query) { q.Packet.Flags = "" }, unknown: "-A FORWARD -p tcp --syn -j ACCEPT"},
		"a chain of somebody": {rules: "-A FORWARD -j ELSEWHERE\n", unknown: "-A FORWARD -j ELSEWHERE"},
		"quotes without end":  {rules: "-A FORWARD -m comment --comment \"x -j ACCEPT\n", unknown: "-A FORWARD -m comment --comment \"x -j ACCEPT"},
	} {
		q := forwarded()
		if c.change != nil {
			c.change(&q)
		}
		out := rules(t, "filter", c.rules).Eval(q)
		if len(out) != 1 || out[0].Unknown != c.unknown || (out[0].Verdict == Unknown) != (c.unknown != "") || (out[0].Why == "") != (c.unknown == "") {
			t.Errorf("%s: %+v", name, out)
		}
		if c.unknown == "" && out[0].Verdict != Drop {
			t.Errorf("%s: %v", name, out[0].Verdict)
		}
	}
}

// Half of the packets do not come to the rule that is not understood.
func TestUnknownOnOneWay(t *testing.T) {
	out := rules(t, "filter", "-A FORWARD -m statistic --mode random --probability 0.50000000000 -j DROP\n-A FORWARD -m odd -j ACCEPT\n").Eval(forwarded())
	if len(out) != 2 || out[0].Verdict != Drop || out[1].Verdict != Unknown || out[0].Probability != 0.5 || out[1].Probability != 0.5 {
		t.Errorf("%+v", out)
	}
}

func TestQueriesThatMakeNoSense(t *testing.T) {
	r := rules(t, "filter", "-A FORWARD -j DROP\n")
	for name, q := range map[string]Query{
		"no such table there": {Hook: "prerouting", Table: "filter", Packet: syn("10.0.0.1:1", "10.0.0.2:2")},
		"IPv6":                {Hook: "forward", Table: "filter", Packet: syn("[::1]:1", "[::2]:2")},
		"no protocol":         {Hook: "forward", Table: "filter", Packet: datapath.Packet{Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Proto: "quux"}},
	} {
		if out := r.Eval(q); len(out) != 1 || out[0].Verdict != Unknown || out[0].Why == "" || out[0].Probability != 1 {
			t.Errorf("%s: %+v", name, out)
		}
	}
	q := forwarded()
	q.Table = "mangle" // not loaded
	if out := r.Eval(q); len(out) != 1 || out[0].Verdict != Accept || out[0].Deciding != nil {
		t.Errorf("%+v", out)
	}
	// no packet but a connection's first is shown to table nat
	nat := rules(t, "nat", "-A PREROUTING -j DNAT --to-destination 10.9.9.9\n")
	for state, asked := range map[string]bool{"NEW": true, "ESTABLISHED": false, "INVALID": false, "UNTRACKED": false} {
		out := nat.Eval(Query{Hook: "prerouting", Table: "nat", Packet: q.Packet, State: state})
		if len(out) != 1 || (out[0].NAT != nil) != asked {
			t.Errorf("%s: %+v", state, out)
		}
	}
}

// A text with a loop, which no kernel has, comes to an end.
func TestLoop(t *testing.T) {
	for _, text := range []string{"-A FORWARD -j A\n-A A -j A\n", "-A FORWARD -g A\n-A A -g B\n-A B -g A\n"} {
		if out := rules(t, "filter", text).Eval(forwarded()); len(out) != 1 || out[0].Verdict != Unknown {
			t.Errorf("%+v", out)
		}
	}
}

func TestNATTargets(t *testing.T) {
	at := func(hook, rule string) *NAT {
		t.Helper()
		q := forwarded()
		q.Hook, q.Table = hook, "nat"
		out := rules(t, "nat", "-A "+strings.ToUpper(hook)+" "+rule+"\n").Eval(q)
		if len(out) != 1 || out[0].NAT == nil {
			t.Fatalf("%s: %+v", rule, out)
		}
		if out[0].Deciding.Effect != out[0].NAT.String() {
			t.Errorf("effect %q", out[0].Deciding.Effect)
		}
		return out[0].NAT
	}
	for _, c := range []struct{ hook, rule, want string }{
		{"prerouting", "-p tcp -j DNAT --to-destination 10.1.1.1:80", "dnat to 10.1.1.1:80"},
		{"prerouting", "-p tcp -j DNAT --to-destination 10.1.1.1-10.1.1.9:80-90 --random --persistent", "dnat to 10.1.1.1-10.1.1.9:80-90"},
		{"output", "-p tcp -j DNAT --to-destination :8080", "dnat to port 8080"},
		{"postrouting", "-j SNAT --to-source 192.0.2.1", "snat to 192.0.2.1"},
		{"postrouting", "-p tcp -j MASQUERADE --to-ports 1024-2047 --random", "masquerade to port 1024-2047"},
		{"postrouting", "-j MASQUERADE --random-fully", "masquerade"},
		{"prerouting", "-p tcp -j REDIRECT --to-ports 15001", "redirect to port 15001"},
		{"prerouting", "-j NETMAP --to 10.77.0.0/16", "netmap to 10.77.0.2"},
		{"postrouting", "-j NETMAP --to 10.77.0.0/16", "netmap to 10.77.0.1"},
	} {
		n := at(c.hook, c.rule)
		if n.String() != c.want || n.Source != (c.hook == "postrouting") {
			t.Errorf("%s: %s, source %v", c.rule, n, n.Source)
		}
		if strings.Contains(c.rule, "--random ") != n.Random && !strings.HasSuffix(c.rule, "--random") || strings.Contains(c.rule, "--random-fully") != n.RandomFully || strings.Contains(c.rule, "--persistent") != n.Persistent {
			t.Errorf("%s: %+v", c.rule, n)
		}
	}
}

// A packet in a tunnel is judged by what carries it.
func TestOuterPacket(t *testing.T) {
	vni := uint32(1)
	p := syn("10.244.1.2:1000", "10.244.2.3:80")
	p.Outer = &datapath.Outer{Type: "vxlan", Src: netip.MustParseAddr("192.168.0.1"), Dst: netip.MustParseAddr("192.168.0.2"), VNI: &vni, SPort: 5000, DPort: 8472, TTL: 64}
	q := Query{Hook: "input", Table: "filter", Packet: p, In: "eth0", State: "NEW"}
	// 60 bytes inside, 50 of outer headers
	r := rules(t, "filter", "-A INPUT -s 192.168.0.1/32 -p udp -m udp --dport 8472 -m length --length 110 -j DROP\n")
	if out := r.Eval(q); out[0].Verdict != Drop {
		t.Errorf("%+v", out)
	}
	p.Outer = &datapath.Outer{Type: "ipip", Src: p.Outer.Src, Dst: p.Outer.Dst, TTL: 64}
	q.Packet = p
	r = rules(t, "filter", "-A INPUT -p ipencap -m length --length 80 -j DROP\n")
	if out := r.Eval(q); out[0].Verdict != Drop {
		t.Errorf("%+v", out)
	}
}

// Reading lines lazily and parsing them all come to the same.
func TestCompileEqualsParse(t *testing.T) {
	text := manyServices(20)
	rs, err := kubeproxy.ParseSave(text)
	if err != nil {
		t.Fatal(err)
	}
	lazy, err := Parse(map[string]string{"nat": text})
	if err != nil {
		t.Fatal(err)
	}
	q := lastService()
	q.Packet.Dst = netip.MustParseAddr("10.96.0.13")
	a, b := Eval(&rs, q), lazy.Eval(q)
	if len(a) != 3 {
		t.Errorf("%d ways", len(a))
	}
	if d := cmp.Diff(a, b, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.AddrPort) bool { return x == y })); d != "" {
		t.Error(d)
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"-A A -j DROP\n":              "line 1: outside of a table",
		"*nat\n*nat\n":                "line 2: table nat a second time",
		"*nat\n:A - [0:0]\n-A B -j C": `line 3: neither a rule of a declared chain nor anything else: "-A B -j C"`,
		"*nat\n:A - [0:0]\nrubbish":   "line 3: neither",
	} {
		if _, err := Parse(map[string]string{"nat": text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// Whatever a rule says, asking it ends with outcomes that sum up to 1.
func FuzzEval(f *testing.F) {
	f.Add("-p tcp -m tcp --dport 80:90 -j DNAT --to-destination 1.2.3.4-1.2.3.9:80")
	f.Add("! -s 10.0.0.0/255.0.0.255 -m multiport ! --ports 1,2:3 -m statistic --mode random --probability 0.3 -j MARK --set-xmark 0x1/0xff")
	f.Add("-m conntrack ! --ctstate NEW,DNAT --ctorigdst 10.0.0.0/8 -m recent --update --seconds 3 --name x --rdest -g A")
	f.Add("-m icmp --icmp-type 3/1 -m addrtype ! --src-type LOCAL --limit-iface-in -j NETMAP --to 10.0.0.0/8")
	f.Add("-i eth+ -m physdev --physdev-in e+ -m ttl --ttl-lt 0 -m length --length : -j CONNMARK --save-mark --mask 0xff")
	f.Fuzz(func(t *testing.T, rule string) {
		if strings.ContainsAny(rule, "\n\r") {
			return
		}
		r, err := Parse(map[string]string{"nat": "*nat\n:PREROUTING ACCEPT [0:0]\n:A - [0:0]\n-A PREROUTING " + rule + "\nCOMMIT\n"})
		if err != nil {
			return
		}
		q := forwarded()
		q.Hook, q.Table = "prerouting", "nat"
		out := r.Eval(q)
		if len(out) == 0 || math.Abs(sum(out)-1) > 1e-9 {
			t.Fatalf("%q: %+v", rule, out)
		}
		for _, o := range out {
			if (o.Verdict == Unknown) != (o.Unknown != "") {
				t.Fatalf("%q: %+v", rule, o)
			}
		}
	})
}
