package peers

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"slipway/internal/netns"
	"slipway/topology"
)

// handNode is what a node made by hand has in common with one of a lab: its
// addresses, so that the lab's rules fit it, too.
type handNode struct {
	name, pod string
	outer     netip.Prefix // of eth0
	subnet    netip.Prefix // of the pods (flannel)
	address   netip.Addr   // the pod's
}

// gateway is cni0's address.
func (n handNode) gateway() netip.Addr { return n.subnet.Masked().Addr().Next() }

// block is the pods' route that Calico announces: blocks are of 64 addresses
// unless told otherwise (Calico's IPPool, blockSize).
func (n handNode) block() netip.Prefix { return netip.PrefixFrom(n.address, 26).Masked() }

// vtep is flannel.1's hardware address.
func (n handNode) vtep() string {
	a := n.outer.Addr().As4()
	return fmt.Sprintf("02:00:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3])
}

// handNet is two nodes with a pod on each, set up with the commands of iproute2
// as flannel's and Calico's documentation tells. Its namespaces have no names:
// they end with this process, however it ends.
type handNet struct {
	nodes  [2]handNode
	mtu    int
	spaces map[string]*netns.NS
}

const handFabric = "fabric"

// newHandNet makes the namespaces of what a lab has: its two nodes and pods.
func newHandNet(s *topology.Snapshot) (h *handNet, err error) {
	h = &handNet{mtu: int(s.Network.MTU), spaces: map[string]*netns.NS{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	names := []string{handFabric}
	for i, pod := range []string{"client", "server"} {
		n := handNode{name: s.Nodes[i].Name, pod: pod, outer: s.Nodes[i].Interface.Prefix, subnet: s.Nodes[i].PodCIDR}
		for _, p := range s.Pods {
			if p.Key() == "default/"+pod {
				n.address = p.Address
			}
		}
		h.nodes[i] = n
		names = append(names, n.name, pod)
	}
	for _, name := range names {
		if h.spaces[name], err = netns.Anonymous(); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (h *handNet) close() error {
	var errs []error
	for _, ns := range h.spaces {
		errs = append(errs, ns.Close())
	}
	return errors.Join(errs...)
}

// path names a namespace to iproute2.
func (h *handNet) path(name string) string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.spaces[name].Fd())
}

// run runs commands in a namespace, one a line.
func (h *handNet) run(ctx context.Context, where, commands string) error {
	for line := range strings.Lines(commands) {
		argv := strings.Fields(line)
		if len(argv) == 0 {
			continue
		}
		if path, value, ok := strings.Cut(argv[1], "="); argv[0] == "sysctl" && ok {
			if err := h.sysctl(where, path, value); err != nil {
				return err
			}
			continue
		}
		if _, err := output(ctx, h.spaces[where], "", argv...); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	return nil
}

// sysctl sets one of the namespace's own settings, as sysctl(8) does.
func (h *handNet) sysctl(where, name, value string) error {
	file := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	err := h.spaces[where].Do(func() error { return os.WriteFile(file, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("%s: set %s to %s: %w", where, name, value, err)
	}
	return nil
}

// output runs a program in a namespace and returns what it writes.
func output(ctx context.Context, ns *netns.NS, input string, argv ...string) (string, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, said strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &said
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(os.TempDir(), fmt.Sprintf("slipway-byhand-%d.lock", os.Getpid())))
	err := ns.Do(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(said.String()))
	}
	return out.String(), nil
}

// wire joins the nodes by a bridge, as a lab's segment is one.
func (h *handNet) wire(ctx context.Context) error {
	if err := h.run(ctx, handFabric, "ip link add br0 type bridge\nip link set br0 up"); err != nil {
		return err
	}
	for _, n := range h.nodes {
		err := errors.Join(
			h.run(ctx, n.name, `
				sysctl net.ipv4.ip_forward=1
				sysctl net.ipv4.conf.all.rp_filter=0
				sysctl net.ipv4.conf.default.rp_filter=0
				ip link set lo up`),
			h.run(ctx, handFabric, fmt.Sprintf(`
				ip link add %[1]s type veth peer name eth0 netns %[2]s
				ip link set %[1]s master br0 up`, n.name, h.path(n.name))),
			h.run(ctx, n.name, fmt.Sprintf(`
				ip addr add %s dev eth0
				ip link set eth0 up
				ip route add default dev eth0`, n.outer)))
		if err != nil {
			return err
		}
	}
	return nil
}

// bridgePods plugs the pods into cni0, as the bridge plugin does for flannel.
func (h *handNet) bridgePods(ctx context.Context) error {
	for _, n := range h.nodes {
		err := errors.Join(
			h.run(ctx, n.name, fmt.Sprintf(`
				ip link add cni0 type bridge
				ip addr add %s/%d dev cni0
				ip link set cni0 mtu %d up
				ip link add veth0 mtu %[3]d type veth peer name eth0 mtu %[3]d netns %[4]s
				ip link set veth0 master cni0 up`, n.gateway(), n.subnet.Bits(), h.mtu, h.path(n.pod))),
			h.run(ctx, n.pod, fmt.Sprintf(`
				ip link set lo up
				ip addr add %s/%d dev eth0
				ip link set eth0 up
				ip route add default via %s`, n.address, n.subnet.Bits(), n.gateway())))
		if err != nil {
			return err
		}
	}
	return nil
}

// routePods gives each pod a veth and a route of its own (Calico's documentation,
// "Why does my container have a route to 169.254.1.1?").
func (h *handNet) routePods(ctx context.Context) error {
	for _, n := range h.nodes {
		err := errors.Join(
			h.run(ctx, n.name, fmt.Sprintf(`
				ip link add cali0 address ee:ee:ee:ee:ee:ee mtu %d type veth peer name eth0 mtu %[1]d netns %s
				sysctl net.ipv4.conf.cali0.proxy_arp=1
				sysctl net.ipv4.neigh.cali0.proxy_delay=0
				ip link set cali0 up
				ip route add %s dev cali0`, h.mtu, h.path(n.pod), n.address)),
			h.run(ctx, n.pod, fmt.Sprintf(`
				ip link set lo up
				ip addr add %s/32 dev eth0
				ip link set eth0 up
				ip route add 169.254.1.1 dev eth0
				ip route add default via 169.254.1.1`, n.address)))
		if err != nil {
			return err
		}
	}
	return nil
}

// join makes the way from each node to the other's pods.
func (h *handNet) join(ctx context.Context, mode topology.ModeName) error {
	for i, n := range h.nodes {
		o := h.nodes[1-i]
		var commands string
		switch mode {
		case topology.FlannelVXLAN: // flannel Documentation/backends.md; pkg/backend/vxlan/device.go
			commands = fmt.Sprintf(`
				ip link add flannel.1 address %s mtu %d type vxlan id 1 local %s dev eth0 dstport 8472 nolearning
				ip addr add %s/32 dev flannel.1
				ip link set flannel.1 up
				ip neigh add %s lladdr %s dev flannel.1 nud permanent
				bridge fdb add %[6]s dev flannel.1 dst %[7]s self permanent
				ip route add %[8]s via %[5]s dev flannel.1 onlink`,
				n.vtep(), h.mtu, n.outer.Addr(), n.subnet.Masked().Addr(), o.subnet.Masked().Addr(), o.vtep(), o.outer.Addr(), o.subnet.Masked())
		case topology.FlannelHostGW:
			commands = fmt.Sprintf("ip route add %s via %s dev eth0", o.subnet.Masked(), o.outer.Addr())
		default:
			commands = fmt.Sprintf("ip route add %s via %s dev eth0", o.block(), o.outer.Addr())
		}
		if err := h.run(ctx, n.name, commands); err != nil {
			return err
		}
	}
	return nil
}

// setUp makes a mode's whole path.
func (h *handNet) setUp(ctx context.Context, mode topology.ModeName) error {
	if err := h.wire(ctx); err != nil {
		return err
	}
	pods := h.bridgePods
	if mode.IsCalico() {
		pods = h.routePods
	}
	if err := pods(ctx); err != nil {
		return err
	}
	return h.join(ctx, mode)
}

// copyRules loads a lab's rules, node by node.
func (h *handNet) copyRules(ctx context.Context, from *Lab) error {
	copied := 0
	for _, n := range h.nodes {
		ns, _, err := from.At(n.name)
		if err != nil {
			return err
		}
		for _, kind := range []string{"iptables-legacy", "iptables-nft"} {
			if _, err := exec.LookPath(kind + "-save"); err != nil {
				continue
			}
			rules, err := output(ctx, ns, "", kind+"-save")
			if err != nil {
				return err
			}
			if count := strings.Count(rules, "\n-A "); count > 0 {
				copied += count
				if _, err := output(ctx, h.spaces[n.name], rules, kind+"-restore"); err != nil {
					return err
				}
			}
		}
	}
	if copied == 0 {
		return errors.New("the lab has no rules of iptables to copy")
	}
	return nil
}
