package kubeproxy

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"slipway/datapath/kubeproxy"
)

// shape is one arrangement of services and endpoints, or how one becomes another.
type shape struct {
	name, shows string
	options     []string // names in configurations
	steps       []string // manifests, each of which replaces the one before
}

// leftOut are the shapes that kube-proxy knows and a cluster file, or its
// objects, cannot express.
var leftOut = map[string]string{
	"IPv6 and dual-stack services":                                                                "a lab has IPv4 only; slices of other families are in the corpus, for kube-proxy to leave out",
	"the ipvs and winkernel modes":                                                                "a lab has iptables and nftables",
	"detectLocalMode NodeCIDR, BridgeInterface, InterfaceNamePrefix":                              "a lab's pods are told by the cluster CIDR, as kubeadm has it, or not at all",
	"nodePortAddresses with ranges":                                                               "a lab has upstream's default of each mode, or all addresses",
	"pods with hostNetwork behind a selector":                                                     "a lab runs none; their endpoints are in the corpus as slices",
	"pods that are not ready behind a selector":                                                   "a lab's pods are ready while they run; such endpoints are in the corpus as slices",
	"topology-mode: Auto":                                                                         "its hints depend on the CPUs of nodes, which a lab has not; hints as such are in the corpus as slices",
	"an endpoint twice in slices, not going away in both":                                         "which one counts is random (endpointslicecache.go: the result is undefined)",
	"a service status with addresses without type LoadBalancer":                                   "the API refuses it",
	"the feature gate AllowServiceExternalIPs off":                                                "a lab has the default",
	"names of namespace, service and port with more than 126 letters together, without endpoints": "in nftables mode upstream cannot write its rules then (comment too long); ours are cut",
	"more than 1000 endpoints":                                                                    "a golden of datapath/kubeproxy holds what then changes; a corpus of it would be slow",
}

// configurations are how kube-proxy is configured.
var configurations = map[string]func(*kubeproxy.Options){
	"default":        func(*kubeproxy.Options) {},
	"masquerade-all": func(o *kubeproxy.Options) { o.MasqueradeAll = true },
	"no-detection":   func(o *kubeproxy.Options) { o.ClusterCIDR = none },
	"everywhere":     func(o *kubeproxy.Options) { o.NodePortsEverywhere = true },
	"not-localhost":  func(o *kubeproxy.Options) { o.LocalhostNodePorts = false },
	"another-bit":    func(o *kubeproxy.Options) { o.MasqueradeBit = 7 },
}

// shapes reads the corpus: archives with a file for each shape, which begins
// with a line that says what it shows, and perhaps one of configurations. A line
// of ==== ends a step.
func shapes(t *testing.T) []shape {
	t.Helper()
	var out []shape
	seen := map[string]bool{}
	for _, path := range files(t, "testdata/shapes/*.txtar") {
		archive := txtar.Parse(read(t, path))
		for _, f := range archive.Files {
			s := shape{name: strings.TrimSuffix(filepath.Base(path), ".txtar") + "/" + f.Name, options: []string{"default"}}
			text := string(f.Data)
			first, rest, _ := strings.Cut(text, "\n")
			s.shows = strings.TrimPrefix(first, "# ")
			if s.shows == first || seen[s.name] {
				t.Fatalf("%s: a shape says what it shows, and has a name of its own", s.name)
			}
			seen[s.name] = true
			if names, ok := strings.CutPrefix(strings.SplitN(rest, "\n", 2)[0], "# configurations: "); ok {
				s.options = strings.Split(names, ", ")
			}
			s.steps = strings.Split(text, "\n====\n")
			out = append(out, s)
		}
	}
	return out
}

// TestTheCorpusIsLargeEnough holds the corpus to what was promised.
func TestTheCorpusIsLargeEnough(t *testing.T) {
	all := shapes(t)
	if len(all) < 60 {
		t.Errorf("%d shapes, want at least 60", len(all))
	}
	for _, s := range all {
		for _, o := range s.options {
			if configurations[o] == nil {
				t.Errorf("%s: no configuration %q", s.name, o)
			}
		}
	}
}

// TestRulesAreKubeProxys: for every shape the kernel holds the same rules of us
// as of the real kube-proxy, in both modes, on two nodes. One kube-proxy of each
// kind goes through all shapes, and so do we, so that what is left of the shape
// before would be seen as well.
func TestRulesAreKubeProxys(t *testing.T) {
	all := shapes(t)
	for why, reason := range leftOut {
		t.Logf("left out: %s: %s", why, reason)
	}
	for _, mode := range []string{"iptables", "nftables"} {
		for _, node := range []string{"node01", "node02"} {
			for name := range configurations {
				if name != "default" && node != "node01" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%s", mode, node, name), func(t *testing.T) {
					t.Parallel()
					b := newBed(t, mode, node, name)
					for _, s := range all {
						if slices.Contains(s.options, name) {
							t.Run(s.name, func(t *testing.T) { b.walk(t, s) })
						}
					}
					b.settles(t)
				})
			}
		}
	}
}
