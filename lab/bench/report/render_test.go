package report

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the goldens of testdata again; read them then")

func rendered(t *testing.T, r *Report, render func(io.Writer, *Report) error) string {
	t.Helper()
	var b bytes.Buffer
	if err := render(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The goldens were read: vxlan is half of host-gw in throughput; bgp, which has
// host-gw's figures in another order, is marked ≈; three rounds of loopback say
// n=3 and span 61.5 to 64.0 k/s; the lost round is an empty value in the CSV.
func TestGoldens(t *testing.T) {
	t.Parallel()
	for name, render := range map[string]func(io.Writer, *Report) error{
		"report.txt": Table, "report.csv": CSV, "report.md": Markdown, "report.json": Write,
	} {
		golden(t, name, rendered(t, fixture(), render))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// However many variants there are, no line is wider than 120 columns, and none
// of them is left out.
func TestTableIsNarrow(t *testing.T) {
	t.Parallel()
	r := fixture()
	for _, v := range []string{"flannel-udp/simple", "flannel-udp/batched", "flannel-udp/ebpf", "calico-ipip", "the real flanneld, vxlan", "node"} {
		s := r.Series[0]
		s.Variant = v
		r.Series = append(r.Series, s)
	}
	text := rendered(t, r, Table)
	for l := range strings.Lines(text) {
		if w := lipgloss.Width(strings.TrimRight(l, "\n")); w > tableWidth {
			t.Errorf("%d columns: %s", w, l)
		}
	}
	for _, s := range r.Series {
		if !strings.Contains(text, s.Variant) {
			t.Errorf("%s is missing", s.Variant)
		}
	}
}

func TestUnits(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		unit string
		v    float64
		want string
	}{
		{"bit/s", 18.84e9, "18.8 Gbit/s"}, {"bit/s", 950e6, "950 Mbit/s"}, {"bit/s", 12, "12 bit/s"}, {"bit/s", 0, "0 bit/s"},
		{"1/s", 63_000, "63.0 k/s"}, {"1/s", 812.4, "812 1/s"}, {"1/s", 1.26e6, "1.26 M/s"},
		{"s", 92.5e-6, "92.5 µs"}, {"s", 1.5e-3, "1.50 ms"}, {"s", 2, "2 s"}, {"s", 45e-9, "45.0 ns"}, {"s", 0, "0 s"},
		{"s/GB", 0.31, "310 ms/GB"}, {"B", 357 * 1024, "357 KiB"}, {"B", 12, "12 B"}, {"1", 12345, "12345 "}, {"%", 0.123, "0.123 %"},
		{"packets", 5, "5 packets"},
	} {
		s := scaleOf(c.unit, c.v)
		if got := s.format(c.v)[0] + " " + s.unit; got != c.want {
			t.Errorf("%g %s: %q, want %q", c.v, c.unit, got, c.want)
		}
	}
}

// What looks like markup in a name stays text.
func TestMarkdownEscapes(t *testing.T) {
	t.Parallel()
	r := fixture()
	r.Series[0].Variant, r.Series[0].Params = "a|b<script>", map[string]string{"x": "*y*_z_"}
	text := rendered(t, r, Markdown)
	if strings.Contains(text, "<script>") || !strings.Contains(text, `a\|b&lt;script&gt;`) || !strings.Contains(text, `\*y\*\_z\_`) {
		t.Errorf("not escaped:\n%s", text)
	}
}

// Of many cases a terminal gets what stands for each; of few, everything.
func TestBriefHasManyCasesAsASummary(t *testing.T) {
	text := func(render func(io.Writer, *Report) error, r *Report) string {
		var b bytes.Buffer
		if err := render(&b, r); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	r := fixture()
	if text(Brief, r) != text(Table, r) {
		t.Error("a few cases are cut down")
	}
	for _, workload := range []string{"tcp-rr", "udp-rr", "http", "tcp-crr", "udp-pps"} {
		for _, s := range fixture().Series {
			s.Workload = workload
			r.Series = append(r.Series, s)
		}
	}
	brief := text(Brief, r)
	for _, want := range []string{"Summary", "tcp-crr · other-node → pod", "throughput, Gbit/s ↑", "±", "-v prints them all"} {
		if !strings.Contains(brief, want) {
			t.Errorf("no %q in:\n%s", want, brief)
		}
	}
	if strings.Contains(brief, "retransmits") {
		t.Errorf("details in:\n%s", brief)
	}
}
