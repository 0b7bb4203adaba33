package cluster

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	in := Inputs{Cluster: c, Snapshot: snap, PKI: &pki.Store{Dir: t.TempDir(), Algorithm: pki.ECDSA, Now: time.Now}, Programs: map[string]installer.Blob{}}
	for _, name := range []string{"kubernetes", "etcd", "etcdctl"} {
		in.Programs[name] = installer.Blob{Sum: strings.Repeat(name[:1], 64)}
	}
	if _, err := in.PKI.Ensure(Certificates(in)); err != nil {
		t.Fatal(err)
	}
	return in
}

// Every unit and file without secrets, as it would lie on the hosts, against
// text that was read and argued.
func TestGolden(t *testing.T) {
	in := inputs(t, threeMasters)
	plan, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, ph := range plan.Phases {
		fmt.Fprintf(&b, "## %s %s\n", ph.ID, ph.Title)
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				fmt.Fprintf(&b, "# %s on %s\n", st.Name, w.Host)
				for _, it := range w.Items {
					b.WriteString(it.ID() + "\n")
					if s, ok := it.(installer.Shower); ok {
						if path, content, secret := s.Shown(); !secret && !strings.HasSuffix(path, ".crt") && !strings.HasSuffix(path, ".pub") && !strings.HasSuffix(path, "/rbac.yaml") {
							b.WriteString("\t" + strings.ReplaceAll(strings.TrimSuffix(string(content), "\n"), "\n", "\n\t") + "\n")
						}
					}
				}
			}
		}
	}
	golden := filepath.Join("testdata", "three-masters.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
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
				holdsKey := strings.Contains(string(f.Content), "PRIVATE KEY") || strings.Contains(string(f.Content), "client-key-data")
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
