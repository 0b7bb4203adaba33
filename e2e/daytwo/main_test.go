// Package daytwo changes real clusters that are installed: what is kept comes
// back, members come and go, programs and certificates are replaced.
package daytwo

import (
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/daytwo"
	"slipway/internal/testnet"
	"slipway/topology"
)

func TestMain(m *testing.M) { rig.Main(m) }

// bed is a cluster that is installed.
type bed struct {
	*rig.Rig
	t *testing.T
	daytwo.Cluster
	had *topology.Allocation
}

// machines boots what a cluster file names, and installs nothing.
func machines(t *testing.T, spec string, programs map[string]installer.Blob) *bed {
	t.Helper()
	r := rig.New(t, spec, programs)
	return &bed{Rig: r, t: t, Cluster: daytwo.Cluster{Inputs: r.Inputs, Hosts: r.Engine.Hosts}}
}

func installed(t *testing.T, spec string, programs map[string]installer.Blob, only ...string) *bed {
	t.Helper()
	b := machines(t, spec, programs)
	if err := b.Engine.Apply(t.Context(), b.plan(only...)); err != nil {
		t.Fatal(err)
	}
	return b
}

// run is t.Run, of which the bed knows.
func (b *bed) run(name string, f func(t *testing.T)) {
	of := b.t
	of.Run(name, func(t *testing.T) {
		b.t = t
		defer func() { b.t = of }()
		f(t)
	})
}

func (b *bed) plan(only ...string) installer.Plan {
	b.t.Helper()
	p, err := cluster.Plan(b.Cluster.Inputs, only...)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

// kubectl runs kubectl on a master, until it is done.
func (b *bed) kubectl(on, args string) (out string) {
	b.t.Helper()
	testnet.Eventually(b.t, 2*time.Minute, "kubectl "+args, func() (bool, string) {
		var code int
		out, code = b.Nodes[on].Sh("/usr/local/bin/kubectl --kubeconfig /etc/kubernetes/admin.conf " + args)
		return code == 0, out
	})
	return strings.TrimSpace(out)
}

const etcdTLS = " --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key"

// etcdctl asks the member on a machine, until it answers.
func (b *bed) etcdctl(on, args string) (out string) {
	b.t.Helper()
	testnet.Eventually(b.t, 2*time.Minute, "etcdctl "+args, func() (bool, string) {
		var code int
		out, code = b.Nodes[on].Sh("/usr/local/bin/etcdctl --command-timeout 5s" + etcdTLS + " --endpoints https://127.0.0.1:2379 " + args)
		return code == 0, out
	})
	return strings.TrimSpace(out)
}
