package tracer

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"slipway/datapath"
	"slipway/datapath/trace"
)

func testBundle() *Bundle {
	st := testState()
	delivered := trace.Delivered
	agree := true
	return &Bundle{
		Trace: &trace.Trace{
			APIVersion: APIVersion, Kind: Kind, Lab: "three", Mode: "flannel-vxlan", Verdict: delivered, ObservedVerdict: &delivered, Agree: &agree,
			Disagreements: []trace.Disagreement{}, Predicted: way("client eth0 egress"), Observed: way("client eth0 egress"),
			Reply: trace.Reply{Predicted: []trace.Hop{}, Observed: []trace.Hop{}},
		},
		Snapshot: st.Snapshot,
		Network: &trace.Recorded{
			Places: map[string]trace.Place{"slipway-three-node01": {Label: "node01", Namespace: "slipway-three-node01"}},
			States: map[string]*datapath.NetState{"slipway-three-node01": {Namespace: "slipway-three-node01", RuleSave: map[string]string{"nat": "*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"}}},
			Peers:  map[string]trace.PeerEnd{},
		},
	}
}

func TestBundleRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "bundle") // parents are made
	want := testBundle()
	if err := want.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	equal := cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, netip.AddrPort{}), cmpopts.EquateEmpty()}
	if diff := cmp.Diff(want.Trace, got.Trace, equal); diff != "" {
		t.Errorf("trace (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want.Network.States, got.Network.States, equal); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
	rules, err := os.ReadFile(filepath.Join(dir, "rules", "slipway-three-node01.rules"))
	if err != nil || !strings.Contains(string(rules), ":OUTPUT ACCEPT") {
		t.Errorf("rules: %q, %v", rules, err)
	}
	if err := want.Write(dir); err != nil {
		t.Errorf("a bundle is not replaced: %v", err)
	}
	left, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(left) != 1 {
		t.Errorf("left beside the bundle: %v, %v", left, err)
	}
}

func TestBundleLeavesOtherFilesAlone(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "thesis.tex")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	var refused *BundleError
	if err := testBundle().Write(dir); !errors.As(err, &refused) {
		t.Errorf("error is %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if err := testBundle().Write(precious); !errors.As(err, &refused) {
		t.Errorf("over a file: error is %v", err)
	}
}

func TestReadBundleSaysWhatIsWrong(t *testing.T) {
	good := filepath.Join(t.TempDir(), "good")
	if err := testBundle().Write(good); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		says  string
	}{
		"nothing there": {func(t *testing.T, dir string) { must(t, os.RemoveAll(dir)) }, "is no recorded trace"},
		"state missing": {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, stateFile))) }, "it has no state.json"},
		"cut off": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, traceFile), []byte(`{"kind":"Tra`), 0o600))
		}, "trace.json: cannot be read"},
		"something else": {func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, traceFile), []byte(`{"kind":"Pod"}`), 0o600))
		}, `kind is "Pod", not "Trace"`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "b")
			must(t, testBundle().Write(dir))
			c.spoil(t, dir)
			_, err := ReadBundle(dir)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
