package cluster

import (
	"strings"
	"testing"

	"slipway/installer"
	"slipway/installer/pki"
)

// Each machine is asked for the ports that its own units take: the numbers that
// their templates have.
func TestPortsThatMustBeFree(t *testing.T) {
	in := inputs(t, balanced("mode: external, vip: 192.168.233.100"))
	plan, err := Plan(in, "00")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, st := range plan.Phases[0].Steps {
		for _, w := range st.Work {
			for _, it := range w.Items {
				if ports, ok := strings.CutPrefix(it.ID(), "requirement ports of "); ok {
					got[w.Host] += strings.ReplaceAll(ports, ".service", "") + "\n"
				}
			}
		}
	}
	const proxy = "kube-proxy: 10256\nkube-proxy: 10249\n"
	for host, want := range map[string]string{
		"master01": "etcd: 2379 2380\netcd: 2381\nkube-apiserver: 6443\nkube-controller-manager: 10257\nkube-scheduler: 10259\n" + proxy,
		"node01":   proxy,
		"lb02":     "api-balancer: 6443 8081\napi-balancer: 9090\n",
	} {
		if got[host] != want {
			t.Errorf("%s: %q, want %q", host, got[host], want)
		}
	}
}

// What the store does not have yet, nobody is measured by.
func TestPreflightWithoutCertificates(t *testing.T) {
	in := inputs(t, threeMasters)
	for _, store := range []*pki.Store{nil, {Dir: t.TempDir()}} {
		in.PKI = store
		plan, err := Plan(in, "00")
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range plan.Phases[0].Steps {
			for _, w := range st.Work {
				for _, it := range w.Items {
					if r, ok := it.(installer.Require); ok && strings.HasPrefix(r.Name, "authority") {
						t.Errorf("%s wants %s", w.Host, r.Check)
					}
				}
			}
		}
	}
}
