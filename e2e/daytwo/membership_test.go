package daytwo

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"slipway/e2e/rig"
	"slipway/installer/cluster"
	"slipway/installer/daytwo"
	"slipway/topology"
)

const fourMachines = `  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd], address: 192.168.233.10}
    - {name: master02, roles: [control-plane, etcd], address: 192.168.233.11}
    - {name: etcd03, roles: [etcd], address: 192.168.233.12}
    - {name: node01, roles: [worker], address: 192.168.233.13}
`

// of is what the cluster is to be with some of the machines, and what they have
// had so far.
func (b *bed) of(names ...string) cluster.Inputs {
	b.t.Helper()
	return b.ofNodes(slices.DeleteFunc(slices.Clone(b.Rig.Inputs.Cluster.Spec.Nodes), func(n topology.Node) bool { return !slices.Contains(names, n.Name) }))
}

func (b *bed) ofNodes(nodes []topology.Node) cluster.Inputs {
	b.t.Helper()
	in := b.Rig.Inputs
	c := *in.Cluster
	c.Spec.Nodes = nodes
	var err error
	in.Cluster = &c
	if in.Snapshot, b.had, err = topology.Allocate(&c, &topology.Objects{}, b.had); err != nil {
		b.t.Fatal(err)
	}
	return in
}

// becomes changes the cluster, which then is what it has become.
func (b *bed) becomes(o daytwo.ChangeOptions, names ...string) *daytwo.Result {
	b.t.Helper()
	return b.become(b.of(names...), o)
}

