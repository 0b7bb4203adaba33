package hosts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/e2e/program"
	"slipway/installer/site"
)

// resetByParts resets while one machine does not answer, and then that one.
func (r *Rig) resetByParts(t *testing.T, bare map[string][]string) {
	t.Helper()
	away := r.Machine("host3")
	away.Must("systemctl stop ssh.service")
	o := r.Slipway("install", "reset", "--site", "site")
	if o.Code != 5 || !strings.Contains(o.Stderr, "left to reset: host3") || strings.Count(o.Stdout, "undone") != 2 || !strings.Contains(o.Stdout, "not reached") {
		t.Errorf("%v", o)
	}
	away.Must("systemctl start ssh.service")
	if o := r.SlipwayMust("install", "reset", "--site", "site", "--only", "host3"); strings.Contains(o.Stderr, "left to reset") {
		t.Errorf("%v", o)
	}
	r.same(t, bare, nil)
	if o := r.Slipway("install", "reset", "--site", "site"); o.Code != 2 {
		t.Errorf("nothing is installed any more: %v", o)
	}
}

// dayTwo goes through what comes after an installation: the cluster is kept, gets
// other programs, loses a node, and comes back as it was, on two machines that have
// it and one that has nothing; in the end on three that have nothing.
func (r *Rig) dayTwo(t *testing.T, file string, bare map[string][]string) {
	t.Helper()
	step := func(name string, f func()) {
		began := time.Now()
		f()
		t.Logf("  %s: %v", name, time.Since(began).Round(time.Second/10))
	}
	first := r.Machine("host1")
	kept := filepath.Join(r.Home, "site.backup")
	first.Must(kubectl + "create configmap kept --from-literal=value=before")
	step("backup", func() {
		r.SlipwayMust("install", "backup", kept, "--site", "site")
		if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the backup: %v, %v", info, err)
		}
	})
	first.Must(kubectl + "patch configmap kept --type merge -p '{\"data\":{\"value\":\"after\"}}'")
	step("upgrade", func() { r.upgrades(t) })
	step("remove-node", func() { r.removes(t, bare, "host1", "host2") })
	step("restore", func() { r.restores(t, kept, file) })
	step("mode", func() { r.moves(t) })
	step("certs renew", func() { r.renews(t) })
	step("remove-node", func() { r.removes(t, bare, "host1", "host2") })
	step("add-node of a control plane", func() { r.joinsAsMaster(t) })
	step("remove-node of a control plane", func() { r.removes(t, bare, "host1", "host2") })
	step("add-node of a worker", func() {
		r.SlipwayMust("install", "add-node", "-f", r.ClusterFile("flannel-host-gw"))
		r.ready(t)
	})
	r.rulesInOneBackend(t)
	step("restore onto bare machines", func() {
		r.SlipwayMust("install", "reset", "--site", "site", "--purge")
		r.same(t, bare, nil)
		r.restores(t, kept, r.ClusterFile("flannel-vxlan"))
	})
}

// restores brings a backup back, in which a value is the one from before.
func (r *Rig) restores(t *testing.T, kept, file string) {
	t.Helper()
	r.SlipwayMust("install", "restore", kept)
	r.ready(t)
	if value := r.Machine("host1").Must(kubectl + "get configmap kept -o jsonpath={.data.value}"); value != "before" {
		t.Errorf("restored: %q", value)
	}
	r.SlipwayMust("install", "diff", "-f", file)
	r.SlipwayMust("install", "certs", "check", "--site", "site")
}

// upgrades brings another build of etcd and of kube-proxy: etcd first, then the
// proxies host by host.
func (r *Rig) upgrades(t *testing.T) {
	t.Helper()
	args := []string{"install", "upgrade", "--site", "site"}
	sums := map[string]string{}
	for name, component := range map[string]string{"etcd": "etcd", "kube-proxy": "kubernetes"} {
		path := filepath.Join(r.Home, name)
		sums[name] = program.AnotherBuild(t, component, name, path)
		args = append(args, "--program", name+"="+path)
	}
	if o := r.SlipwayMust(append(args, "--dry-run")...); strings.Count(o.Stdout, sums["kube-proxy"][:12]) != len(r.Machines) || strings.Count(o.Stdout, sums["etcd"][:12]) != 1 {
		t.Errorf("what would change: %v", o)
	}
	if o := r.SlipwayMust(args...); !strings.Contains(o.Stderr, "brings the catalogue's etcd back") {
		t.Errorf("it does not say that this is for one time: %v", o)
	}
	const exe = "readlink /proc/$(systemctl show %s -p MainPID --value)/exe"
	for _, m := range r.Machines {
		if runs := m.Must(strings.Replace(exe, "%s", "kube-proxy", 1)); !strings.Contains(runs, sums["kube-proxy"]) {
			t.Errorf("%s runs %s", m.Name(), runs)
		}
	}
	if runs := r.Machines[0].Must(strings.Replace(exe, "%s", "etcd", 1)); !strings.Contains(runs, sums["etcd"]) {
		t.Errorf("it runs %s", runs)
	}
	var units []string
	for text := range strings.Lines(r.file(t, "journal.jsonl")) {
		var e site.Entry
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		switch {
		case e.Run == "upgrade":
			units = nil
		case e.Changed && strings.HasPrefix(e.Item, "unit "):
			units = append(units, e.Host+" "+e.Item)
		}
	}
	if want := []string{"host1 unit etcd.service", "host1 unit kube-proxy.service", "host2 unit kube-proxy.service", "host3 unit kube-proxy.service"}; !slices.Equal(units, want) {
		t.Errorf("started again: %q", units)
	}
	r.ready(t)
	if o := r.SlipwayMust(args...); !strings.Contains(o.Stdout, "have these programs already") {
		t.Errorf("a second time: %v", o)
	}
}

