package scenario

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"slipway/installer/components"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/kube"
	"slipway/topology"
)

// TestRealComponents plays the scenarios whose labs run real components, as
// TestScenarios plays the others. A lab of those is dear: scenarios with the same
// cluster file follow each other on one, where each begins as `slipway up` mends
// what the one before it left.
func TestRealComponents(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.BPF, testnet.Curl, testnet.Conntrack, testnet.OpenSSL)
	t.Parallel() // one lab at a time, beside those of TestScenarios
	all, err := All()
	if err != nil {
		t.Fatal(err)
	}
	var groups [][]*Scenario
	for _, s := range all {
		if s.Components == topology.ComponentsNone {
			continue
		}
		i := slices.IndexFunc(groups, func(g []*Scenario) bool { return g[0].sameLab() == s.sameLab() })
		if i < 0 {
			i, groups = len(groups), append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	if len(groups) == 0 {
		t.Fatal("there are none")
	}
	for i, group := range groups {
		name := fmt.Sprintf("sc%d-%d", os.Getpid(), i+1)
		t.Run("with-"+group[0].Name, func(t *testing.T) {
			needs(t, group[0])
			c, diags := topology.Parse(clusterFile, group[0].files[clusterFile])
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			testnet.Room(t, kube.InotifyNeed(c))
			t.Cleanup(func() {
				testnet.Eventually(t, patience, "the lab is down", func() (bool, string) { // again finishes what took too long
					out, code := slipway(t, "down", name)
					return code == 0 || strings.Contains(out, lab.ErrNoLab.Error()), out
				})
			})
			for _, s := range group {
				t.Run(s.Name, func(t *testing.T) {
					x := start(t, s, name)
					play(t, x)
					tidy(t, x)
				})
			}
		})
	}
}

// sameLab is the same for scenarios that can be played on one lab.
func (s *Scenario) sameLab() string {
	return string(s.files[clusterFile]) + "\x00" + string(s.files["objects.yaml"])
}

// needs says whether the components of a scenario's lab are built.
func needs(t *testing.T, s *Scenario) {
	t.Helper()
	names := map[string]testnet.Capability{"kubernetes": testnet.Kubernetes, "etcd": testnet.Kubernetes}
	if strings.Contains(string(s.files[clusterFile]), "load-balancer") {
		testnet.Need(t, testnet.HAProxy, testnet.NGINX, testnet.Keepalived)
	}
	if s.Components == topology.ComponentsFull {
		for _, c := range []string{"containerd", "runc", "cni-plugins", "coredns", "echo", "pause"} {
			names[c] = testnet.Containerd
		}
	}
	for name, c := range names {
		if _, err := components.Lookup(t.Context(), name); err != nil {
			testnet.Lacks(t, c, err)
		}
	}
}

// tidy takes back what `slipway up` does not: that nodes were closed, whatever their
// labels.
func tidy(t *testing.T, x *Session) {
	t.Helper()
	testnet.Eventually(t, patience, "the nodes are open again", func() (bool, string) {
		out, _, err := x.run(t.Context()).slipway([]string{"kubectl", "uncordon", "-l", "!closed-for-good", "--request-timeout=10s"})
		return err == nil, fmt.Sprint(out, err)
	})
}
