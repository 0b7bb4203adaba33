package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/installer/components"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// wire is the network that the machines of a bed are on, and pods theirs.
var (
	wire   = netip.MustParsePrefix("192.168.50.0/24")
	pods16 = netip.MustParsePrefix("10.244.0.0/16")
)

// bed is a wire with machines on it: one for the registry, and the nodes, each a
// network namespace with files of its own.
type bed struct {
	t      *testing.T
	mode   topology.ModeName
	extra  string // of the cluster file's network
	iface  string // of the agents' configuration
	fabric *netns.NS
	nodes  map[string]*machine
	ctl    *machine
	etcd   *process
}

// machine is one of them.
type machine struct {
	bed    *bed
	name   string
	addr   netip.Addr
	ns     *netns.NS
	dir    string
	subnet netip.Prefix
	agent  *process
	pods   []pod
}

// pod is a namespace with an address of a node's.
type pod struct {
	ns   *netns.NS
	addr netip.Addr
}

func newBed(t *testing.T, mode topology.ModeName) *bed {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Ping)
	b := &bed{t: t, mode: mode, iface: "auto", fabric: testnet.NewNS(t), nodes: map[string]*machine{}}
	h := testnet.Handle(t, b.fabric)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wire"}}
	if err := errors.Join(h.LinkAdd(br), h.LinkSetUp(br)); err != nil {
		t.Fatal(err)
	}
	// One for all namespaces' bridges but those that say otherwise (br_netfilter).
	b.sysctl(b.fabric, "net/bridge/bridge-nf-call-iptables", "0")
	b.ctl = b.machine("ctl", 1)
	return b
}

func (b *bed) sysctl(ns *netns.NS, key, value string) {
	b.t.Helper()
	err := ns.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0o644) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
}