func (b *bed) become(to cluster.Inputs, o daytwo.ChangeOptions) *daytwo.Result {
	b.t.Helper()
	res, err := b.Change(b.t.Context(), to, o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Cluster.Inputs = to
	return res
}

func (b *bed) members(on string) (out []string) {
	for l := range strings.Lines(b.etcdctl(on, "member list")) {
		f := strings.Split(strings.TrimSpace(l), ", ")
		out = append(out, f[2]+" "+f[1]+" learner="+f[5])
	}
	slices.Sort(out)
	return out
}

// what is on a machine of what an installation touches.
const touched = `ls -A /etc/kubernetes /etc/slipway /etc/systemd/system /etc/sysctl.d /etc/modules-load.d /usr/local/bin /var/lib/etcd /var/lib/slipway 2>&1
cat /etc/hosts; pgrep -x 'etcd|kube-apiserver|kube-proxy'; true`

// A cluster grows from one master to two and a third member of etcd, refuses to
// lose its majority, and then loses the master that it began with: what was
// written is there all the time, and nothing is left on the machine that went.
func TestMembership(t *testing.T) {
	b := machines(t, fourMachines, rig.Kubernetes(t))
	bare, _ := b.Nodes["master01"].Sh(touched)
	b.Cluster.Inputs = b.of("master01", "node01")
	if err := b.Engine.Apply(t.Context(), b.plan()); err != nil {
		t.Fatal(err)
	}
	b.kubectl("master01", "create configmap first")
	pid, _ := b.Nodes["master01"].Sh("systemctl show etcd -p MainPID --value")

	b.run("a master joins", func(t *testing.T) {
		res := b.becomes(daytwo.ChangeOptions{}, "master01", "master02", "node01")
		if !slices.Equal(res.Added, []string{"master02"}) || len(res.Removed)+len(res.Undone) != 0 {
			t.Errorf("%+v", res)
		}
		if got := b.members("master02"); !slices.Equal(got, []string{"master01 started learner=false", "master02 started learner=false"}) {
			t.Errorf("%q", got)
		}
		if now, _ := b.Nodes["master01"].Sh("systemctl show etcd -p MainPID --value"); now != pid {
			t.Errorf("the member that was there was started again: %s, %s", pid, now)
		}
		if got := b.kubectl("master02", "get configmap first -o name"); got != "configmap/first" {
			t.Errorf("%q", got)
		}
		if got, _ := b.Nodes["node01"].Sh("grep -rhoF -e 192.168.233.10:6443 -e 192.168.233.11:6443 /etc/slipway/balancer | sort -u | wc -l"); strings.TrimSpace(got) != "2" {
			t.Errorf("the worker's balancer knows %s masters", got)
		}
		b.Unchanged(t, b.plan())
	})
	b.run("a third member of etcd joins", func(t *testing.T) {
		b.becomes(daytwo.ChangeOptions{}, "master01", "master02", "etcd03", "node01")
		if got := b.members("etcd03"); len(got) != 3 || strings.Contains(strings.Join(got, ""), "learner=true") {
			t.Errorf("%q", got)
		}
		b.kubectl("master01", "create configmap second")
		if got := b.etcdctl("etcd03", "get --keys-only /registry/configmaps/default/second"); got == "" {
			t.Error("it does not have what was written")
		}
	})
	b.run("two of three stay", func(t *testing.T) {
		b.PowerOff(b.Nodes["etcd03"])
		_, err := b.Change(t.Context(), b.of("master01", "etcd03", "node01"), daytwo.ChangeOptions{})
		var unreachable *daytwo.UnreachableError
		if !errors.As(err, &unreachable) || !slices.Equal(unreachable.Hosts, []string{"etcd03"}) {
			t.Errorf("%v", err)
		}
		b.PowerOn(b.Nodes["etcd03"])
		if out, code := b.Nodes["etcd03"].Sh("systemctl stop etcd"); code != 0 {
			t.Fatal(out)
		}
		_, err = b.Change(t.Context(), b.of("master01", "etcd03", "node01"), daytwo.ChangeOptions{})
		var quorum *cluster.QuorumError
		if !errors.As(err, &quorum) || !slices.Equal(quorum.Dead, []string{"etcd03"}) {
			t.Errorf("%v", err)
		}
		if out, code := b.Nodes["etcd03"].Sh("systemctl start etcd"); code != 0 {
			t.Fatal(out)
		}
		if got := b.members("etcd03"); len(got) != 3 {
			t.Errorf("%q", got)
		}
	})
	b.run("the first master leaves", func(t *testing.T) {
		res := b.becomes(daytwo.ChangeOptions{}, "master02", "etcd03", "node01")
		if !slices.Equal(res.Removed, []string{"master01"}) || len(res.Left) != 0 {
			t.Errorf("%+v", res)
		}
		if now, _ := b.Nodes["master01"].Sh(touched); now != bare {
			t.Errorf("it is not what it was before:\n%s\n%s", bare, now)
		}
		if got := b.members("master02"); !slices.Equal(got, []string{"etcd03 started learner=false", "master02 started learner=false"}) {
			t.Errorf("%q", got)
		}
		if got := b.kubectl("master02", "get nodes -o name"); got != "node/master02\nnode/node01" {
			t.Errorf("%q", got)
		}
		if got := b.kubectl("master02", "get configmap first second -o name"); got != "configmap/first\nconfigmap/second" {
			t.Errorf("%q", got)
		}
		if got, code := b.Nodes["node01"].Sh("grep -rF 192.168.233.10 /etc/slipway /etc/kubernetes /etc/hosts"); code == 0 {
			t.Errorf("the worker knows it still: %s", got)
		}
		b.Unchanged(t, b.plan())
	})
	b.run("a worker runs etcd alone", func(t *testing.T) {
		nodes := slices.Clone(b.Cluster.Inputs.Cluster.Spec.Nodes)
		i := slices.IndexFunc(nodes, func(n topology.Node) bool { return n.Name == "node01" })
		nodes[i].Roles = []topology.Role{topology.RoleEtcd}
		res := b.become(b.ofNodes(nodes), daytwo.ChangeOptions{})
		if !slices.Equal(res.Former, []string{"node01"}) || len(res.Removed) != 0 {
			t.Errorf("%+v", res)
		}
		if got := b.members("node01"); len(got) != 3 || strings.Contains(strings.Join(got, ""), "learner=true") {
			t.Errorf("%q", got)
		}
		if got := b.kubectl("master02", "get nodes -o name"); got != "node/master02" {
			t.Errorf("%q", got)
		}
		if got, code := b.Nodes["node01"].Sh("pgrep -x kube-proxy || ls /etc/kubernetes/kube-proxy.conf"); code == 0 {
			t.Errorf("it is a node still: %s", got)
		}
		b.Unchanged(t, b.plan())
	})
}
