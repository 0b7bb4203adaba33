package kubeproxy

import (
	"math"
	"strings"
	"testing"
)

func parsed(t *testing.T, name string) Ruleset {
	t.Helper()
	s, ok := text(t, name)
	if !ok {
		t.Fatalf("no %s", name)
	}
	rs, err := ParseSave(s)
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

// 1/3, then 1/2 of the rest, then all of it: a third each.
func TestProbabilitiesAreEqual(t *testing.T) {
	rs := parsed(t, "demo.save.golden")
	// the masquerade mark that comes first depends on the source and is no
	// branch; see the golden file for default/nginx-svc
	got, err := Probabilities(rs, "KUBE-SVC-HL5LMXD5JFHQZ6LN")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"KUBE-SEP-SADCJIHRQW7RJ62U", "KUBE-SEP-ZXD3C5GBUWQNCJML", "KUBE-SEP-N7IVUSC32J24K4NN"}
	for i, b := range got {
		if len(got) != len(want) || b.Unknown || b.Affinity || math.Abs(b.Probability-1.0/3) > 1e-9 || b.Target != want[i] {
			t.Errorf("branch %d of %d: %s with %v, unknown %v", i, len(got), b.Target, b.Probability, b.Unknown)
		}
	}
}

func TestProbabilitiesOfNode(t *testing.T) {
	for name := range goldens(t) {
		if name == "nfacct" {
			continue // has no save
		}
		rs := parsed(t, name+".save.golden")
		for _, c := range rs.Table("nat").Chains {
			if !strings.HasPrefix(c.Name, prefixCluster) && !strings.HasPrefix(c.Name, prefixLocal) {
				continue
			}
			branches, err := Probabilities(rs, c.Name)
			if err != nil {
				t.Fatal(err)
			}
			sum, n := 0.0, 0
			for _, b := range branches {
				if b.Unknown {
					t.Errorf("%s: %s: unknown: %s", name, c.Name, b.Rule.Raw)
				}
				if !b.Affinity {
					sum += b.Probability
					n++
				}
			}
			for _, b := range branches {
				if !b.Affinity && math.Abs(b.Probability-1/float64(n)) > 1e-8 {
					t.Errorf("%s: %s: one of %d has %v", name, c.Name, n, b.Probability)
				}
			}
			if math.Abs(sum-1) > 1e-12 {
				t.Errorf("%s: %s: branches sum up to %v", name, c.Name, sum)
			}
		}
	}
}

// What hangs on the packet is not made into a number, nor what comes after it.
func TestProbabilitiesUnknown(t *testing.T) {
	rs, err := ParseSave(`*nat
:A - [0:0]
:B - [0:0]
-A A -m statistic --mode random --probability 0.25 -j B
-A A -s 10.0.0.0/8 -j B
-A A -j B
-A B -j DNAT --to-destination 10.0.0.1
COMMIT
`)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Probabilities(rs, "A")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Unknown || got[0].Probability != 0.25 || !got[1].Unknown || !got[2].Unknown {
		t.Errorf("%+v", got)
	}
	if _, err := Probabilities(rs, "C"); err == nil {
		t.Error("no error for a chain that is not there")
	}
	if _, err := Probabilities(Ruleset{}, "A"); err == nil {
		t.Error("no error without table nat")
	}
}
