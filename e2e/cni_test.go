package e2e

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/lab"
	"slipway/topology"
)

// TestCNIExec plugs the same pods once by the CNI plugin's code in the process
// and once by the plugin binary: the labs are the same to whoever looks at them.
func TestCNIExec(t *testing.T) {
	spec := "  nodes:\n    - {name: node01, roles: [control-plane, etcd, worker]}\n    - {name: node02, roles: [worker]}\n"
	for _, mode := range []topology.ModeName{topology.FlannelHostGW, topology.CalicoIPIP} {
		t.Run(string(mode), func(t *testing.T) {
			looks := map[lab.CNIPath]map[string]string{}
			for _, path := range []lab.CNIPath{lab.CNIInProcess, lab.CNIExec} {
				t.Run(string(path), func(t *testing.T) {
					l := up(t, "cni", networkSpec(mode, "")+spec, modesObjectsOn("node02"), "--cni", string(path))
					if l.st.CNI != path {
						t.Errorf("the lab's pods are plugged in by %q, want %q", l.st.CNI, path)
					}
					worksAfter(t, l)
					wantHealthy(t, l)
					if res := l.again(networkSpec(mode, "")+spec, modesObjectsOn("node02")); len(res.Changes) > 0 {
						t.Errorf("up of the same file changed %+v, want nothing", res.Changes)
					}
					looks[path] = look(t, l)
				})
			}
			if diff := cmp.Diff(looks[lab.CNIInProcess], looks[lab.CNIExec]); diff != "" {
				t.Errorf("a lab plugged in process and one by the plugin binary (-in-process +exec):\n%s", diff)
			}
		})
	}
}

// look shows links, addresses and routes of every node and pod, without what
// differs from one creation to the next: indexes, identifiers and the MAC
// addresses that the kernel makes up for host ends.
func look(t *testing.T, l *testLab) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range append(l.nodes(), l.pods()...) {
		text := ip(t, p, "-o", "-4", "addr") + ip(t, p, "route") + ip(t, p, "-br", "link")
		for _, x := range varying {
			text = x.ReplaceAllString(text, "")
		}
		out[p.name] = text
	}
	return out
}

var varying = []*regexp.Regexp{
	regexp.MustCompile(`(?m)^\d+: `),
	regexp.MustCompile(`@if\d+`),
	regexp.MustCompile(`(?m)^(veth|cali).* ([0-9a-f]{2}:){5}[0-9a-f]{2} .*$`),
}
