package peers

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/testnet"
	"slipway/lab/bench/report"
)

func timeOf(seconds float64, ran *[]string, variant string) runner {
	return runner{variant, func(context.Context) ([]reading, error) {
		*ran = append(*ran, variant)
		return []reading{{"took", "s", seconds}}, nil
	}}
}

// Both take part in every round, and the ratio is to the control.
func TestRaceTakesTurns(t *testing.T) {
	t.Parallel()
	var ran []string
	c := &race{part: "a", workload: "w", path: "p", main: "took", control: "theirs", patience: time.Minute,
		runners: []runner{timeOf(2, &ran, "theirs"), timeOf(1, &ran, "ours")}}
	other := &race{part: "b"}
	o := Options{Rounds: 6, Seed: 1, Only: []string{"a"}}
	r, err := runRaces(t.Context(), o, o.chosen([]*race{c, other}), "themselves")
	if err != nil || len(r.Series) != 2 || len(ran) != 12 {
		t.Fatalf("%+v, ran %v, %v", r, ran, err)
	}
	for i := 0; i < len(ran); i += 2 {
		if ran[i] == ran[i+1] {
			t.Errorf("round %d was %v", i/2+1, ran[i:i+2])
		}
	}
	ours := r.Series[1]
	if m := ours.Metrics[0]; ours.Variant != "ours" || len(m.Rounds) != 6 || m.Ratio == nil || m.Ratio.Median != 0.5 {
		t.Errorf("ours: %+v", ours)
	}
}

// What was measured before a failure is not lost.
func TestRaceKeepsWhatItHas(t *testing.T) {
	t.Parallel()
	broken, left := errors.New("broken"), 2
	c := &race{path: "p", control: "x", patience: time.Minute, runners: []runner{{"x", func(context.Context) ([]reading, error) {
		if left--; left < 0 {
			return nil, broken
		}
		return []reading{{"took", "s", 1}}, nil
	}}}}
	r, err := runRaces(t.Context(), Options{Rounds: 5}, []*race{c}, "x")
	if !errors.Is(err, broken) || !r.Partial || len(report.Values(r.Series[0].Metrics[0].Rounds)) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

// bird takes the configurations, of reflectors and their clients too.
func TestBirdTakesItsConfiguration(t *testing.T) {
	t.Parallel()
	testnet.Need(t, testnet.Bird)
	g := &ground{reflectors: 2}
	for i := range byte(4) {
		g.nodes = append(g.nodes, groundNode{name: "n", addr: netip.AddrFrom4([4]byte{192, 0, 2, i + 1}), block: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, i, 0}), 24)})
	}
	for i, peers := range []int{3, 3, 2, 2} {
		file := filepath.Join(t.TempDir(), "bird.conf")
		if err := os.WriteFile(file, []byte(g.birdConf(i)), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("bird", "-p", "-c", file).CombinedOutput(); err != nil {
			t.Errorf("node %d: %v: %s", i, err, out)
		}
		if got := strings.Count(g.birdConf(i), "protocol bgp"); got != peers {
			t.Errorf("node %d has %d peers, want %d", i, got, peers)
		}
	}
}

// Each pair has one side that dials, whoever's speakers they are.
func TestOneSideOfEachPairDials(t *testing.T) {
	t.Parallel()
	for _, reflectors := range []int{0, 2} {
		g := &ground{reflectors: reflectors, nodes: make([]groundNode, 5)}
		for i := range g.nodes {
			for _, j := range g.peers(i) {
				theirs := strings.Contains(g.birdConf(i), "protocol bgp node"+string(rune('0'+j))+" from speaker { neighbor "+g.nodes[j].addr.String()+" as 64512; passive on;")
				if want := j < i; theirs != want {
					t.Errorf("%d reflectors: bird %d waits for %d: %v, want %v", reflectors, i, j, theirs, want)
				}
				back := false
				for _, k := range g.peers(j) {
					back = back || k == i
				}
				if !back {
					t.Errorf("%d reflectors: %d peers with %d, not the other way round", reflectors, i, j)
				}
			}
		}
	}
}

// Mininet's hosts reach each other, and leave the machine's own links alone.
func TestMininetTouchesNothing(t *testing.T) {
	testnet.Need(t, testnet.Root)
	if missing := mininetMissing(); len(missing) > 0 {
		t.Skip("needs ", missing)
	}
	before, err := rootLinks()
	if err != nil {
		t.Fatal(err)
	}
	limits := func() string {
		raw, err := os.ReadFile("/proc/sys/fs/file-max")
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	most := limits()
	took, err := mininetOnce(t.Context(), 3)
	if err != nil || len(took) != 4 || took[0].value <= 0 {
		t.Fatalf("%v, %v", took, err)
	}
	after, err := rootLinks()
	if err != nil || strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("links before %v, after %v, %v", before, after, err)
	}
	if now := limits(); now != most {
		t.Errorf("fs.file-max was %s and is %s", most, now)
	}
}
