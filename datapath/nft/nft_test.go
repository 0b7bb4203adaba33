package nft

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
)

// listing is what nft 1.0.6 prints of a table (libnftables-json(5)), cut down.
const listing = `{"nftables": [{"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
{"table": {"family": "ip", "name": "kube-proxy", "handle": 1}},
{"set": {"family": "ip", "name": "cluster-ips", "table": "kube-proxy", "type": "ipv4_addr", "handle": 6, "comment": "Active ClusterIPs", "elem": ["10.96.0.1"]}},
{"set": {"family": "ip", "name": "affinity-X", "table": "kube-proxy", "type": "ipv4_addr", "handle": 7, "size": 65535, "flags": ["timeout"], "timeout": 77, "elem": [{"elem": {"val": "10.0.0.1", "expires": 70}}]}},
{"map": {"family": "ip", "name": "service-ips", "table": "kube-proxy", "type": ["ipv4_addr", "inet_proto", "inet_service"], "handle": 9, "map": "verdict", "elem": [[{"concat": ["172.30.0.41", "tcp", 80]}, {"goto": {"target": "x"}}], [{"elem": {"val": {"concat": ["172.30.0.42", "tcp", 80]}, "comment": "ns2/svc2:p80"}}, {"drop": null}]]}},
{"chain": {"family": "ip", "table": "kube-proxy", "name": "filter-input", "handle": 1, "type": "filter", "hook": "input", "prio": -110, "policy": "drop"}},
{"chain": {"family": "ip", "table": "kube-proxy", "name": "x", "handle": 5}},
{"rule": {"family": "ip", "table": "kube-proxy", "chain": "filter-input", "handle": 11, "comment": "why", "expr": [{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}, {"jump": {"target": "x"}}]}}]}`

