package vms

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/installer"
	"slipway/internal/testnet"
	"slipway/lab/kube"
	"slipway/topology"
)

// What a machine is asked with, as root.
const (
	etcdctl = "etcdctl --command-timeout 60s --dial-timeout 60s --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key --endpoints https://127.0.0.1:2379 "
	kubectl = "kubectl --cache-dir /tmp/kubectl --kubeconfig /etc/kubernetes/admin.conf "
)

// forLong is what a cluster may take for something, all of whose machines are
// emulated by one that others use as well.
const forLong = 40 * time.Minute

// spec is what a cluster file says for slow machines.
const spec = `  network: {mode: flannel-vxlan}
  controlPlane: {loadBalancer: {mode: node-local}, etcd: {heartbeat: 500ms, election: 5s}}
`

// TestCluster has a cluster installed by SSH on three machines with kernels of their
// own: etcd with TLS goes on when its leader's machine loses power, and all that was
// installed comes back when all machines boot again.
func TestCluster(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.VMs)
	slipway := buildSlipway(t)
	// Processors beyond those that emulate them cost time, and give none.
	r := Start(t, Options{Machines: 3, MemoryMB: 4096, CPUs: []int{2}, Files: carried(t, slipway)})
	for _, m := range r.Machines {
		t.Logf("%s booted in %s: %s", m.Name(), m.Booted.Round(time.Second), m.Must("uname -r; cat /proc/loadavg"))
		m.Must(intoStore)
	}
	c := &cluster{Rig: r, operator: newOperator(t, r, slipway)}
	c.file = c.clusterFile(spec, "control-plane, etcd", "etcd", "etcd, worker")
	c.step(t, "etcd on three machines", c.installEtcd)
	c.step(t, "the leader's machine loses power", c.losesLeader)
	c.step(t, "the control plane and its balancers", c.installControlPlane)
	c.step(t, "all machines boot again: the control plane", func(t *testing.T) { c.boots(t); c.serves(t); c.unchanged(t, untilNodes...) })
	c.step(t, "all of the cluster", func(t *testing.T) { t.Log(c.apply()); c.works(t); c.unchanged(t) })
	c.step(t, "all machines boot again", func(t *testing.T) { c.boots(t); c.returns(t); c.works(t); c.unchanged(t) })
}

// carried are the programs and images that a cluster's machines need, by their sums:
// who decrypts them by an emulated processor waits for hours.
func carried(t *testing.T, slipway string) map[string]string {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: site}\nspec:\n  components: full\n"+spec))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	programs, images, err := kube.Supply(t.Context(), c, nil)
	if err != nil {
		testnet.Lacks(t, testnet.Kubernetes, err)
	}
	delete(programs, "slipway") // which is this test
	files := map[string]string{}
	for _, blobs := range []map[string]installer.Blob{programs, images} {
		for _, b := range blobs {
			files[b.Sum] = b.Path
		}
	}
	data, err := os.ReadFile(slipway)
	if err != nil {
		t.Fatal(err)
	}
	files[fmt.Sprintf("%x", sha256.Sum256(data))] = slipway
	return files
}

// intoStore puts what a machine has on its disk where uploads go, which skip what is
// there as it is to be.
const intoStore = `set -e
mkdir -p ` + installer.StoreDir + `
for f in ` + FilesDir + `/*; do [ $(basename "$f" | wc -c) != 65 ] || cp "$f" ` + installer.StoreDir + `; done
chmod 755 ` + installer.StoreDir + `/*
`

// cluster is three machines that become one.
type cluster struct {
	*Rig
	*operator
	file string
}

// step is one without which the next ones make no sense.
func (c *cluster) step(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	began := time.Now()
	ok := t.Run(name, func(t *testing.T) {
		defer c.use(t)()
		f(t)
	})
	t.Logf("%s: %s", name, time.Since(began).Round(time.Second))
	if !ok {
		t.FailNow()
	}
}

// use has what fails fail a subtest.
func (c *cluster) use(t testing.TB) (back func()) {
	was := c.Rig.t
	set := func(t testing.TB) {
		c.Rig.t, c.operator.t = t, t
		for _, m := range c.Machines {
			m.t = t
		}
	}
	set(t)
	return func() { set(was) }
}

// apply applies, with the patience that emulation takes.
func (c *cluster) apply(args ...string) string {
	return c.must(append([]string{"install", "apply", "-f", c.file, "--accept-new", "--unrehearsed", "--no-mesh", "--ignore", "cpu", "--patience", forLong.String()}, args...)...)
}

