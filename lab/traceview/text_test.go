package traceview

import (
	"bytes"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file that was read and argued to be right.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func asText(t *testing.T, tr *trace.Trace, o TextOptions) string {
	t.Helper()
	var b bytes.Buffer
	if err := Text(&b, tr, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestText(t *testing.T) {
	for _, name := range ordered.Keys(fixtures()) {
		golden(t, name+".txt", []byte(asText(t, fixtures()[name], TextOptions{})))
	}
	for _, name := range []string{"vxlan-service", "unknown", "disagree"} {
		golden(t, name+".verbose.txt", []byte(asText(t, fixtures()[name], TextOptions{Verbose: true})))
	}
}

// Colours are added to the same text, and are not there unless asked for.
func TestColourOnlyColours(t *testing.T) {
	sgr := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, name := range ordered.Keys(fixtures()) {
		for _, verbose := range []bool{false, true} {
			bare := asText(t, fixtures()[name], TextOptions{Verbose: verbose})
			colour := asText(t, fixtures()[name], TextOptions{Verbose: verbose, Colour: true})
			if strings.Contains(bare, "\x1b") || !strings.Contains(colour, "\x1b") {
				t.Errorf("%s: colours are not where they were asked for", name)
			}
			var trimmed strings.Builder
			for line := range strings.Lines(sgr.ReplaceAllString(colour, "")) {
				trimmed.WriteString(strings.TrimRight(line, " \n") + "\n")
			}
			if d := cmp.Diff(bare, trimmed.String()); d != "" {
				t.Errorf("%s: the coloured text is another one:\n%s", name, d)
			}
		}
	}
}

// Whatever a trace holds, no line is wider than asked for, and nothing in it
// reaches the terminal as a control sequence.
func TestTextFits(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		tr := randomTrace(r)
		for _, width := range []int{0, 60, 100} {
			for _, verbose := range []bool{false, true} {
				got := asText(t, tr, TextOptions{Width: width, Verbose: verbose})
				most := width
				if most == 0 {
					most = 100
				}
				for line := range strings.Lines(got) {
					line = strings.TrimSuffix(line, "\n")
					if w := lipgloss.Width(line); w > most {
						t.Fatalf("trace %d: %d columns of %d: %q", i, w, most, line)
					}
					if strings.ContainsAny(line, "\x1b\r\x07") {
						t.Fatalf("trace %d: control characters: %q", i, line)
					}
				}
			}
		}
	}
}

// A step is marked as observed exactly where the observation has it.
func TestNothingIsObservedWithoutAHop(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 60 {
		tr := randomTrace(r)
		for _, w := range ways(tr) {
			pred, obs := 0, 0
			for _, s := range w.steps {
				if s.pred != nil {
					pred++
				}
				if s.obs != nil {
					obs++
				}
				seen := s.mark == both || s.mark == onlyObserved || s.mark == differs
				if w.compared && seen != (s.obs != nil) {
					t.Fatalf("trace %d: mark %q of a step that was observed: %t", i, s.mark, s.obs != nil)
				}
			}
			wantPred, wantObs := len(tr.Predicted), len(tr.Observed)
			if w.reply {
				wantPred, wantObs = len(tr.Reply.Predicted), len(tr.Reply.Observed)
			}
			if pred != wantPred || obs != wantObs {
				t.Fatalf("trace %d: %d predicted and %d observed steps are shown, there are %d and %d", i, pred, obs, wantPred, wantObs)
			}
		}
	}
}

// randomTrace makes traces that no kernel would, with texts of all kinds.
func randomTrace(r *rand.Rand) *trace.Trace {
	str := func() string {
		texts := []string{"", "eth0", dropRule, oddRule, strings.Repeat("x", r.IntN(300)), "日本語のチェーン名" + strings.Repeat("漢", r.IntN(90)), "a\x1b[31mred\r\n\tb\x07", "naïve e\u0301 \u202e", strings.Repeat("long words ", r.IntN(30))}
		return texts[r.IntN(len(texts))]
	}
	stages := []trace.Stage{trace.Socket, trace.Egress, trace.Ingress, trace.Prerouting, trace.Route, trace.BridgeStage, trace.Encap, trace.Decap, trace.Wire, trace.Deliver, trace.Userspace, trace.Forward, "odd"}
	actions := []trace.Action{trace.Pass, trace.DNAT, trace.Masquerade, trace.Mark, trace.EncapAction, trace.DecapAction, trace.ForwardAction, trace.Drop, trace.Reject, trace.DeliverAction, trace.UnknownAction, ""}
	packet := func() datapath.Packet {
		p := datapath.Packet{Proto: str(), TTL: uint8(r.UintN(256)), Length: r.IntN(1500), SPort: uint16(r.UintN(3)), Mark: uint32(r.UintN(3))}
		if r.IntN(4) > 0 {
			p.Src, p.Dst = netip.AddrFrom4([4]byte{10, 0, 0, byte(r.UintN(3))}), netip.AddrFrom4([4]byte{10, 0, 0, byte(r.UintN(3))})
		}
		if r.IntN(3) == 0 {
			p.Outer = &datapath.Outer{Type: str(), DPort: uint16(r.UintN(2))}
		}
		if r.IntN(5) == 0 {
			p.ICMP = &datapath.ICMPInfo{Type: uint8(r.UintN(14)), Code: uint8(r.UintN(14))}
		}
		return p
	}
	hops := func() []trace.Hop {
		var out []trace.Hop
		for range r.IntN(12) {
			h := trace.Hop{Place: []string{"a/b", "node01", "fabric", str()}[r.IntN(4)], Node: str(), Namespace: str(), Device: str(), Stage: stages[r.IntN(len(stages))], Action: actions[r.IntN(len(actions))], Rule: str(), Table: str(), Route: str(), Neighbor: str(), Conntrack: str(), Reason: str(), Packet: packet(), Hidden: r.IntN(3) == 0, Probability: r.Float64(), TimeNs: r.Int64N(1e12), Evidence: []string{str()}}
			h.Rules = append(h.Rules, trace.Hit{Table: str(), Chain: str(), Rule: str(), Effect: str(), Probability: r.Float64()})
			out = append(out, h)
		}
		return out
	}
	cause := func() *trace.Cause {
		if r.IntN(2) == 0 {
			return nil
		}
		return &trace.Cause{Node: str(), Place: str(), Device: str(), Stage: trace.Stage(str()), Table: str(), Rule: str(), Kernel: str(), Text: str(), Hint: str(), Reply: r.IntN(2) == 0}
	}
	t := &trace.Trace{
		Lab: str(), Source: trace.Endpoint{Pod: str()}, Destination: trace.Endpoint{Name: str(), Port: uint16(r.UintN(2)), Protocol: str()},
		Verdict: trace.Verdict(r.IntN(4)), Predicted: hops(), Observed: hops(), Reply: trace.Reply{Predicted: hops(), Observed: hops()},
		PredictedCause: cause(), ObservedCause: cause(), Notes: []string{str()}, WhatIf: []string{str()}, Observer: str(),
	}
	if r.IntN(3) > 0 {
		v, agree := trace.Verdict(r.IntN(4)), r.IntN(2) == 0
		t.ObservedVerdict, t.Agree = &v, &agree
	}
	for range r.IntN(4) {
		t.Disagreements = append(t.Disagreements, trace.Disagreement{Reply: r.IntN(2) == 0, Predicted: r.IntN(13) - 1, Observed: r.IntN(13) - 1, What: []string{"path", "packet"}[r.IntN(2)], Text: str()})
	}
	for range r.IntN(16) {
		t.Branches = append(t.Branches, trace.Branch{Probability: r.Float64(), Pod: str(), Cause: cause(), Verdict: trace.Verdict(r.IntN(4))})
	}
	return t
}
