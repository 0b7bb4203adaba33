package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer/facts"
	"slipway/installer/mesh"
	"slipway/installer/preflight"
)

func cell(from, to string, port int, s mesh.State, reason, by string) mesh.Cell {
	return mesh.Cell{
		Pair:  mesh.Pair{From: from, To: to, Protocol: mesh.TCP, Port: port, For: "a test", Address: netip.MustParseAddr("10.0.0.1")},
		State: s, Reason: reason, By: by,
	}
}

// What is closed for one reason is one finding; what could not be tried is no
// error; what an operator ignores is none either, and says so.
func TestMeshFindings(t *testing.T) {
	m := &mesh.Matrix{Cells: []mesh.Cell{
		cell("a", "b", 1, mesh.Timeout, "", ""), cell("a", "b", 2, mesh.Open, "", ""), cell("a", "b", 3, mesh.Timeout, "", ""), cell("a", "b", 4, mesh.Refused, "", ""),
		cell("b", "a", 6443, mesh.Held, "", "nginx"), cell("b", "a", 5, mesh.Unknown, "a took no part", ""),
	}}
	got := meshFindings(m, false)
	want := []preflight.Finding{
		{Check: "mesh", Host: "a", Severity: preflight.Error, Text: "to b: timeout: 1/tcp (a test), 3/tcp (a test)", Hint: meshHints[mesh.Timeout]},
		{Check: "mesh", Host: "a", Severity: preflight.Error, Text: "to b: refused: 4/tcp (a test)", Hint: meshHints[mesh.Refused]},
		{Check: "mesh", Host: "b", Severity: preflight.Warning, Text: "to a: unknown: 5/tcp (a test): a took no part", Hint: meshHints[mesh.Unknown]},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, f := range meshFindings(m, true) {
		if f.Severity != preflight.Warning || f.Ignored != (f.Host == "a") {
			t.Errorf("%+v", f)
		}
	}
	var b bytes.Buffer
	r := preflightReport{Cluster: "demo", Findings: got, Mesh: m, Facts: map[string]facts.Facts{"a": {}, "b": {}}, order: []string{"a", "b"}}
	if err := printPreflight(&b, &r, false); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"error    mesh            a: to b: timeout: 1/tcp (a test), 3/tcp (a test)\n                         > " + meshHints[mesh.Timeout],
		"1 of 4, not 1/tcp 3/tcp 4/tcp", "1 of 2, not 5/tcp",
		"demo: 2 errors, 1 warning on 2 hosts; 2 of 6 ways between them are there, 1 of them to ports that services have already (as 6443/tcp of a: nginx)",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
