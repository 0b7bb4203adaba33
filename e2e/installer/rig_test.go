// Package installer installs real components in supervised nodes, on real
// networks, by the plans and the engine that real hosts get.
package installer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/installer/components"
	"slipway/installer/pki"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/initd"
	"slipway/topology"
)

// nodeEnv makes the test binary a node's first process.
const nodeEnv = "INSTALLER_TEST_NODE"

func TestMain(m *testing.M) {
	ctx := context.Background()
	switch {
	case os.Getenv(nodeEnv) != "":
		var c initd.Config
		err := json.Unmarshal([]byte(os.Getenv(nodeEnv)), &c)
		if err == nil {
			err = initd.Run(ctx, c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case filepath.Base(os.Args[0]) == "systemctl":
		os.Exit(initd.Systemctl(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// node is a host of the installer's: namespaces of its own, and a first process.
type node struct {
	*initd.Client
	t      *testing.T
	ns     *netns.NS
	config initd.Config
	cmd    *exec.Cmd
}

func (n *node) Name() string { return n.config.Hostname }

func (n *node) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	r, err := n.Client.Run(ctx, c.Argv, c.Stdin)
	return installer.Result(r), err
}

// storing is held while a blob comes into the store, which the nodes share.
var storing sync.Mutex

func (n *node) Store(_ context.Context, b installer.Blob) error {
	storing.Lock()
	defer storing.Unlock()
	to := filepath.Join(n.config.Store, b.Sum)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	return exec.Command("cp", b.Path, to).Run() // the cache may be on another file system
}

// boot starts the node, which has what it had when it was last on.
func (n *node) boot() {
	n.t.Helper()
	raw, err := json.Marshal(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = exec.Command(n.config.Exe)
	n.cmd.Env = append(os.Environ(), nodeEnv+"="+string(raw))
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID}
	if err := n.ns.Do(n.cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	testnet.Eventually(n.t, 20*time.Second, n.Name()+" answers", func() (bool, string) {
		err := n.Ping(n.t.Context())
		return err == nil, fmt.Sprint(err)
	})
}

// off cuts the node's power.
func (n *node) off() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// sh runs a script in the node.
func (n *node) sh(script string) (string, int) {
	n.t.Helper()
	r, err := n.Client.Run(n.t.Context(), []string{"sh", "-c", script}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(r.Stdout) + string(r.Stderr), r.Code
}

// rig is a cluster of nodes on one segment.
type rig struct {
	t      *testing.T
	nodes  map[string]*node
	inputs cluster.Inputs
	engine *installer.Engine
}

const clusterFile = `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  nodes:
    - {name: etcd01, roles: [etcd]}
    - {name: etcd02, roles: [etcd]}
    - {name: etcd03, roles: [etcd]}
`

func newRig(t *testing.T) *rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Flanneld)
	c, diags := topology.Parse("cluster.yaml", []byte(clusterFile))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	snap, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &rig{t: t, nodes: map[string]*node{}, inputs: cluster.Inputs{
		Cluster: c, Snapshot: snap, Programs: programs(t, "etcd"), PKI: &pki.Store{Dir: filepath.Join(dir, "pki"), Algorithm: pki.ECDSA, Now: time.Now},
	}}
	if _, err := r.inputs.PKI.Ensure(cluster.Certificates(r.inputs)); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "store"), 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := map[string]installer.Host{}
	fabric := newFabric(t)
	for i, s := range snap.Nodes {
		n := newNode(t, dir, s.Name, i)
		fabric.plug(n.ns, s.Interface.Prefix)
		n.boot()
		t.Cleanup(n.off)
		r.nodes[s.Name], hosts[s.Name] = n, n
	}
	r.engine = &installer.Engine{Hosts: hosts}
	return r
}

func newNode(t *testing.T, dir, name string, number int) *node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := initd.Config{
		Hostname: name, MachineID: fmt.Sprintf("%032x", number+1), Hosts: "127.0.0.1 localhost\n", Exe: exe,
		Dir: filepath.Join(dir, name), Store: filepath.Join(dir, "store"), StoreAt: installer.StoreDir, Socket: filepath.Join(dir, name+".sock"),
	}
	return &node{Client: initd.NewClient(c.Socket), t: t, ns: testnet.NewNS(t), config: c}
}

// fabric is a bridge in a namespace of its own.
type fabric struct {
	t     *testing.T
	ns    *netns.NS
	ports int
}

func newFabric(t *testing.T) *fabric {
	t.Helper()
	f := &fabric{t: t, ns: testnet.NewNS(t)}
	h := testnet.Handle(t, f.ns)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := h.LinkAdd(br); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkSetUp(br); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fabric) plug(ns *netns.NS, address netip.Prefix) {
	f.t.Helper()
	f.ports++
	port := fmt.Sprintf("port%d", f.ports)
	testnet.Wire(f.t, ns, "eth0", address.String(), f.ns, port, "")
	h := testnet.Handle(f.t, f.ns)
	l, err := h.LinkByName(port)
	if err == nil {
		var br netlink.Link
		if br, err = h.LinkByName("br0"); err == nil {
			err = h.LinkSetMaster(l, br)
		}
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// programs builds a component, or finds it built.
func programs(t *testing.T, component string) map[string]installer.Blob {
	t.Helper()
	b, err := components.Build(t.Context(), component, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]installer.Blob{}
	for name, sum := range b.Sums {
		out[name] = installer.Blob{Sum: strings.TrimPrefix(sum, "sha256:"), Path: b.Path(name)}
	}
	return out
}