// removes takes host3 out of the cluster, which others stay in: the machine is as
// it was when it was bare.
func (r *Rig) removes(t *testing.T, bare map[string][]string, stay ...string) {
	t.Helper()
	o := r.SlipwayMust("install", "remove-node", "host3", "--site", "site")
	if !strings.Contains(o.Stdout, "host3 left") {
		t.Errorf("%v", o)
	}
	sameState(t, "host3", bare["host3"], r.states(t)["host3"], nil)
	if nodes := r.Machines[0].Must(kubectl + "get nodes -o name"); nodes != "node/"+strings.Join(stay, "\nnode/")+"\n" {
		t.Errorf("after host3 left: %s", nodes)
	}
}

// moves has the cluster take another network mode.
func (r *Rig) moves(t *testing.T) {
	t.Helper()
	r.SlipwayMust("install", "mode", "flannel-host-gw", "--site", "site")
	if links := r.Machines[0].Must("ip -o link"); strings.Contains(links, "flannel.1") {
		t.Errorf("another mode's device is left: %s", links)
	}
	r.ready(t)
	r.SlipwayMust("install", "verify", "--site", "site", "--patience", "2m")
}

// renews makes all certificates again.
func (r *Rig) renews(t *testing.T) {
	t.Helper()
	last := r.Machine("host3")
	const certificate = "sha256sum </var/lib/kubelet/pki/kubelet-client-current.pem"
	before := last.Must(certificate)
	o := r.SlipwayMust("install", "certs", "renew", "--all", "--site", "site")
	r.secretsIn(t, "what renew prints", o.Stdout+o.Stderr)
	if last.Must(certificate) == before {
		t.Error("kubelet shows the certificate that it had")
	}
	r.SlipwayMust("install", "certs", "check", "--site", "site")
	r.ready(t)
}

// joinsAsMaster has host3 come back as one more control plane and member of etcd.
func (r *Rig) joinsAsMaster(t *testing.T) {
	t.Helper()
	file := r.WriteClusterFile("masters.yaml", "flannel-host-gw", "", "control-plane,etcd", "worker", "control-plane,etcd")
	if o := r.SlipwayMust("install", "add-node", "-f", file); !strings.Contains(o.Stdout, "host3 joined") {
		t.Errorf("%v", o)
	}
	r.ready(t)
	const ctl = "etcdctl --cacert /etc/kubernetes/pki/etcd/ca.crt --cert /etc/kubernetes/pki/etcd/healthcheck-client.crt --key /etc/kubernetes/pki/etcd/healthcheck-client.key --endpoints https://127.0.0.1:2379 "
	if members := r.Machine("host3").Must(ctl + "member list"); strings.Count(members, "started") != 2 || strings.Contains(members, "true") { // no learner
		t.Errorf("members: %s", members)
	}
	if value := r.Machine("host3").Must(kubectl + "get configmap kept -o jsonpath={.data.value}"); value != "before" {
		t.Errorf("asked at the new one: %q", value)
	}
}

// rulesInOneBackend checks that kube-proxy and the network's agent have their rules
// where the machine's own iptables has its.
func (r *Rig) rulesInOneBackend(t *testing.T) {
	t.Helper()
	for _, m := range r.Machines {
		own := m.Must("iptables-save")
		other := m.Must("case $(iptables --version) in *nf_tables*) iptables-legacy-save ;; *) iptables-nft-save ;; esac")
		if !strings.Contains(own, "KUBE-SERVICES") || !strings.Contains(own, "FLANNEL-POSTRTG") || strings.Contains(other, "KUBE-SERVICES") || strings.Contains(other, "FLANNEL-") {
			t.Errorf("%s: rules of two backends:\n%s\nand\n%s", m.Name(), own, other)
		}
	}
}
