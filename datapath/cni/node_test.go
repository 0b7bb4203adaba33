package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

const calicoMAC = "ee:ee:ee:ee:ee:ee"

func bridgePort(i int) datapath.PodPort {
	return datapath.PodPort{
		Pod: fmt.Sprintf("default/web-%d", i), HostIf: fmt.Sprintf("veth%d", i), ContainerIf: "eth0",
		ContainerMAC: fmt.Sprintf("0a:58:0a:f4:01:%02x", i+2),
		Address:      netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 2)}), 24),
		Gateway:      netip.MustParseAddr("10.244.1.1"), Bridge: "cni0", Hairpin: true, MTU: 1450,
	}
}

func routedPort(i int) datapath.PodPort {
	return datapath.PodPort{
		Pod: fmt.Sprintf("default/web-%d", i), HostIf: fmt.Sprintf("cali%011d", i), ContainerIf: "eth0",
		HostMAC: calicoMAC, ContainerMAC: fmt.Sprintf("0a:58:0a:f4:01:%02x", i+2),
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, 1, byte(i + 2)}), 32),
		Gateway: netip.MustParseAddr("169.254.1.1"), MTU: 1480,
	}
}

// newNodeNS makes a namespace that looks like a lab's node: an underlay device
// that covers the calico gateway, forwarding on, and the bridge cni0.
func newNodeNS(t testing.TB) *netns.NS {
	t.Helper()
	node, far := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, node, "eth0", "192.168.233.10/24", far, "eth0", "192.168.233.1/24")
	h := testnet.Handle(t, node)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 10} // the same for all, so that dumps compare
	if err := h.LinkSetHardwareAddr(mustLink(t, h, "eth0"), mac); err != nil {
		t.Fatal(err)
	}
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0", MTU: 1450}}); err != nil {
		t.Fatal(err)
	}
	bridge := mustLink(t, h, "cni0")
	addr, _ := netlink.ParseAddr("10.244.1.1/24")
	if err := errors.Join(h.AddrAdd(bridge, addr), h.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
	eth := mustLink(t, h, "eth0")
	gw := linkRoute(netip.MustParseAddr("169.254.1.1"), eth.Attrs().Index)
	if err := h.RouteAdd(&gw); err != nil {
		t.Fatal(err)
	}
	err := node.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func newNode(t testing.TB) (*Node, *netns.NS) {
	t.Helper()
	ns := newNodeNS(t)
	n, err := OpenNode(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n, ns
}

type linker interface {
	LinkByName(string) (netlink.Link, error)
}

func mustLink(t testing.TB, h linker, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	if err != nil {
		t.Fatalf("link %s: %v", name, err)
	}
	return l
}

func attach(t testing.TB, n *Node, pod *netns.NS, p datapath.PodPort, wantChanged bool) {
	t.Helper()
	changed, err := n.Attach(context.Background(), pod, p)
	if err != nil {
		t.Fatal(err)
	}
	if changed != wantChanged {
		t.Fatalf("attach %s: changed = %v, want %v", p.Pod, changed, wantChanged)
	}
}

func ping(t testing.TB, from *netns.NS, to netip.Addr) {
	t.Helper()
	testnet.Need(t, testnet.Ping)
	cmd := run.Cmd{NS: from, Name: "ping", Args: []string{"-n", "-c", "1", "-W", "3", to.String()}}
	if out, err := cmd.Output(context.Background()); err != nil {
		t.Fatalf("ping %s from %s: %v\n%s", to, from.Name(), err, out)
	}
}

var kinds = []struct {
	name string
	port func(int) datapath.PodPort
}{{"bridge", bridgePort}, {"routed", routedPort}}

func TestPodsReachEachOtherAndTheNode(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			n, node := newNode(t)
			a, b := testnet.NewNS(t), testnet.NewNS(t)
			attach(t, n, a, k.port(0), true)
			attach(t, n, b, k.port(1), true)
			ping(t, a, k.port(1).Address.Addr())
			ping(t, b, k.port(0).Address.Addr())
			ping(t, node, k.port(0).Address.Addr())
			ping(t, a, netip.MustParseAddr("192.168.233.10"))
		})
	}
}

