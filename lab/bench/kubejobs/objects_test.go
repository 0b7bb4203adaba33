package kubejobs

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"slipway/lab/bench/load"
)

var update = flag.Bool("update", false, "write testdata/")

// The manifests, as they were read: pods that ask for nothing but a socket, on the
// node that they are meant for, that end by themselves.
func TestManifests(t *testing.T) {
	o := pods{namespace: "slipway-bench", image: "slipway.local/slipway:1"}
	tolerant := pods{namespace: "slipway-bench", image: "slipway.local/slipway:1", tolerant: true}
	server := place{name: toOther, role: toOther, node: "node02"}
	pod, err := o.server(server, ServerConfig{Token: "secret", Control: podControl, Data: podData, LifeNs: (10 * time.Minute).Nanoseconds()})
	if err != nil {
		t.Fatal(err)
	}
	task := Task{Token: "secret", Asks: []Ask{{
		Job:     jobOf(load.Job{Workload: load.TCPRequests, Duration: 400 * time.Millisecond, WarmUp: 50 * time.Millisecond}),
		Control: netip.MustParseAddrPort("10.244.1.2:5300"), To: netip.MustParseAddrPort("10.96.0.7:5301"),
	}}}
	job, err := tolerant.job(place{name: jobName(fromNode, 0), role: fromNode, node: "node01", onNode: true}, task, 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]any{
		"namespace": namespaceFor("slipway-bench", "me@here", true), "namespace-restricted": namespaceFor("slipway-bench", "me@here", false),
		"account": o.accountFor(), "server": pod, "service": o.service(server), "job-on-node": job,
	} {
		got, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(path, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%s", name, cmp.Diff(string(want), string(got)))
		}
	}
}
