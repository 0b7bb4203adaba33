package rig

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/components"
	"slipway/installer/images"
	"slipway/installer/pki"
	"slipway/internal/digest"
	"slipway/internal/testnet"
	"slipway/lab/kube"
	"slipway/topology"
)

// Rig is a cluster of nodes on one segment.
type Rig struct {
	Nodes  map[string]*Node
	Fabric *Fabric
	Inputs cluster.Inputs
	Engine *installer.Engine
	t      testing.TB
}

const header = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
`

// New boots the nodes of a cluster file, of which spec is given, for programs of
// some components.
func New(t testing.TB, spec string, programs map[string]installer.Blob) *Rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	c, diags := topology.Parse("cluster.yaml", []byte(header+spec))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	testnet.Room(t, kube.InotifyNeed(c))
	snap, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &Rig{t: t, Nodes: map[string]*Node{}, Inputs: cluster.Inputs{
		Cluster: c, Snapshot: snap, Programs: programs, Facts: map[string]cluster.Facts{}, PKI: &pki.Store{Dir: filepath.Join(dir, "pki"), Algorithm: pki.ECDSA, Now: time.Now},
	}}
	if _, err := r.Inputs.PKI.Ensure(cluster.Certificates(r.Inputs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]installer.Host{}
	r.Fabric = NewFabric(t, testnet.NewNS(t))
	for i, s := range snap.Nodes {
		n := newNode(t, dir, s.Name, i)
		r.Inputs.Facts[s.Name] = n.group(c.Spec.Components)
		n.Port, n.address = r.Fabric.Plug(n.NS, s.Interface.Prefix), s.Interface.Prefix
		n.routeAll()
		n.Boot()
		t.Cleanup(n.Off)
		r.Nodes[s.Name], hosts[s.Name] = n, n
	}
	r.Engine = &installer.Engine{Hosts: hosts}
	return r
}

// PowerOff cuts a node's power, and with it its network.
func (r *Rig) PowerOff(n *Node) {
	r.t.Helper()
	r.Fabric.Set(n.Port, false)
	n.Off()
}

// PowerOn starts a node that was off. Its namespace is still the one that it had,
// but addresses that its programs took are gone, as a machine's are.
func (r *Rig) PowerOn(n *Node) {
	r.t.Helper()
	n.forget()
	r.Fabric.Set(n.Port, true)
	n.Boot()
}

// Unchanged checks that applying a plan again would change nothing.
func (r *Rig) Unchanged(t testing.TB, plan installer.Plan) {
	t.Helper()
	d, err := r.Engine.Differences(t.Context(), plan)
	if err != nil {
		t.Error(err)
	}
	for _, x := range d {
		t.Errorf("%s: %s is %q, not %q", x.Host, x.Item.ID(), x.Before, x.Item.Want())
	}
}

// Kubernetes are the programs of a control plane, which take minutes to build:
// a test has them if they are there.
func Kubernetes(t testing.TB) map[string]installer.Blob {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.Flanneld)
	b, err := components.Lookup(t.Context(), "kubernetes")
	if err != nil {
		testnet.Lacks(t, testnet.Kubernetes, err)
	}
	out := Programs(t, "etcd")
	maps.Copy(out, blobs(b))
	return out
}

// Full are the programs of nodes that run containers as well, this program among
// them, and the images that a cluster cannot do without.
func Full(t testing.TB) (programs, archives map[string]installer.Blob) {
	t.Helper()
	programs = Kubernetes(t)
	for _, name := range []string{"containerd", "runc", "cni-plugins", "flannel"} {
		b, err := components.Lookup(t.Context(), name)
		if err != nil {
			testnet.Lacks(t, testnet.Kubernetes, err)
		}
		maps.Copy(programs, blobs(b))
	}
	archives, err := images.Build(t.Context(), "", "pause", "coredns", "echo")
	if err != nil {
		testnet.Lacks(t, testnet.Kubernetes, err)
	}
	if programs["slipway"], err = ourselves(); err != nil {
		t.Fatal(err)
	}
	return programs, archives
}

// Calico are the programs of calico and what they need of the machine. They take
// minutes to build, which only who names them has done.
func Calico(t testing.TB) map[string]installer.Blob {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.Bird, testnet.IPSet)
	b, err := components.Lookup(t.Context(), "calico")
	if err != nil {
		testnet.Lacks(t, testnet.Calico, fmt.Errorf("%w: slipway components build calico", err))
	}
	return blobs(b)
}

// ourselves is slipway, built once for all tests of a package.
var ourselves = sync.OnceValues(func() (installer.Blob, error) {
	path, err := testnet.Program("slipway/cmd/slipway")
	if err != nil {
		return installer.Blob{}, err
	}
	sum, size, err := digest.File(path)
	return installer.Blob{Sum: sum, Size: size, Path: path}, err
})

// Programs builds a component, or finds it built.
func Programs(t testing.TB, component string) map[string]installer.Blob {
	t.Helper()
	b, err := components.Build(t.Context(), component, nil)
	if err != nil {
		t.Fatal(err)
	}
	return blobs(b)
}

func blobs(b *components.Built) map[string]installer.Blob {
	out := map[string]installer.Blob{}
	for name, sum := range b.Sums {
		out[name] = installer.Blob{Sum: strings.TrimPrefix(sum, "sha256:"), Path: b.Path(name)}
	}
	return out
}