// A routed pod must resolve its gateway by the node's proxy ARP, to the MAC
// that all host ends share, not by an entry that somebody planted.
func TestGatewayIsResolvedByProxyARP(t *testing.T) {
	n, _ := newNode(t)
	pod := testnet.NewNS(t)
	attach(t, n, pod, routedPort(0), true)
	h := testnet.Handle(t, pod)
	if neighs, err := h.NeighList(0, netlink.FAMILY_V4); err != nil || len(neighs) != 0 {
		t.Fatalf("neighbours before any traffic: %v, %v", neighs, err)
	}
	ping(t, pod, netip.MustParseAddr("192.168.233.10"))
	neighs, err := h.NeighList(0, netlink.FAMILY_V4)
	if err != nil || len(neighs) != 1 {
		t.Fatalf("neighbours: %v, %v; want the gateway alone", neighs, err)
	}
	got := neighs[0]
	if got.IP.String() != "169.254.1.1" || got.HardwareAddr.String() != calicoMAC || got.State&unix.NUD_PERMANENT != 0 {
		t.Errorf("gateway resolved as %v in state %#x, want %s, not permanent", got, got.State, calicoMAC)
	}
}

func TestUncoveredGatewayIsAnError(t *testing.T) {
	node, pod := testnet.NewNS(t), testnet.NewNS(t)
	n, err := OpenNode(node)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close() //nolint:errcheck // test
	if _, err := n.Attach(context.Background(), pod, routedPort(0)); !errors.Is(err, ErrGatewayUncovered) {
		t.Errorf("attach without a route for 169.254.1.1: %v, want ErrGatewayUncovered", err)
	}
}

func TestSecondAttachChangesNothing(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			n, _ := newNode(t)
			pod := testnet.NewNS(t)
			attach(t, n, pod, k.port(0), true)
			attach(t, n, pod, k.port(0), false)
			if err := n.Check(context.Background(), pod, k.port(0)); err != nil {
				t.Error(err)
			}
		})
	}
}

// damage is one way to spoil an attachment, and a word that CHECK must say of it.
type damage struct {
	name, says string
	ip         []string // "pod" or "node", then arguments of ip(8), or "sysctl" and KEY=VALUE
}

func TestDamageIsFoundAndRepaired(t *testing.T) {
	common := func(hostIf string) []damage {
		return []damage{
			{"host end down", hostIf + " up", []string{"node", "link", "set", hostIf, "down"}},
			{"host MTU", "MTU of " + hostIf, []string{"node", "link", "set", hostIf, "mtu", "1300"}},
			{"pod MTU", "MTU of eth0", []string{"pod", "link", "set", "eth0", "mtu", "1300"}},
			{"pod MAC", "MAC of eth0", []string{"pod", "link", "set", "eth0", "address", "02:00:00:00:00:01"}},
			{"pod down", "eth0 up", []string{"pod", "link", "set", "eth0", "down"}},
			{"address gone", "address 10.244.1.2/", []string{"pod", "addr", "flush", "dev", "eth0"}},
			{"foreign address", "foreign address 10.244.1.77", []string{"pod", "addr", "add", "10.244.1.77/32", "dev", "eth0"}},
			{"no default route", "route 0.0.0.0/0", []string{"pod", "route", "del", "default"}},
			{"foreign route", "foreign route 10.9.0.0/16", []string{"pod", "route", "add", "10.9.0.0/16", "dev", "eth0"}},
			{"alias", "alias", []string{"node", "link", "set", hostIf, "alias", "x"}},
		}
	}
	bridge := append(common("veth0"),
		damage{"hairpin", "hairpin", []string{"node", "link", "set", "veth0", "type", "bridge_slave", "hairpin", "off"}},
		damage{"isolated", "isolation", []string{"node", "link", "set", "veth0", "type", "bridge_slave", "isolated", "on"}},
		damage{"out of the bridge", "master", []string{"node", "link", "set", "veth0", "nomaster"}},
		damage{"link gone", "no link", []string{"node", "link", "del", "veth0"}})
	cali := routedPort(0).HostIf
	routed := append(common(cali),
		damage{"host MAC", "MAC of " + cali, []string{"node", "link", "set", cali, "address", "02:00:00:00:00:02"}},
		damage{"host route", "route 10.244.1.2/32", []string{"node", "route", "del", "10.244.1.2/32"}},
		damage{"host route elsewhere", "route 10.244.1.2/32", []string{"node", "route", "replace", "10.244.1.2/32", "dev", "eth0"}},
		damage{"no proxy ARP", "proxy_arp", []string{"node", "sysctl", "conf/" + cali + "/proxy_arp=0"}},
		damage{"no forwarding", "forwarding", []string{"node", "sysctl", "conf/" + cali + "/forwarding=0"}},
		damage{"slow proxy ARP", "proxy_delay", []string{"node", "sysctl", "neigh/" + cali + "/proxy_delay=80"}},
		damage{"gateway route", "route 169.254.1.1/32", []string{"pod", "route", "flush", "169.254.1.1/32"}})
	for _, k := range []struct {
		name    string
		port    datapath.PodPort
		damages []damage
	}{{"bridge", bridgePort(0), bridge}, {"routed", routedPort(0), routed}} {
		n, node := newNode(t)
		pod := testnet.NewNS(t)
		attach(t, n, pod, k.port, true)
		for _, d := range k.damages {
			t.Run(k.name+"/"+d.name, func(t *testing.T) { spoilAndRepair(t, n, node, pod, k.port, d) })
		}
	}
}

