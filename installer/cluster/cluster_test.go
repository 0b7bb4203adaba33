package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
	"slipway/installer/pki"
	"slipway/topology"
)

var update = flag.Bool("update", false, "write the golden files again; read them before you commit")

const threeMasters = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: master02, roles: [control-plane, etcd]}
    - {name: etcd03, roles: [etcd]}
    - {name: node01, roles: [worker]}
`

func inputs(t *testing.T, file string) Inputs {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", []byte(file))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	snap, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := Inputs{
		Cluster: c, Snapshot: snap, PKI: &pki.Store{Dir: t.TempDir(), Algorithm: pki.ECDSA, Now: time.Now},
		Programs: map[string]installer.Blob{}, Images: map[string]installer.Blob{}, Facts: map[string]Facts{},
	}
	for _, name := range strings.Fields("kubernetes etcd etcdctl etcdutl slipway containerd containerd-shim-runc-v2 ctr runc host-local loopback portmap bridge flanneld calico-node calico-crds.yaml bird.cfg.template bird_aggr.cfg.template bird_ipam.cfg.template") {
		in.Programs[name] = installer.Blob{Sum: strings.Repeat(name[:1], 64)}
	}
	for _, name := range []string{"slipway.local/pause:v1", "slipway.local/coredns:v1.15.0"} {
		in.Images[name] = installer.Blob{Sum: fmt.Sprintf("%064x", len(name))}
	}
	for _, n := range snap.Nodes {
		in.Facts[n.Name] = Facts{Shared: true, Lab: true, CgroupV1: true, CgroupRoot: "/slipway/demo/" + n.Name}
	}
	if _, err := in.PKI.Ensure(Certificates(in)); err != nil {
		t.Fatal(err)
	}
	return in
}

// Every unit and file without secrets, as it would lie on the hosts, against
// text that was read and argued.
func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		file string
		only []string
	}{
		"three-masters":        {file: threeMasters},
		"one-master":           {"apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: {components: light}\n", []string{"04", "06", "07", "08", "10", "11"}},
		"slow-etcd":            {strings.Replace(threeMasters, "  nodes:", "  controlPlane: {etcd: {heartbeat: 500ms, election: 5s}}\n  nodes:", 1), []string{"04"}},
		"full-flannel":         {full("{mode: flannel-vxlan}"), []string{"02", "03", "07", "08", "09", "10", "11", "20"}},
		"full-upstream":        {full("{mode: flannel-host-gw, implementation: upstream}"), []string{"09"}},
		"full-upstream-calico": {full("{mode: calico-bgp, implementation: upstream, bgp: {peers: [{address: 192.168.233.90, asn: 64999}]}}"), []string{"09"}},
		"full-calico":          {full("{mode: calico-ipip}"), []string{"06", "08", "09"}},
	} {
		t.Run(name, func(t *testing.T) {
			in := inputs(t, c.file)
			in.Manifests = []Manifest{{"apps/web.yaml", []byte("kind: Namespace\napiVersion: v1\nmetadata: {name: web}\n")}}
			plan, err := Plan(in, c.only...)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, filepath.Join("testdata", name+".txt"), strings.ReplaceAll(describe(plan), strconv.Quote(runtime.GOARCH), strconv.Quote("amd64")))
		})
	}
}

// Real machines with what looks after their networks there: NetworkManager as on RHEL,
// systemd-networkd with systemd-resolved as on Ubuntu, and one that asks nobody.
func TestGoldenOfManagedNetworks(t *testing.T) {
	in := inputs(t, full("{mode: flannel-vxlan}"))
	for name := range in.Facts {
		in.Facts[name] = Facts{}
	}
	in.Facts["node01"] = Facts{NetworkManager: true, ResolvConf: "/run/NetworkManager/no-stub-resolv.conf"}
	in.Facts["node02"] = Facts{Networkd: true, ResolvConf: "/run/systemd/resolve/resolv.conf"}
	planned := func(only ...string) string {
		plan, err := Plan(in, only...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(describe(plan), strconv.Quote(runtime.GOARCH), strconv.Quote("amd64"))
	}
	compare(t, "testdata/managed-networks.txt", planned("01"))
	nodes := planned("08")
	for _, want := range []string{"resolvConf: /etc/resolv.conf\n", "resolvConf: /run/NetworkManager/no-stub-resolv.conf\n", "resolvConf: /run/systemd/resolve/resolv.conf\n"} {
		if !strings.Contains(nodes, want) {
			t.Errorf("no kubelet has %q", want)
		}
	}
	const forward = "forward . /etc/resolv.conf"
	if !strings.Contains(planned("10"), forward) {
		t.Error("CoreDNS asks nobody")
	}
	in.Facts["node02"] = Facts{NoDNS: true}
	if strings.Contains(planned("10"), forward) {
		t.Error("CoreDNS asks where there is nobody to ask: it would not start")
	}
	if !strings.Contains(planned("08"), "resolvConf: \"\"\n") {
		t.Error("a kubelet reads name servers that no pod reaches")
	}
}

// full is the file of a cluster in which everything is real, in a lab.
func full(network string) string {
	return `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: full
  network: ` + network + `
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: master02, roles: [control-plane, etcd]}
    - {name: master03, roles: [control-plane, etcd]}
    - {name: node01, roles: [worker]}
    - {name: node02, roles: [worker]}