func TestRead(t *testing.T) {
	got, err := Read([]byte(listing))
	if err != nil {
		t.Fatal(err)
	}
	want := []datapath.NFTable{{
		Family: "ip", Name: "kube-proxy",
		Sets: []datapath.NFSet{
			{Name: "cluster-ips", Type: "ipv4_addr", Comment: "Active ClusterIPs", Elements: []datapath.NFElement{{Key: "10.96.0.1"}}},
			{Name: "affinity-X", Type: "ipv4_addr", Timeout: 77 * time.Second, Dynamic: true, Elements: []datapath.NFElement{{Key: "10.0.0.1"}}},
			{Name: "service-ips", Type: "ipv4_addr . inet_proto . inet_service", Value: "verdict", Elements: []datapath.NFElement{
				{Key: "172.30.0.41 . tcp . 80", Value: "goto x"}, {Key: "172.30.0.42 . tcp . 80", Value: "drop", Comment: "ns2/svc2:p80"},
			}},
		},
		Chains: []datapath.NFChain{
			{Name: "filter-input", Type: "filter", Hook: "input", Priority: -110, Policy: "drop", Rules: []datapath.NFRule{{Text: "ct state new jump x", Comment: "why"}}},
			{Name: "x"},
		},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestReadRefusesNonsense(t *testing.T) {
	for _, s := range []string{"", "{", `{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "none", "expr": []}}]}`,
		`{"nftables": [{"map": {"family": "ip", "table": "t", "name": "m", "type": "ipv4_addr", "map": "verdict", "elem": ["1.2.3.4"]}}]}`} {
		if _, err := Read([]byte(s)); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

// Rules that are not kube-proxy's keep what is not understood, as it was, and
// are not evaluated.
func TestUnknownStaysVerbatim(t *testing.T) {
	const limit = `{"limit": {"rate": 5, "per": "second"}}`
	text := strings.Replace(listing, `{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}`,
		`{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "10.0.0.1"}}, `+limit, 1)
	got, err := Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rule := got[0].Chains[0].Rules[0].Text
	if rule != "ip saddr 10.0.0.1 "+limit+" jump x" {
		t.Errorf("spelled %q", rule)
	}
	s := Parse(rule)
	if len(s) != 2 || s[0].Match == nil || !strings.HasPrefix(s[1].Unknown, limit) {
		t.Errorf("parsed %+v", s)
	}
}

// Every bit of a status at once is not the same as one of them.
func TestStatusIsBits(t *testing.T) {
	for op, known := range map[string]bool{"in": true, "==": false, "!=": false} {
		s := spellRule([]json.RawMessage{[]byte(`{"match": {"op": "` + op + `", "left": {"ct": {"key": "status"}}, "right": "dnat"}}`)})
		if got := s == "ct status dnat"; got != known {
			t.Errorf("%s: spelled %q", op, s)
		}
	}
}

func TestParse(t *testing.T) {
	all := uint32(1<<32 - 1)
	field := func(name string) Field { return Field{Name: name, Mask: all} }
	for text, want := range map[string][]Statement{
		"mark and 0x00004000 != 0 mark set mark xor 0x00004000 masquerade fully-random": {
			{Match: &Match{Fields: []Field{{Name: "mark", Mask: 0x4000}}, Not: true, Values: []string{"0"}}},
			{Mark: &Mark{Op: "xor", Value: 0x4000}},
			{NAT: &NAT{Kind: "masquerade", Flags: []string{"fully-random"}}},
		},
		"ip daddr . meta l4proto . th dport vmap @service-ips": {
			{Map: &Map{Fields: []Field{field("ip daddr"), field("meta l4proto"), field("th dport")}, Name: "service-ips"}},
		},
		"meta l4proto tcp dnat ip addr . port to numgen random mod 2 map { 0 : 10.0.0.1 . 80 , 1 : 10.0.0.2 . 80 }": {
			{Match: &Match{Fields: []Field{field("meta l4proto")}, Values: []string{"tcp"}}},
			{NAT: &NAT{Kind: "dnat", Map: &Map{Random: 2, Pairs: []Pair{{"0", "10.0.0.1 . 80"}, {"1", "10.0.0.2 . 80"}}}}},
		},
		"ip saddr != { 10.0.0.0/8 , 192.0.2.1 } drop": {
			{Match: &Match{Fields: []Field{field("ip saddr")}, Not: true, Values: []string{"10.0.0.0/8", "192.0.2.1"}}},
			{Verdict: &Verdict{Kind: "drop"}},
		},
		"update @affinity-X { ip saddr }":   {{Update: &Update{"affinity-X", field("ip saddr")}}},
		"reject with icmp admin-prohibited": {{Reject: "icmp-admin-prohibited"}},
		"tcp dport 80 tcp flags syn accept": {
			{Match: &Match{Fields: []Field{field("tcp dport")}, Values: []string{"80"}}}, {Unknown: "tcp flags syn accept"},
		},
		"dnat to":                     {{Unknown: "dnat to"}},
		"numgen inc mod 2 vmap @x":    {{Unknown: "numgen inc mod 2 vmap @x"}},
		"ip daddr . bogus x accept":   {{Unknown: "ip daddr . bogus x accept"}},
		"mark set mark lshift 1 drop": {{Unknown: "mark set mark lshift 1 drop"}},
	} {
		if d := cmp.Diff(want, Parse(text)); d != "" {
			t.Errorf("%s (-want +got)\n%s", text, d)
		}
	}
}

func TestSame(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"ip daddr { 10.96.0.0/16 } drop", "ip daddr 10.96.0.0/16 drop", true},
		{"ip saddr != { 203.0.113.0/25 , 192.168.232.0/24 , 192.168.233.0/24 , 192.168.233.200 } drop", "ip saddr != { 192.168.232.0/23 , 203.0.113.0/25 } drop", true},
		{"ip saddr != { 192.168.232.0/23 } drop", "ip saddr != { 192.168.232.0/24 } drop", false},
		{"ip saddr { 10.0.0.1 , 10.0.0.3 } drop", "ip saddr { 10.0.0.1-10.0.0.3 } drop", false},
		{"ip saddr 10.0.0.1 drop", "ip saddr != 10.0.0.1 drop", false},
		{"meta l4proto tcp dnat to 10.0.0.1:80", "meta l4proto tcp dnat to 10.0.0.1:81", false},
	} {
		if Same(c.a, c.b) != c.same || Same(c.b, c.a) != c.same {
			t.Errorf("%q and %q: same is %v", c.a, c.b, !c.same)
		}
	}
}
