package interop

import (
	"context"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/cni"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/bench/load"
)

func place(p pod) load.Place { return load.Place{NS: p.ns, Addr: p.addr, Label: p.addr.String()} }

// inNS runs plugins in a node, as its container runtime would.
type inNS struct {
	*invoke.RawExec
	*invoke.DefaultExec
	ns *netns.NS
}

// ExecPlugin implements invoke.Exec.
func (e inNS) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (out []byte, err error) {
	err = e.ns.Do(func() error {
		out, err = e.RawExec.ExecPlugin(ctx, path, stdin, environ)
		return err
	})
	return out, err
}

// FindInPath implements invoke.Exec.
func (e inNS) FindInPath(plugin string, paths []string) (string, error) {
	return e.RawExec.FindInPath(plugin, paths)
}

// runtime is what a container runtime has: the configuration that the agent
// wrote, and the plugins.
func (m *machine) runtime() (*libcni.CNIConfig, *libcni.NetworkConfigList) {
	m.bed.t.Helper()
	raw, err := os.ReadFile(m.path("net.d/10-slipway.conflist"))
	if err != nil {
		m.bed.t.Fatal(err)
	}
	list, err := libcni.ConfListFromBytes(raw)
	if err != nil {
		m.bed.t.Fatal(err)
	}
	exec := inNS{&invoke.RawExec{Stderr: os.Stderr}, &invoke.DefaultExec{}, m.ns}
	return libcni.NewCNIConfigWithCacheDir([]string{m.bin()}, m.path("cni-cache"), exec), list
}

// sandbox is a container's call of CNI.
func sandbox(id, name string, ns *netns.NS) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: id, IfName: "eth0", Args: [][2]string{
		{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", name}, {"K8S_POD_INFRA_CONTAINER_ID", id},
	}}
	if ns != nil {
		rt.NetNS = netns.Path(ns.Name())
	}
	return rt
}

// run makes a pod on a node of ours, as a container runtime would.
func (m *machine) run(id, name string) pod {
	t := m.bed.t
	t.Helper()
	c, list := m.runtime()
	p := pod{ns: testnet.NewNS(t)}
	res, err := c.AddNetworkList(t.Context(), list, sandbox(id, name, p.ns))
	if err != nil {
		t.Fatalf("CNI ADD on %s: %v", m.name, err)
	}
	r, err := current.NewResultFromResult(res)
	if err != nil || len(r.IPs) != 1 {
		t.Fatalf("CNI ADD on %s: %v, %v", m.name, r, err)
	}
	a, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	p.addr = a.Unmap()
	m.pods = append(m.pods, p)
	return p
}

// plug makes a pod on a node of flanneld's: the bridge, and what its own plugin does.
func (m *machine) plug() pod {
	t := m.bed.t
	t.Helper()
	h := testnet.Handle(t, m.ns)
	gw := m.subnet.Addr().Next()
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	if _, err := h.LinkByName("cni0"); err != nil {
		addr, err := netlink.ParseAddr(netip.PrefixFrom(gw, m.subnet.Bits()).String())
		if err == nil {
			err = h.LinkAdd(br)
		}
		if err == nil {
			err = h.AddrAdd(br, addr)
		}
		if err == nil {
			err = h.LinkSetUp(br)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m.bed.sysctl(m.ns, "net/ipv4/ip_forward", "1")
	n, err := cni.OpenNode(m.ns)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close() //nolint:errcheck // sockets
	p := pod{ns: testnet.NewNS(t), addr: gw.Next()}
	_, err = n.Attach(t.Context(), p.ns, datapath.PodPort{
		Pod: "default/theirs", HostIf: "veththeirs", ContainerIf: "eth0", Bridge: "cni0", MTU: 1400,
		Address: netip.PrefixFrom(p.addr, m.subnet.Bits()), Gateway: gw, Hairpin: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.pods = append(m.pods, p)
	return p
}