func spoilAndRepair(t *testing.T, n *Node, node, pod *netns.NS, port datapath.PodPort, d damage) {
	t.Helper()
	ctx := context.Background()
	ns := node
	if d.ip[0] == "pod" {
		ns = pod
	}
	if d.ip[1] == "sysctl" {
		key, value, _ := strings.Cut(d.ip[2], "=")
		if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0) }); err != nil {
			t.Fatal(err)
		}
	} else if _, err := (run.Cmd{NS: ns, Name: "ip", Args: d.ip[1:]}).Output(ctx); err != nil {
		t.Fatal(err)
	}
	if err := n.Check(ctx, pod, port); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), d.says) {
		t.Errorf("check says %v, want ErrDiffers with %q", err, d.says)
	}
	attach(t, n, pod, port, true)
	attach(t, n, pod, port, false)
	ping(t, node, port.Address.Addr())
}

func TestSysctlsOfRoutedPod(t *testing.T) {
	n, node := newNode(t)
	pod := testnet.NewNS(t)
	attach(t, n, pod, routedPort(0), true)
	got := map[string]string{}
	err := node.Do(func() error {
		for _, k := range []string{"conf/%s/forwarding", "conf/%s/proxy_arp", "conf/%s/rp_filter", "neigh/%s/proxy_delay"} {
			b, err := os.ReadFile("/proc/sys/net/ipv4/" + fmt.Sprintf(k, routedPort(0).HostIf))
			if err != nil {
				return err
			}
			got[k] = strings.TrimSpace(string(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"conf/%s/forwarding": "1", "conf/%s/proxy_arp": "1", "conf/%s/rp_filter": "1", "neigh/%s/proxy_delay": "0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sysctls (-want +got):\n%s", diff)
	}
}

func TestDetachLeavesNothing(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			ctx := context.Background()
			n, node := newNode(t)
			pod := testnet.NewNS(t)
			before := dump(t, node) + dump(t, pod)
			attach(t, n, pod, k.port(0), true)
			changed, err := n.Detach(ctx, pod, k.port(0))
			if err != nil || !changed {
				t.Fatalf("detach: %v, %v", changed, err)
			}
			if diff := cmp.Diff(before, dump(t, node)+dump(t, pod)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if changed, err := n.Detach(ctx, nil, k.port(0)); err != nil || changed {
				t.Errorf("second detach, pod gone: %v, %v", changed, err)
			}
		})
	}
}

// A pod whose namespace was made anew keeps its host interface's name.
// A pod that gets a former one's address is reached at once: the node does not
// send to the former one's MAC until ARP forgets it.
func TestAddressOfAFormerPod(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			n, node := newNode(t)
			old, pod := testnet.NewNS(t), testnet.NewNS(t)
			p := k.port(0)
			attach(t, n, old, p, true)
			ping(t, node, p.Address.Addr())
			if _, err := n.Detach(t.Context(), old, p); err != nil {
				t.Fatal(err)
			}
			p.Pod, p.HostIf, p.ContainerMAC = "default/next", p.HostIf[:4]+"9", "0a:58:0a:f4:01:99"
			attach(t, n, pod, p, true)
			ping(t, node, p.Address.Addr())
		})
	}
}