func (c *cluster) installEtcd(t *testing.T) {
	t.Log(c.apply("--phase", "00,01,03,04"))
	for _, m := range c.Machines {
		if unit := m.Must("systemctl cat etcd.service"); !strings.Contains(unit, "--heartbeat-interval=500 ") || !strings.Contains(unit, "--election-timeout=5000 ") {
			t.Errorf("%s: etcd has other intervals:\n%s", m.Name(), unit)
		}
		// Who has no certificate learns nothing.
		if out, code := m.Sh("curl -sSk -m 60 https://127.0.0.1:2379/version"); code == 0 {
			t.Errorf("%s: etcd answers whoever asks: %s", m.Name(), out)
		}
	}
	c.members(t)
}

// members waits until all machines are members that are healthy.
func (c *cluster) members(t *testing.T) {
	t.Helper()
	testnet.Eventually(t, forLong, "three members are healthy", func() (bool, string) {
		out, code := c.Machines[0].Sh(etcdctl + "endpoint health --cluster 2>&1")
		return code == 0 && strings.Count(out, "is healthy") == 3, out
	})
}

// leader waits until etcd has one, and returns its machine.
func (c *cluster) leader(t *testing.T) (leader *Machine) {
	t.Helper()
	testnet.Eventually(t, forLong, "etcd has a leader", func() (bool, string) {
		said := ""
		for _, m := range c.Machines {
			out, _ := m.Sh(etcdctl + "endpoint status -w json")
			var all []struct {
				Status struct {
					Header struct {
						Member uint64 `json:"member_id"`
					} `json:"header"`
					Leader uint64 `json:"leader"`
				}
			}
			if err := json.Unmarshal([]byte(out), &all); err == nil && len(all) == 1 && all[0].Status.Leader != 0 && all[0].Status.Leader == all[0].Status.Header.Member {
				leader = m
				return true, ""
			}
			said += m.Name() + ": " + out
		}
		return false, said
	})
	return leader
}

// losesLeader kills the machine of etcd's leader: the others write on by themselves,
// and it has what they wrote once it is back.
func (c *cluster) losesLeader(t *testing.T) {
	leader := c.leader(t)
	leader.Must(etcdctl + "put before 1")
	leader.Off()
	killed := time.Now()
	var other *Machine
	for _, m := range c.Machines {
		if m != leader {
			other = m
		}
	}
	testnet.Eventually(t, forLong, "a write is accepted", func() (bool, string) {
		out, code := other.Sh(etcdctl + "put after 2")
		return code == 0, out
	})
	t.Logf("%s was the leader's and was killed: written %s later", leader.Name(), time.Since(killed).Round(time.Second/10))
	leader.Boot()
	c.members(t)
	// Its own copy, without asking the others.
	if out := leader.Must(etcdctl + "get --consistency=s --prefix '' | grep -A1 -x -e before -e after"); !strings.Contains(out, "before\n1\n") || !strings.Contains(out, "after\n2\n") {
		t.Errorf("%s has %s", leader.Name(), out)
	}
	other.Must(etcdctl + "del before; " + etcdctl + "del after")
}

// untilNodes are the phases up to the first that sets up kubelets.
var untilNodes = []string{"--phase", "00,01,03,04,05,06,07"}

func (c *cluster) installControlPlane(t *testing.T) {
	t.Log(c.apply(untilNodes...))
	c.serves(t)
	c.unchanged(t, untilNodes...)
}

// serves waits until each machine reaches the API through its own balancer, and the
// controllers do their work: a namespace gets its service account.
func (c *cluster) serves(t *testing.T) {
	t.Helper()
	for _, m := range c.nodes() {
		testnet.Eventually(t, forLong, "the API answers "+m.Name()+" through its balancer", func() (bool, string) {
			out, _ := m.Sh("curl -sS -m 60 --cacert /etc/kubernetes/pki/ca.crt https://127.0.0.1:8443/readyz")
			return out == "ok", out
		})
	}
	first := c.Machines[0]
	first.Must(kubectl + "create namespace served")
	testnet.Eventually(t, forLong, "the controllers work", func() (bool, string) {
		out, code := first.Sh(kubectl + "-n served get serviceaccount default")
		return code == 0, out
	})
	first.Must(kubectl + "delete namespace served --wait=false; systemctl is-active kube-scheduler")
}

