package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/HdrHistogram/hdrhistogram-go"
)

// Plan says how a pair of endpoints is measured. Zero fields take the defaults
// of [DefaultPlan].
type Plan struct {
	Rounds      int           `json:"rounds"`
	StreamTime  time.Duration `json:"streamTimeNs"`  // of each round
	RequestTime time.Duration `json:"requestTimeNs"` // of each round
	WriteSize   int           `json:"writeSize"`     // bytes
	RequestSize int           `json:"requestSize"`   // bytes
}

// DefaultPlan takes about four seconds. Five rounds give an interval of 94 %.
var DefaultPlan = Plan{Rounds: 5, StreamTime: 500 * time.Millisecond, RequestTime: 300 * time.Millisecond, WriteSize: DefaultWriteSize, RequestSize: 1}

func (p Plan) withDefaults() Plan {
	return Plan{
		Rounds:      cmp.Or(p.Rounds, DefaultPlan.Rounds),
		StreamTime:  cmp.Or(p.StreamTime, DefaultPlan.StreamTime),
		RequestTime: cmp.Or(p.RequestTime, DefaultPlan.RequestTime),
		WriteSize:   cmp.Or(p.WriteSize, DefaultPlan.WriteSize),
		RequestSize: cmp.Or(p.RequestSize, DefaultPlan.RequestSize),
	}
}

// Row is what was measured of one mode, or of anything else that has a name.
type Row struct {
	Name       string     `json:"name"`
	Path       string     `json:"path"` // "default/client → default/server"
	Conditions Conditions `json:"conditions"`
	Samples    []Sample   `json:"samples"`
	// BitsPerSecond is of TCP payload, P50 and P99 are request latencies in
	// nanoseconds and Rate requests per second, each summarised over the rounds.
	BitsPerSecond Summary `json:"bitsPerSecond"`
	P50           Summary `json:"p50Ns"`
	P99           Summary `json:"p99Ns"`
	Rate          Summary `json:"requestsPerSecond"`
	Requests      int64   `json:"requests"`    // in all rounds
	Retransmits   int     `json:"retransmits"` // in all rounds
	// Latencies holds the requests of all rounds.
	Latencies *hdrhistogram.Histogram `json:"-"`
}

// Measure measures a pair of endpoints in rounds, each a stream and then a
// series of requests, so that a disturbance meets both alike.
func Measure(ctx context.Context, name string, client, server Endpoint, plan Plan) (Row, error) {
	plan = plan.withDefaults()
	row := Row{Name: name, Path: client.Label + " → " + server.Label, Latencies: hdrhistogram.New(latencyMin, latencyMax, latencyDigits)}
	var err error
	if row.Conditions, err = ReadConditions(); err != nil {
		return Row{}, fmt.Errorf("measure %s: %w", name, err)
	}
	row.Conditions.WriteSize = plan.WriteSize
	var bits, p50, p99, rate []float64
	for range plan.Rounds {
		s, err := Stream(ctx, client, server, plan.StreamTime, plan.WriteSize)
		if err != nil {
			return Row{}, fmt.Errorf("measure %s: %w", name, err)
		}
		h, err := RequestResponse(ctx, client, server, plan.RequestTime, plan.RequestSize)
		if err != nil {
			return Row{}, fmt.Errorf("measure %s: %w", name, err)
		}
		row.Samples = append(row.Samples, s)
		row.Conditions.MTU = s.PathMTU
		row.Retransmits += s.Retransmits
		row.Requests += h.TotalCount()
		row.Latencies.Merge(h)
		bits = append(bits, s.BitsPerSecond)
		p50 = append(p50, float64(h.ValueAtQuantile(50)))
		p99 = append(p99, float64(h.ValueAtQuantile(99)))
		rate = append(rate, float64(h.TotalCount())/plan.RequestTime.Seconds())
	}
	row.BitsPerSecond, row.P50, row.P99, row.Rate = Summarize(bits), Summarize(p50), Summarize(p99), Summarize(rate)
	if err := row.Conditions.Finish(); err != nil {
		return Row{}, fmt.Errorf("measure %s: %w", name, err)
	}
	return row, nil
}

// Report is a set of rows measured on one machine.
type Report struct {
	Plan Plan  `json:"plan"`
	Rows []Row `json:"rows"`
}

// WriteJSON writes the report with everything that was measured.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteTable writes a row for each name, medians with their intervals, and
// below the table what they were measured under.
func (r Report) WriteTable(w io.Writer) error {
	t := table.New().Border(lipgloss.NormalBorder()).BorderTop(false).BorderBottom(false).BorderLeft(false).
		BorderRight(false).BorderColumn(false).
		StyleFunc(func(_, column int) lipgloss.Style {
			if column == 0 {
				return lipgloss.NewStyle().PaddingRight(2)
			}
			return lipgloss.NewStyle().Align(lipgloss.Right).PaddingRight(2)
		}).
		Headers("", "Gbit/s", "p50 µs", "p99 µs", "requests/s", "MTU", "retrans")
	for _, row := range r.Rows {
		mtu := "–"
		if row.Conditions.MTU > 0 {
			mtu = fmt.Sprint(row.Conditions.MTU)
		}
		t.Row(row.Name, row.BitsPerSecond.Format(1e9, 2), row.P50.Format(1e3, 1), row.P99.Format(1e3, 1),
			row.Rate.Format(1, 0), mtu, fmt.Sprint(row.Retransmits))
	}
	_, err := fmt.Fprintf(w, "%s\n%s", trimRight(t.String()), r.footnotes())
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

func trimRight(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

// footnotes says how to read the table and under what it was measured.
func (r Report) footnotes() string {
	if len(r.Rows) == 0 {
		return ""
	}
	plan, first := r.Plan.withDefaults(), r.Rows[0]
	var b strings.Builder
	fmt.Fprintf(&b, "\nMedian of %d rounds; in brackets the range that holds the true median with %.0f %% confidence.\n",
		first.BitsPerSecond.N, first.BitsPerSecond.Confidence*100)
	fmt.Fprintf(&b, "Throughput: one TCP connection, writes of %d bytes, %v a round, counted at the receiver.\n", plan.WriteSize, plan.StreamTime)
	fmt.Fprintf(&b, "Latency: %d-byte TCP request and answer, one at a time, %v a round.\n", plan.RequestSize, plan.RequestTime)
	c := first.Conditions
	fmt.Fprintf(&b, "Linux %s %s, %d CPUs (%s).", c.Kernel, c.Arch, c.CPUs, c.CPUModel)
	load, steal := 0.0, 0.0
	for _, row := range r.Rows {
		load, steal = max(load, row.Conditions.LoadAverage), max(steal, row.Conditions.Steal)
	}
	fmt.Fprintf(&b, " Load before a row up to %.1f, CPU time stolen up to %.1f %%.\n", load, steal*100)
	if load > float64(c.CPUs) {
		b.WriteString("The machine was busy with other work: compare the rows with care.\n")
	}
	return b.String()
}