func TestAttachFollowsANewNamespace(t *testing.T) {
	n, node := newNode(t)
	old, pod := testnet.NewNS(t), testnet.NewNS(t)
	attach(t, n, old, bridgePort(0), true)
	attach(t, n, pod, bridgePort(0), true)
	ping(t, node, bridgePort(0).Address.Addr())
	if d := dump(t, old); strings.Contains(d, "eth0") {
		t.Errorf("the old namespace still has an interface:\n%s", d)
	}
}

// A bridge that was deleted and made again has another index.
func TestAttachFollowsANewBridge(t *testing.T) {
	n, node := newNode(t)
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	attach(t, n, a, bridgePort(0), true)
	ctx := context.Background()
	for _, args := range [][]string{
		{"link", "del", "cni0"}, {"link", "add", "cni0", "type", "bridge"},
		{"link", "set", "cni0", "up"}, {"addr", "add", "10.244.1.1/24", "dev", "cni0"},
	} {
		if _, err := (run.Cmd{NS: node, Name: "ip", Args: args}).Output(ctx); err != nil {
			t.Fatal(err)
		}
	}
	attach(t, n, b, bridgePort(1), true)
	attach(t, n, a, bridgePort(0), true)
	ping(t, a, bridgePort(1).Address.Addr())
}

// One Node serves several workers at once.
func TestConcurrentAttach(t *testing.T) {
	n, node := newNode(t)
	const pods = 16
	var nss []*netns.NS
	for range pods {
		nss = append(nss, testnet.NewNS(t))
	}
	for _, wantChanged := range []bool{true, false} {
		var wg sync.WaitGroup
		for i, ns := range nss {
			wg.Go(func() {
				changed, err := n.Attach(context.Background(), ns, routedPort(i))
				if err != nil || changed != wantChanged {
					t.Errorf("pod %d: changed = %v, %v; want %v", i, changed, err, wantChanged)
				}
			})
		}
		wg.Wait()
	}
	ping(t, node, routedPort(pods-1).Address.Addr())
}

func TestBadPortsAreRefused(t *testing.T) {
	n, _ := newNode(t)
	pod := testnet.NewNS(t)
	p := bridgePort(0)
	p.HostIf, p.ContainerMAC, p.Address = "a-name-much-too-long", "zz", netip.MustParsePrefix("fd00::1/64")
	_, err := n.Attach(context.Background(), pod, p)
	for _, say := range []string{"default/web-0", "a-name-much-too-long", `"zz"`, "fd00::1/64"} {
		if err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("error %v does not mention %q", err, say)
		}
	}
	p = bridgePort(0)
	p.Bridge = "nowhere"
	if _, err := n.Attach(context.Background(), pod, p); err == nil || !strings.Contains(err.Error(), "bridge nowhere") {
		t.Errorf("attach to a missing bridge: %v", err)
	}
}

func TestContainerIDs(t *testing.T) {
	long := "default/" + strings.Repeat("x", 253)
	ids := []string{ContainerID("default/web-0"), ContainerID("default-web/0"), ContainerID(long)}
	if ids[0] != "default_web-0" || slices.Contains(ids[1:], ids[0]) || len(ids[2]) > maxContainerID {
		t.Errorf("container IDs %q", ids)
	}
}