// unchanged applies once more, which has nothing to do.
func (c *cluster) unchanged(t *testing.T, phases ...string) {
	t.Helper()
	if out := c.apply(phases...); !strings.Contains(out, "site: no changes") {
		t.Errorf("another apply changes something:\n%s", out)
	}
}

// units are what has to run on each machine, by name.
var units = map[string][]string{
	"vm1": {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "api-balancer", "containerd", "kubelet", "kube-proxy", "slipway-agent"},
	"vm2": {"etcd"},
	"vm3": {"etcd", "api-balancer", "containerd", "kubelet", "kube-proxy", "slipway-agent"},
}

// nodes are the machines that are nodes of the cluster.
func (c *cluster) nodes() []*Machine {
	return slices.DeleteFunc(slices.Clone(c.Machines), func(m *Machine) bool { return !slices.Contains(units[m.Name()], "kubelet") })
}

// works waits until all nodes are ready, each reaches a pod by its service, and all
// that was installed runs.
func (c *cluster) works(t *testing.T) {
	t.Helper()
	first := c.Machines[0]
	testnet.Eventually(t, forLong, "all nodes are ready", func() (bool, string) {
		out, _ := first.Sh(kubectl + "get nodes --no-headers -o wide")
		return strings.Count(out, " Ready ") == len(c.nodes()) && strings.Count(out, "\n") == len(c.nodes()), out
	})
	for _, m := range c.nodes() {
		testnet.Eventually(t, forLong, "a pod answers "+m.Name(), func() (bool, string) {
			out, code := m.Sh("dig +short +time=20 +tries=1 @10.96.0.10 kubernetes.default.svc.cluster.local")
			return code == 0 && strings.TrimSpace(out) == "10.96.0.1", out
		})
		m.Must(settings + "ip -d link show flannel.1 | grep -q vxlan")
	}
	for _, m := range c.Machines {
		testnet.Eventually(t, forLong, "all of "+m.Name()+" runs", func() (bool, string) {
			out, code := m.Sh("systemctl is-active " + strings.Join(units[m.Name()], " ") + "; systemctl --failed --no-legend")
			return code == 0 && strings.TrimSpace(strings.ReplaceAll(out, "active", "")) == "", fmt.Sprintln(units[m.Name()], out)
		})
	}
}

// settings fails unless a machine has the modules and sysctls of every node.
const settings = `set -e
test -d /sys/module/br_netfilter
test "$(cat /proc/sys/net/ipv4/ip_forward) $(cat /proc/sys/net/bridge/bridge-nf-call-iptables)" = "1 1"
`

// boots ends all machines as they end by themselves, and boots them: etcd's members
// are back by themselves, and the API has what was written.
func (c *cluster) boots(t *testing.T) {
	t.Helper()
	first := c.Machines[0]
	first.Must(kubectl + "create configmap kept --from-literal=a=b")
	before := map[string]string{}
	for _, m := range c.Machines {
		before[m.Name()] = bootOf(m)
	}
	c.RebootAll()
	for _, m := range c.Machines {
		t.Logf("%s booted in %s", m.Name(), m.Booted.Round(time.Second))
		if bootOf(m) == before[m.Name()] {
			t.Errorf("%s has not booted again", m.Name())
		}
	}
	c.members(t)
	testnet.Eventually(t, forLong, "the API has what was written", func() (bool, string) {
		out, _ := first.Sh(kubectl + "get configmap kept -o jsonpath={.data.a}")
		return out == "b", out
	})
	first.Must(kubectl + "delete configmap kept")
}

// bootOf is the number of a machine's boot (random(4)).
func bootOf(m *Machine) string {
	return strings.TrimSpace(m.Must("cat /proc/sys/kernel/random/boot_id"))
}

// returns waits until every kubelet has spoken since its machine booted: what is said
// of nodes is of before until then.
func (c *cluster) returns(t *testing.T) {
	t.Helper()
	testnet.Eventually(t, forLong, "every kubelet is back", func() (bool, string) {
		out, _ := c.Machines[0].Sh(kubectl + "get nodes -o jsonpath='{range .items[*]}{.status.nodeInfo.bootID}{\"\\n\"}{end}'")
		for _, m := range c.nodes() {
			if !strings.Contains(out, bootOf(m)) {
				return false, out
			}
		}
		return true, ""
	})
}