// machine plugs one more into the wire.
func (b *bed) machine(name string, host byte) *machine {
	b.t.Helper()
	a := wire.Addr().As4()
	a[3] = host
	m := &machine{bed: b, name: name, addr: netip.AddrFrom4(a), ns: testnet.NewNS(b.t), dir: b.t.TempDir()}
	port := "p-" + name
	testnet.Wire(b.t, m.ns, "eth0", netip.PrefixFrom(m.addr, wire.Bits()).String(), b.fabric, port, "")
	h := testnet.Handle(b.t, b.fabric)
	l, err := h.LinkByName(port)
	if err == nil {
		var br netlink.Link
		if br, err = h.LinkByName("wire"); err == nil {
			err = h.LinkSetMaster(l, br)
		}
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// node adds a node. Its subnet is what is planned for it, where somebody plans.
func (b *bed) node(name string, host byte, subnet string) *machine {
	b.t.Helper()
	m := b.machine(name, host)
	if subnet != "" {
		m.subnet = netip.MustParsePrefix(subnet)
	}
	b.nodes[name] = m
	return m
}

// process is a program in a machine, ended with the test.
type process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func (m *machine) start(name string, env []string, argv ...string) *process {
	t := m.bed.t
	t.Helper()
	p := &process{log: filepath.Join(m.dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the program has its own
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Env = append(append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(m.dir, "xtables.lock")), env...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, m.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.ns.Do(p.cmd.Start); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended does not matter
		close(p.done)
	}()
	t.Cleanup(func() {
		p.end(t, syscall.SIGKILL)
		if said, err := os.ReadFile(p.log); t.Failed() && err == nil {
			t.Logf("%s of %s said:\n%s", name, m.name, tail(said, 3000))
		}
	})
	return p
}

func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// end signals the process and waits until it is gone.
func (p *process) end(t *testing.T, sig syscall.Signal) {
	t.Helper()
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(sig) // it may just have ended
	select {
	case <-p.done:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		t.Errorf("%s did not end of %s", p.cmd.Path, sig)
		<-p.done
	}
}

// ended reports whether the process is gone.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// startEtcd starts the registry's store.
func (b *bed) startEtcd() {
	b.t.Helper()
	client := "http://" + b.ctl.addr.String() + ":2379"
	b.etcd = b.ctl.start("etcd", nil, program(b.t, "etcd", "etcd"), "--name", "bed", "--data-dir", filepath.Join(b.ctl.dir, "etcd"),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", "http://127.0.0.1:2380",
		"--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "bed=http://127.0.0.1:2380",
		"--unsafe-no-fsync", "--log-level", "warn")
}

// kubernetesProgram is one of Kubernetes', which are too much to build for a test.
func kubernetesProgram(t *testing.T, name string) string {
	t.Helper()
	built, err := components.Lookup(t.Context(), "kubernetes")
	if errors.Is(err, components.ErrNotBuilt) {
		testnet.Lacks(t, testnet.Kubernetes, fmt.Errorf("%w (`slipway components build kubernetes`)", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	return built.Path(name)
}

// clusterFile is what all agents read.
func (b *bed) clusterFile() string {
	b.t.Helper()
	var s strings.Builder
	fmt.Fprintf(&s, "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: bed}\nspec:\n  network: {mode: %s%s}\n", b.mode, b.extra)
	fmt.Fprintf(&s, "  underlay: {segments: [{name: wire, subnet: %s}]}\n", wire)
	path := filepath.Join(b.ctl.dir, "cluster.yaml")
	if err := os.WriteFile(path, []byte(s.String()), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return path
}

// configure writes the agent's configuration, with the registry given as YAML.
func (m *machine) configure(registry string) string {
	m.bed.t.Helper()
	text := fmt.Sprintf("node: %s\ninterface: %s\ncluster: %s\nregistry: %s\ncni: {dir: %s, binDir: %s, dataDir: %s}\nsubnetFile: %s\nstateDir: %s\nlog: {level: debug}\n",
		m.name, m.bed.iface, m.bed.clusterFile(), registry, m.path("net.d"), m.bin(), m.path("ipam"), m.path("subnet.env"), m.path("state"))
	path := m.path("agent.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.bed.t.Fatal(err)
	}
	return path
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// bin is the directory of the machine's CNI plugins: ours, and upstream's.
func (m *machine) bin() string {
	dir := m.path("cni-bin")
	err := os.MkdirAll(dir, 0o755)
	for _, name := range []string{"host-local", "portmap"} {
		if err == nil {
			err = os.Symlink(program(m.bed.t, "cni-plugins", name), filepath.Join(dir, name))
		}
	}
	if err == nil {
		err = os.Symlink(binary, filepath.Join(dir, "slipway"))
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		m.bed.t.Fatal(err)
	}
	return dir
}

// startAgent starts ours and waits until it has told the container runtime.
func (m *machine) startAgent(registry string) {
	m.bed.t.Helper()
	m.agent = m.start("agent", nil, binary, "agent", "--config", m.configure(registry))
	m.programmed()
}

// programmed waits until the agent has told the container runtime.
func (m *machine) programmed() {
	t := m.bed.t
	t.Helper()
	testnet.Eventually(t, patience, "the agent of "+m.name+" to program it", func() (bool, string) {
		if m.agent.ended() {
			t.Fatalf("the agent of %s ended", m.name)
		}
		_, err := os.Stat(m.path("net.d/10-slipway.conflist"))
		return err == nil, fmt.Sprint(err)
	})
}

// reaches expects answers from one address to another machine's or pod's, soon.
func (b *bed) reaches(from *netns.NS, to netip.Addr, what string) {
	b.t.Helper()
	testnet.Eventually(b.t, patience, what, func() (bool, string) {
		ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
		defer cancel()
		out, err := run.Cmd{NS: from, Name: "ping", Args: []string{"-n", "-c", "1", "-W", "1", to.String()}}.Output(ctx)
		return err == nil, string(out)
	})
}

// talk expects pods of all nodes to reach each other by ping and TCP.
func (b *bed) talk(names ...string) {
	b.t.Helper()
	for _, x := range names {
		for _, y := range names {
			if x == y {
				continue
			}
			from, to := b.nodes[x].pods[0], b.nodes[y].pods[0]
			b.reaches(from.ns, to.addr, fmt.Sprintf("pod of %s → pod of %s", x, y))
			b.stream(from, to)
		}
	}
}

// stream sends some bytes over TCP and expects them back in full.
func (b *bed) stream(from, to pod) {
	b.t.Helper()
	m := &mixed{t: b.t}
	m.stream(place(from), place(to))
}

// dial is a dialler in a machine.
func (m *machine) dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = m.ns.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// cleanup runs the agent's.
func (m *machine) cleanup() {
	m.bed.t.Helper()
	out, err := run.Cmd{NS: m.ns, Name: binary, Args: []string{"agent", "cleanup", "--config", m.path("agent.yaml")},
		Env: append(os.Environ(), "XTABLES_LOCKFILE="+m.path("xtables.lock"))}.Output(m.bed.t.Context())
	if err != nil {
		m.bed.t.Errorf("cleanup of %s: %v", m.name, err)
	}
	m.bed.t.Logf("cleanup of %s:\n%s", m.name, out)
}
