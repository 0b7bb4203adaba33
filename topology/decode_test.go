package topology

import (
	"fmt"
	"strings"
	"testing"
)

const head = "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: lab}\n"

// codes lists the codes of some diagnostics in order.
func codes(ds Diagnostics) string {
	var out []string
	for _, d := range ds {
		out = append(out, d.Code)
	}
	return strings.Join(out, " ")
}

func TestAliasesAndMergeKeys(t *testing.T) {
	c := cluster(t, `spec:
  nodes:
    - &first {name: n1, roles: [worker], labels: &l {disk: ssd}}
    - {<<: *first, name: n2}
    - {name: n3, labels: *l}
`)
	for _, n := range c.Spec.Nodes {
		if n.Labels["disk"] != "ssd" || !n.RunsPods() {
			t.Errorf("%+v", n)
		}
	}
	if c.Spec.Nodes[1].Name != "n2" {
		t.Errorf("the merged name won: %s", c.Spec.Nodes[1].Name)
	}
}

// TestHostileYAML: input that grows without bounds is refused, soon.
func TestHostileYAML(t *testing.T) {
	var laughs strings.Builder
	laughs.WriteString(head + "spec:\n  manifests: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 12 {
		ref := fmt.Sprintf("*a%d", i)
		fmt.Fprintf(&laughs, "  f%d: &a%d [%s]\n", i, i+1, strings.TrimSuffix(strings.Repeat(ref+", ", 10), ", "))
	}
	for name, text := range map[string]string{
		"self reference":    head + "spec: {nodes: &n [*n]}\n",
		"mutual reference":  head + "spec:\n  nodes: [&a {<<: *b}, &b {<<: *a}]\n",
		"brackets":          head + "spec: " + strings.Repeat("[", 100_000),
		"block sequences":   head + "spec:\n  " + strings.Repeat("- ", 20_000) + "x\n",
		"billion laughs":    laughs.String(),
		"not UTF-8":         head + "spec: \xff\n",
		"endless directive": strings.Repeat("%", 10_000),
	} {
		if c, diags := Parse("f", []byte(text)); c != nil || diags.Err() == nil {
			t.Errorf("%s was accepted", name)
		} else {
			checkPlaces(t, []byte(text), diags)
		}
	}
	manifest := strings.Replace(laughs.String(), head, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", 1)
	if _, _, err := LoadManifests("f", []byte(manifest)); err == nil {
		t.Error("billion laughs were accepted as a manifest")
	}
	annotated := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\n" + strings.TrimPrefix(laughs.String(), head)
	if _, _, err := LoadManifests("f", []byte(annotated)); err != nil {
		t.Errorf("a skipped kind is not looked into, but: %v", err)
	}
}

func TestNullIsAbsent(t *testing.T) {
	c := cluster(t, "spec:\n  network:\n  nodes: ~\n  proxy: {mode: null}\n")
	if len(c.Spec.Nodes) != 3 || c.Spec.Proxy.Mode != ProxyIPTables || c.Spec.Network.Mode != FlannelVXLAN {
		t.Errorf("%+v", c.Spec)
	}
}

// TestExplicitZeroIsNotTheDefault: 0 is judged, not replaced.
func TestExplicitZeroIsNotTheDefault(t *testing.T) {
	_, diags := Parse("f", []byte(head+"spec: {network: {vxlan: {vni: 0}, udp: {port: 0}, bgp: {asn: 0}}, underlay: {segments: [{name: a, mtu: 0}]}, nodes: []}\n"))
	if got := codes(diags); got != "out-of-range bad-port bad-asn mtu-too-small no-nodes" {
		t.Errorf("got %s\n%v", got, diags)
	}
}

func TestBOMAndCRLF(t *testing.T) {
	c, diags := Parse("f", []byte("\ufeff"+strings.ReplaceAll(head, "\n", "\r\n")))
	if c == nil || c.Metadata.Name != "lab" {
		t.Fatal(diags)
	}
	_, diags = Parse("f", []byte(strings.ReplaceAll(head+"spec:\n  mode: x\n", "\n", "\r\n")))
	if len(diags) != 1 || diags[0].Line != 5 || diags[0].Col != 3 || strings.Contains(diags[0].Source, "\r") {
		t.Errorf("%+v", diags)
	}
}
