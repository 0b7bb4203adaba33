package report

import (
	"bytes"
	"errors"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	// The first is as reports were before series named their main metric.
	for _, want := range []*Report{fixture(), curves()} {
		text := rendered(t, want, Write)
		got, err := Read(strings.NewReader(text), "bench.json")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if again := rendered(t, got, Write); again != text {
			t.Error("written again it differs")
		}
	}
}

// Each edit of a good file must be refused, with the file's name, the field and
// what is wrong with it.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	good := rendered(t, fixture(), Write)
	for name, c := range map[string]struct{ old, replacement, want string }{
		"empty":               {good, " ", "f.json: the file is empty"},
		"not JSON":            {good, "hello", "f.json: not JSON at byte 0"},
		"cut off":             {good, good[:len(good)/2], "not JSON at byte"},
		"a list":              {good, "[]", "f.json: "},
		"two":                 {good, good + good, "not JSON at byte"},
		"another kind":        {`"BenchReport"`, `"Trace"`, `f.json: kind: want "BenchReport", got "Trace"`},
		"a newer version":     {`"slipway/v1alpha1"`, `"slipway/v2"`, `f.json: apiVersion: this program reads "slipway/v1alpha1", the file is "slipway/v2"`},
		"no version":          {`"apiVersion": "slipway/v1alpha1",`, ``, `f.json: apiVersion: this program reads "slipway/v1alpha1", the file is nothing`},
		"unknown field":       {`"mtu": 65536`, `"mtuu": 65536`, "f.json: series[3].mtuu: reports have no such field"},
		"unknown in depth":    {`"cpus": 2`, `"cpus": 2, "cores": 1`, "f.json: conditions.cores: reports have no such field"},
		"text for a number":   {`"cpus": 2`, `"cpus": "two"`, "f.json: conditions.cpus: "},
		"a fraction of bytes": {`"mtu": 65536`, `"mtu": 1.5`, "f.json: series[3].mtu: "},
		"given twice":         {`"cpus": 2`, `"cpus": 2, "cpus": 3`, "f.json: conditions.cpus: "},
		"bad time":            {`"started": "2026-11-21T04:00:00Z"`, `"started": "yesterday"`, "f.json: started: "},
		"better":              {`"better": "lower"`, `"better": "smaller"`, `f.json: series[0].metrics[1].better: "smaller" is not one of`},
		"no name":             {`"name": "rate"`, `"name": ""`, "f.json: series[3].metrics[0].name: is empty"},
		"a name twice":        {`"name": "p99"`, `"name": "throughput"`, `f.json: series[0].metrics[1].name: "throughput" is there twice`},
		"lost rounds":         {`61500,`, ``, "f.json: series[3].metrics[0].summary.n: is 3, but 2 rounds have a figure"},
		"inverted interval":   {`"low": 61500`, `"low": 70000`, "f.json: series[3].metrics[0].summary: the median 63000 is not within its interval 70000 to 64000"},
		"confidence":          {`"confidence": 0.75`, `"confidence": 75`, "f.json: series[3].metrics[0].summary.confidence: 75 is not within 0 to 1"},
		"ratio to nothing":    {`"control": "flannel-host-gw"`, `"control": ""`, "f.json: series[0].metrics[0].control: is empty"},
		"the same twice":      {`"variant": "calico-bgp"`, `"variant": "flannel-vxlan"`, "f.json: series[2]: the same variant, workload, path, target and params as series[0]"},
	} {
		bad := strings.Replace(good, c.old, c.replacement, 1)
		if bad == good {
			t.Errorf("%s: the edit changes nothing", name)
			continue
		}
		_, err := Read(strings.NewReader(bad), "f.json")
		var at *FileError
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), "f.json: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// What could not be read again is not written.
func TestWriteChecks(t *testing.T) {
	t.Parallel()
	r := fixture()
	*r.Series[0].Metrics[0].Rounds[2] = math.NaN()
	var b bytes.Buffer
	if err := Write(&b, r); err == nil || !strings.Contains(err.Error(), "series[0].metrics[0].rounds[2]") || b.Len() > 0 {
		t.Errorf("%v, %d bytes", err, b.Len())
	}
	if err := Write(failing{}, fixture()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := Write(&b, fixture()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(`{"apiVersion":"slipway/v1alpha1","kind":"BenchReport","series":[{"variant":"a","workload":"b","metrics":[{"name":"x","rounds":[null]}]}]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Read(bytes.NewReader(in), "f")
		if err != nil {
			return
		}
		for _, render := range []func(io.Writer, *Report) error{Table, CSV, Markdown, Write} {
			if err := render(io.Discard, r); err != nil {
				t.Error(err)
			}
		}
		if err := Compare(r, r, 0).Text(io.Discard); err != nil {
			t.Error(err)
		}
	})
}
