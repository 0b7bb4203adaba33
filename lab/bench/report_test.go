package bench

import (
	"bytes"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestSummarize(t *testing.T) {
	upTo := func(n int) []float64 {
		var v []float64
		for i := n; i >= 1; i-- {
			v = append(v, float64(i))
		}
		return v
	}
	for _, c := range []struct {
		rounds []float64
		want   Summary
	}{
		{nil, Summary{}},
		{[]float64{7}, Summary{Median: 7, Low: 7, High: 7, Confidence: 0, N: 1}},
		{[]float64{4, 2}, Summary{Median: 3, Low: 2, High: 4, Confidence: 0.5, N: 2}},
		// All five on one side of the median: 2 · 2⁻⁵.
		{upTo(5), Summary{Median: 3, Low: 1, High: 5, Confidence: 1 - 2.0/32, N: 5}},
		{upTo(6), Summary{Median: 3.5, Low: 1, High: 6, Confidence: 1 - 2.0/64, N: 6}},
		// Textbook table for n = 15: the 4th smallest and largest, 96.5 %.
		{upTo(15), Summary{Median: 8, Low: 4, High: 12, Confidence: 1 - 2*(1+15+105+455)/32768.0, N: 15}},
	} {
		if diff := cmp.Diff(c.want, Summarize(c.rounds), cmpopts.EquateApprox(0, 1e-9)); diff != "" {
			t.Errorf("summary of %v (-want +got):\n%s", c.rounds, diff)
		}
	}
}

// The interval keeps its promise on a distribution that is far from normal.
func TestSummaryCoversTheMedian(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const trials = 4000
	covered, promised := 0, 0.0
	for range trials {
		v := make([]float64, 9)
		for i := range v {
			v[i] = random.ExpFloat64()
		}
		s := Summarize(v)
		promised = s.Confidence
		if s.Low <= math.Ln2 && math.Ln2 <= s.High { // the median of that distribution
			covered++
		}
	}
	// Four standard deviations of a share over so many trials.
	tolerance := 4 * math.Sqrt(promised*(1-promised)/trials)
	if got := float64(covered) / trials; math.Abs(got-promised) > tolerance {
		t.Errorf("the interval holds the median in %.3f of trials, not %.3f", got, promised)
	}
}

func TestParseCPUTimes(t *testing.T) {
	got, err := parseCPUTimes("cpu  10 1 20 300 5 2 3 40 7 0\ncpu0 …\n")
	want := cpuTimes{total: 10 + 1 + 20 + 300 + 5 + 2 + 3 + 40, idle: 305, steal: 40}
	if err != nil || got != want {
		t.Errorf("parsed %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{"", "intr 1 2 3", "cpu 1 2 3", "cpu a 2 3 4 5 6 7 8"} {
		if _, err := parseCPUTimes(bad); err == nil {
			t.Errorf("%q was read without an error", bad)
		}
	}
}

func TestReadConditions(t *testing.T) {
	c, err := ReadConditions()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Finish(); err != nil {
		t.Fatal(err)
	}
	if c.Kernel == "" || c.CPUs < 1 || c.CPUModel == "" || c.Steal < 0 || c.Steal > 1 || c.Idle < 0 || c.Idle > 1 {
		t.Errorf("conditions %+v", c)
	}
}

func TestMeasure(t *testing.T) {
	client, server := wired(t)
	plan := Plan{Rounds: 3, StreamTime: 50 * time.Millisecond, RequestTime: 50 * time.Millisecond}
	row, err := Measure(t.Context(), "flannel-vxlan", client, server, plan)
	if err != nil {
		t.Fatal(err)
	}
	if len(row.Samples) != 3 || row.BitsPerSecond.N != 3 || row.P99.N != 3 || row.Requests != row.Latencies.TotalCount() || row.P50.Median > row.P99.Median {
		t.Errorf("row %+v", row)
	}
	var b bytes.Buffer
	if err := (Report{Plan: plan, Rows: []Row{row}}).WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Rows) != 1 || back.Rows[0].BitsPerSecond != row.BitsPerSecond {
		t.Errorf("read back %+v, %v", back, err)
	}
}

func TestTable(t *testing.T) {
	row := Row{
		Name:          "flannel-vxlan",
		BitsPerSecond: Summarize([]float64{9.1e9, 9.5e9, 9.3e9}),
		P50:           Summarize([]float64{21500, 22000, 23000}), P99: Summarize([]float64{60000, 61000, 90000}),
		Rate: Summarize([]float64{41000, 42000, 43000}), Retransmits: 3,
		Conditions: Conditions{Kernel: "6.18.0", Arch: "amd64", CPUs: 2, CPUModel: "Some CPU", LoadAverage: 2.5, Steal: 0.012, MTU: 1450},
	}
	var b bytes.Buffer
	if err := (Report{Rows: []Row{row}}).WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"flannel-vxlan", "9.30 (9.10–9.50)", "22.0 (21.5–23.0)", "61.0 (60.0–90.0)", "42000 (41000–43000)", "1450",
		"Median of 3 rounds", "75 % confidence", "Linux 6.18.0 amd64, 2 CPUs (Some CPU)", "stolen up to 1.2 %", "busy with other work",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
	for _, line := range strings.Split(b.String(), "\n") {
		if n := len([]rune(line)); n > 120 || strings.TrimRight(line, " ") != line {
			t.Errorf("%d columns: %q", n, line)
		}
	}
	t.Log("\n" + b.String())
}
