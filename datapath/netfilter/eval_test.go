package netfilter

import (
	"math"
	"net/netip"
	"testing"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
)

// rules reads a table's rules; chains other than the built-in ones are declared.
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

func sum(out []Outcome) float64 {
	s := 0.0
	for _, o := range out {
		s += o.Probability
	}
	return s
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
	out := r.Eval(Query{Hook: "forward", Table: "filter", Packet: syn("10.0.0.1:1", "10.0.0.2:80"), State: "NEW"})
	if len(out) != 1 {
		t.Fatalf("%d outcomes: %+v", len(out), out)
	}
	// B was gone to, so its return leaves A too, behind the jump
	o := out[0]
	if o.Verdict != Reject || o.RejectWith != "tcp-reset" || o.Packet.Mark != 1 || o.Probability != 1 {
		t.Errorf("%+v", o)
	}
	want := []string{"jump A", "goto B", "jump C", "mark 0x1", "return", "return", "reject with tcp-reset"}
	for i, h := range o.Hits {
		if i >= len(want) || h.Effect != want[i] {
			t.Errorf("hit %d: %+v", i, h)
		}
	}
	if h := o.Hits[5]; h.Chain != "B" || h.Number != 2 || h.Rule != "-A B -m mark --mark 0x1 -j RETURN" {
		t.Errorf("%+v", h)
	}
	_ = kubeproxy.Ruleset{}
	if math.Abs(sum(out)-1) > 1e-12 {
		t.Error(sum(out))
	}
}
