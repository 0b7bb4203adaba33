package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/topology"
)

// place is somewhere in a lab to send from or to.
type place struct {
	name string
	ns   *netns.NS
	addr netip.Addr
	node string // the node it is on; itself for a machine
	pod  *topology.Pod
}

// testLab is a lab that is up until its test ends.
type testLab struct {
	t    testing.TB
	name string
	dir  string // of the cluster file
	st   *lab.State
	all  map[string]*place
}

// in lets a subtest use the lab, until the function that it returns is called.
func (l *testLab) in(t testing.TB) (back func()) {
	was := l.t
	l.t = t
	return func() { l.t = was }
}

// labName makes a name that no other lab on the machine has.
func labName(short string) string { return fmt.Sprintf("e2e-%d-%s", os.Getpid(), short) }

// up brings a lab up from a cluster file's spec and manifests, and takes it
// down when the test ends, however it ends.
func up(t *testing.T, short, spec, manifests string, args ...string) *testLab {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Ping)
	l := &testLab{t: t, name: labName(short), dir: t.TempDir(), all: map[string]*place{}}
	t.Cleanup(l.down)
	l.write(spec, manifests)
	l.slipway("up", append([]string{"-f", l.file()}, args...)...)
	l.read()
	return l
}

func (l *testLab) file() string { return filepath.Join(l.dir, "cluster.yaml") }

// write puts the cluster file where `up` reads it.
func (l *testLab) write(spec, manifests string) {
	l.t.Helper()
	cluster := fmt.Sprintf("apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: %s}\nspec:\n%s  manifests: [objects.yaml]\n", l.name, spec)
	for name, text := range map[string]string{l.file(): cluster, filepath.Join(l.dir, "objects.yaml"): manifests} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			l.t.Fatal(err)
		}
	}
}

// slipway runs a command on this lab that has to succeed.
func (l *testLab) slipway(command string, args ...string) string {
	l.t.Helper()
	return must(l.t, append([]string{command, "-L", l.name}, args...)...)
}

func (l *testLab) down() {
	l.close()
	s := slipway(l.t, "down", l.name)
	if s.Code != 0 && !l.t.Failed() {
		l.t.Errorf("%s: exit code %d: %s", s.Argv, s.Code, s.Err)
	}
	left, err := netns.Names("slipway-" + l.name + "-")
	if err != nil || len(left) > 0 {
		l.t.Errorf("namespaces left after down: %v (%v)", left, err)
	}
}

func (l *testLab) close() {
	for _, p := range l.all {
		_ = p.ns.Close()
	}
	l.all = map[string]*place{}
}

// read takes in the lab's state as it is now and opens all its namespaces.
func (l *testLab) read() {
	l.t.Helper()
	l.close()
	st, err := lab.ReadState(l.name)
	if err != nil {
		l.t.Fatal(err)
	}
	l.st = st
	targets, err := lab.Targets(st)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, x := range targets {
		ns, err := netns.Open(x.NetNS)
		if err != nil {
			l.t.Fatalf("%s: %v", x.Label, err)
		}
		p := &place{name: x.Label, ns: ns, addr: x.Address, node: x.Node, pod: x.Pod}
		if x.Pod != nil && x.Pod.Namespace == "default" {
			p.name = x.Pod.Name
		}
		l.all[p.name] = p
	}
}

// at finds a place by name.
func (l *testLab) at(name string) *place {
	l.t.Helper()
	p := l.all[name]
	if p == nil {
		l.t.Fatalf("lab %s has no %q", l.name, name)
	}
	return p
}

// pods are the user's pods, in order.
func (l *testLab) pods() []*place {
	var out []*place
	for _, p := range l.st.Snapshot.Pods {
		if p.Kind == topology.PodEcho {
			out = append(out, l.at(p.Name))
		}
	}
	return out
}

// servers are the pods that answer HTTP.
func (l *testLab) servers() []*place {
	return slices.DeleteFunc(l.pods(), func(p *place) bool { return len(p.pod.Ports) == 0 })
}

// nodes are the nodes that take part in the datapath, in file order.
func (l *testLab) nodes() []*place {
	var out []*place
	for _, n := range l.st.Snapshot.Nodes {
		if n.InDatapath() {
			out = append(out, l.at(n.Name))
		}
	}
	return out
}

// service finds a service by name.
func (l *testLab) service(name string) topology.Service {
	l.t.Helper()
	for _, s := range l.st.Snapshot.Services {
		if s.Name == name {
			return s
		}
	}
	l.t.Fatalf("lab %s has no service %q", l.name, name)
	return topology.Service{}
}

// clusterIP is the address of a service with its first port.
func (l *testLab) clusterIP(name string) netip.AddrPort {
	l.t.Helper()
	s := l.service(name)
	return netip.AddrPortFrom(s.ClusterIP, uint16(s.Ports[0].Port))
}

// addresses are those that a machine has on its devices at this moment.
func addresses(t testing.TB, p *place) []netip.Addr {
	t.Helper()
	h, err := nl.At(p.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	list, err := h.AddrList(nil, 2) // AF_INET
	if err != nil {
		t.Fatalf("addresses of %s: %v", p.name, err)
	}
	var out []netip.Addr
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && !ip.IsLoopback() {
			out = append(out, ip)
		}
	}
	return out
}
