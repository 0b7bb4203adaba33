package conformance

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// spec is one spec that was run.
type spec struct {
	Name    string
	Seconds float64
	Failure string // empty: it passed
}

// junit is what of ginkgo's report (JUnit's XML) is of interest.
type junit struct {
	Cases []struct {
		Name    string  `xml:"name,attr"`
		Seconds float64 `xml:"time,attr"`
		Status  string  `xml:"status,attr"`
		Failure *struct {
			Text string `xml:",chardata"`
		} `xml:"failure"`
		Error *struct {
			Text string `xml:",chardata"`
		} `xml:"error"`
	} `xml:"testsuite>testcase"`
}

// readReport reads the report that e2e.test leaves in a directory.
func readReport(dir string) ([]spec, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "junit_01.xml"))
	if err != nil {
		return nil, err
	}
	var j junit
	if err := xml.Unmarshal(raw, &j); err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	var out []spec
	for _, c := range j.Cases {
		s := spec{Name: strings.TrimPrefix(c.Name, "[It] "), Seconds: c.Seconds}
		switch {
		case c.Failure != nil:
			s.Failure = c.Failure.Text
		case c.Error != nil:
			s.Failure = c.Error.Text
		case c.Status != "passed":
			continue // not of the set, or before and after it
		}
		if s.Failure == "" && !strings.HasPrefix(c.Name, "[It]") {
			continue // [SynchronizedBeforeSuite] and the like: of interest if they failed
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b spec) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func TestReadReport(t *testing.T) {
	dir := t.TempDir()
	const report = `<testsuites><testsuite name="s">
<testcase name="[SynchronizedBeforeSuite]" status="passed" time="0.1"></testcase>
<testcase name="[It] [sig-network] DNS works" status="passed" time="12.5"></testcase>
<testcase name="[It] [sig-network] other" status="skipped" time="0"><skipped message="skipped"></skipped></testcase>
<testcase name="[It] [sig-network] A service" status="failed" time="3"><failure message="m">timed out</failure></testcase>
</testsuite></testsuites>`
	if err := os.WriteFile(filepath.Join(dir, "junit_01.xml"), []byte(report), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readReport(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []spec{{"[sig-network] A service", 3, "timed out"}, {"[sig-network] DNS works", 12.5, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