`
}

// describe is a plan as text: what is on which host, and what is in it, the
// first time.
func describe(plan installer.Plan) string {
	var b strings.Builder
	seen := map[string]string{}
	for _, ph := range plan.Phases {
		fmt.Fprintf(&b, "## %s %s\n", ph.ID, ph.Title)
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				fmt.Fprintf(&b, "# %s on %s\n", st.Name, w.Host)
				for _, it := range w.Items {
					b.WriteString(it.ID() + "\n")
					if s, ok := it.(installer.Shower); ok {
						if path, content, secret := s.Shown(); !secret && !strings.HasSuffix(path, ".crt") && !strings.HasSuffix(path, ".pub") && path != etcdMark {
							text := strings.ReplaceAll(strings.TrimSuffix(string(content), "\n"), "\n", "\n\t")
							if first := seen[path+text]; first != "" {
								text = "(as on " + first + ")"
							} else {
								seen[path+text] = w.Host
							}
							b.WriteString("\t" + text + "\n")
						}
					}
				}
			}
		}
	}
	return b.String()
}

func compare(t *testing.T, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

// Each machine has the keys that its own components need, and no other.
func TestKeysStayWhereTheyBelong(t *testing.T) {
	plan, err := Plan(inputs(t, threeMasters), "03")
	if err != nil || len(plan.Phases) != 1 {
		t.Fatal(plan, err)
	}
	keys := map[string]string{}
	for _, ph := range plan.Phases {
		for _, w := range ph.Steps[0].Work {
			for _, it := range w.Items {
				f, ok := it.(installer.File)
				if !ok {
					continue
				}
				holdsKey := strings.Contains(string(f.Content), "PRIVATE KEY") || strings.Contains(string(f.Content), "client-key-data") || strings.Contains(string(f.Content), "secretbox:")
				if holdsKey != f.Secret || holdsKey != (f.Mode == 0o600) {
					t.Errorf("%s on %s: key %v, secret %v, mode %o", f.Path, w.Host, holdsKey, f.Secret, f.Mode)
				}
				if strings.Contains(string(f.Content), "PRIVATE KEY") {
					keys[w.Host] += strings.TrimPrefix(f.Path, pkiDir+"/") + " "
				}
			}
		}
	}
	const member, master = "etcd/healthcheck-client.key etcd/peer.key etcd/server.key ", "apiserver-etcd-client.key apiserver-kubelet-client.key apiserver.key ca.key "
	want := map[string]string{
		"master01": master + member + "front-proxy-client.key sa.key ", "master02": master + member + "front-proxy-client.key sa.key ", "etcd03": member,
	}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
}

func TestOnItemIsOnePerHost(t *testing.T) {
	plan, err := Plan(inputs(t, threeMasters))
	if err != nil {
		t.Fatal(err)
	}
	for _, ph := range plan.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				seen := map[string]bool{}
				for _, it := range w.Items {
					if seen[it.ID()] {
						t.Errorf("%s: %s twice on %s", ph.ID, it.ID(), w.Host)
					}
					seen[it.ID()] = true
				}
			}
		}
	}
}

func TestEtcdAlone(t *testing.T) {
	in := inputs(t, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: {nodes: [{name: a, roles: [etcd]}]}\n")
	if p, err := Plan(in, "00", "01", "03", "04"); err != nil || len(p.Phases) != 4 {
		t.Error(p, err)
	}
	if _, err := Plan(in); err == nil || !strings.Contains(err.Error(), "no node has the role control-plane") {
		t.Error(err)
	}
}

func TestMissingProgram(t *testing.T) {
	in := inputs(t, threeMasters)
	delete(in.Programs, "etcd")
	if _, err := Plan(in); err == nil || !strings.Contains(err.Error(), "program etcd is not in the catalogue's cache") {
		t.Error(err)
	}
	if _, err := Plan(in, "00", "01-base", "03"); err != nil {
		t.Error(err)
	}
}
