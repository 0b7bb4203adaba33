package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"golang.org/x/sys/unix"

	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/cgroup"
	"slipway/lab/initd"
	"slipway/topology"
)

// nodeEnv makes the test binary a node's first process.
const nodeEnv = "SLIPWAY_TEST_NODE"

// Main runs a package's tests, or is what the nodes of those tests start this
// program as. TestMain ends with it.
func Main(m *testing.M) {
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
	case filepath.Base(os.Args[0]) == "journalctl":
		os.Exit(initd.Journalctl(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// Node is a host of the installer's: namespaces of its own, and a first process.
type Node struct {
	*initd.Client
	NS   *netns.NS
	Port string // the fabric's end of its wire

	address netip.Prefix
	t       testing.TB
	config  initd.Config
	cmd     *exec.Cmd
}

func newNode(t testing.TB, dir, name string, number int) *Node {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := initd.Config{
		Hostname: name, MachineID: fmt.Sprintf("%032x", number+1), Hosts: "127.0.0.1 localhost\n", Exe: exe,
		Dir: filepath.Join(dir, name), Store: filepath.Join(dir, "store"), StoreAt: installer.StoreDir, Socket: filepath.Join(dir, name+".sock"),
	}
	return &Node{Client: initd.NewClient(c.Socket), t: t, NS: testnet.NewNS(t), config: c}
}

// group gives a node that will run containers control groups of its own, and
// returns what the installer has to know of it.
func (n *Node) group(c topology.Components) cluster.Facts {
	n.t.Helper()
	if c != topology.ComponentsFull {
		return cluster.Facts{Shared: true, Lab: true}
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		n.t.Fatal(err)
	}
	all := fmt.Sprintf("slipwaytest-%d", os.Getpid())
	group := all + "/" + n.Name()
	if n.config.Cgroups, err = cgroup.Make(hs, group); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { // once the node is off
		if err := errors.Join(cgroup.Remove(context.Background(), hs, group), removeEmpty(hs, all)); err != nil {
			n.t.Error(err)
		}
	})
	return cluster.Facts{Shared: true, Lab: true, CgroupV1: !cgroup.OnlyUnified(hs), CgroupRoot: "/" + group}
}

// routeAll leads everything onto the segment, as a lab does: Kubernetes asks
// nodes for a default route.
func (n *Node) routeAll() {
	n.t.Helper()
	h := testnet.Handle(n.t, n.NS)
	l, err := h.LinkByName("eth0")
	if err == nil {
		_, all, _ := net.ParseCIDR("0.0.0.0/0")
		err = h.RouteReplace(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK})
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// removeEmpty removes a group when it is the last node's.
func removeEmpty(hs []cgroup.Hierarchy, group string) error {
	for _, h := range hs {
		dir := filepath.Join(h.Mount, group)
		if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, syscall.EBUSY) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove control group %s: %w", dir, err)
		}
	}
	return nil
}

// Name is the node's.
func (n *Node) Name() string { return n.config.Hostname }

// Run runs a command in the node, for the installer.
func (n *Node) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	r, err := n.Client.Run(ctx, c.Argv, c.Stdin)
	return installer.Result(r), err
}

// storing is held while a blob comes into the store, which the nodes share.
var storing sync.Mutex

// Store copies a blob to where all nodes see it.
func (n *Node) Store(_ context.Context, b installer.Blob) error {
	storing.Lock()
	defer storing.Unlock()
	to := filepath.Join(n.config.Store, b.Sum)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	return exec.Command("cp", b.Path, to).Run() // the cache may be on another file system
}

// Boot starts the node, which has what it had when it was last on.
func (n *Node) Boot() {
	n.t.Helper()
	raw, err := json.Marshal(n.config)
	if err != nil {
		n.t.Fatal(err)
	}
	n.cmd = exec.Command(n.config.Exe)
	n.cmd.Env = append(os.Environ(), nodeEnv+"="+string(raw))
	n.cmd.Stderr = os.Stderr
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID}
	if err := n.NS.Do(n.cmd.Start); err != nil {
		n.t.Fatal(err)
	}
	testnet.Eventually(n.t, 20*time.Second, n.Name()+" answers", func() (bool, string) {
		err := n.Ping(n.t.Context())
		return err == nil, fmt.Sprint(err)
	})
}

// Off cuts the node's power. Its network stays, as a wire does: what the
// namespace holds, addresses among it, is there until [Node.Boot] and after.
func (n *Node) Off() {
	_ = n.cmd.Process.Kill()
	_ = n.cmd.Wait()
}

// forget takes all addresses but the node's own from its wire.
func (n *Node) forget() {
	n.t.Helper()
	h := testnet.Handle(n.t, n.NS)
	l, err := h.LinkByName("eth0")
	if err != nil {
		n.t.Fatal(err)
	}
	all, err := h.AddrList(l, unix.AF_INET)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, a := range all {
		if a.IPNet.String() == n.address.String() {
			continue
		}
		if err := h.AddrDel(l, &a); err != nil {
			n.t.Fatal(err)
		}
	}
}

// Sh runs a script in the node.
func (n *Node) Sh(script string) (out string, code int) {
	n.t.Helper()
	r, err := n.Client.Run(n.t.Context(), []string{"sh", "-c", script}, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return string(r.Stdout) + string(r.Stderr), r.Code
}
