package topology

import (
	"errors"
	"fmt"
	"net/netip"
)

// Families of pod addressing: modes of one family give the same addresses.
const (
	familyFlannel = "flannel"
	familyCalico  = "calico"
)

func family(m ModeName) string {
	if m.IsCalico() {
		return familyCalico
	}
	return familyFlannel
}

// ipam hands out pod addresses.
type ipam struct {
	pods   netip.Prefix // the cluster's pod CIDR
	length int          // of a lease or block
	family string
	single bool // one prefix a node (flannel), with gateway and broadcast
	owner  map[uint32]int
	ranges [][]netip.Prefix // by node
	used   map[netip.Addr]bool
	next   []uint32 // by node: where the search for a free address goes on
	fresh  uint32   // where the search for a free prefix goes on
}

// newIPAM gives every node of the datapath its prefixes: those it had, else,
// in file order, the lowest free one.
func newIPAM(c *Cluster, nodes []NodeState, prev *Allocation) (*ipam, error) {
	net := c.Spec.Network
	a := &ipam{
		pods: net.PodCIDR.Masked(), family: family(net.Mode), owner: map[uint32]int{},
		ranges: make([][]netip.Prefix, len(nodes)), next: make([]uint32, len(nodes)), used: map[netip.Addr]bool{},
	}
	had := func(node string) []string { return prev.Blocks[node] }
	a.length = CalicoBlockLength
	if a.family == familyFlannel {
		a.length, a.single = net.NodePrefixLength, true
		had = func(node string) []string {
			if s := prev.Subnets[node]; s != "" {
				return []string{s}
			}
			return nil
		}
	}
	if a.length < a.pods.Bits() {
		return nil, fmt.Errorf("pod CIDR %s is smaller than one node's /%d", a.pods, a.length)
	}
	for i, n := range nodes {
		if n.InDatapath() {
			a.restore(i, had(n.Name))
		}
	}
	for i, n := range nodes {
		for n.InDatapath() && len(a.ranges[i]) < a.first(c.Spec.Components) {
			if err := a.grow(i, n.Name); err != nil {
				return nil, err
			}
		}
	}
	return a, nil
}

// first is how many prefixes a node begins with: one, or as many blocks as hold
// what a kubelet takes on where containers get their addresses on the node itself.
func (a *ipam) first(c Components) int {
	if a.single || c != ComponentsFull {
		return 1
	}
	return (maxPods + 1<<(32-a.length) - 1) >> (32 - a.length)
}

// maxPods is how many pods a kubelet takes on unless told (k8s.io/kubernetes
// pkg/kubelet/apis/config/v1beta1/defaults.go, MaxPods).
const maxPods = 110

// restore gives a node the prefixes it had, as far as they still fit.
func (a *ipam) restore(node int, had []string) {
	for _, s := range had {
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Bits() != a.length || !a.pods.Contains(p.Addr()) {
			continue
		}
		n := a.number(p.Addr())
		if _, taken := a.owner[n]; !taken {
			a.own(node, n)
		}
	}
}

// number is the place of an address's prefix in the pod CIDR.
func (a *ipam) number(addr netip.Addr) uint32 { return index(a.pods, addr) >> (32 - a.length) }

func (a *ipam) own(node int, n uint32) {
	a.owner[n] = node
	p := subPrefix(a.pods, a.length, n)
	if len(a.ranges[node]) == 0 && !a.single {
		a.used[p.Addr()] = true // the tunnel's own, see NodeState.TunnelAddress
	}
	a.ranges[node] = append(a.ranges[node], p)
}

// grow gives a node the lowest free prefix.
func (a *ipam) grow(node int, name string) error {
	count := uint64(1) << (a.length - a.pods.Bits())
	for ; uint64(a.fresh) < count; a.fresh++ {
		if _, taken := a.owner[a.fresh]; !taken {
			a.own(node, a.fresh)
			return nil
		}
	}
	return fmt.Errorf("node %s: pod CIDR %s has no free /%d left (it holds %d)", name, a.pods, a.length, count)
}

// usable reports whether a pod of the node may have the address.
func (a *ipam) usable(node int, addr netip.Addr) bool {
	if !addr.Is4() || !a.pods.Contains(addr) || a.used[addr] {
		return false
	}
	if n, ok := a.owner[a.number(addr)]; !ok || n != node {
		return false
	}
	return !a.single || a.isPodHost(a.ranges[node][0], index(a.ranges[node][0], addr))
}

// isPodHost excludes what a flannel lease keeps for itself: .0 is the VXLAN
// device's, .1 the bridge's, the last one the broadcast address.
func (a *ipam) isPodHost(p netip.Prefix, n uint32) bool {
	return n >= 2 && uint64(n) < size(p)-1
}

// take finds the lowest free address of a node. A node whose blocks are full
// gets another one in the calico modes.
func (a *ipam) take(node int, name string) (netip.Addr, error) {
	for {
		per := uint32(1) << (32 - a.length)
		for ; a.next[node] < per*uint32(len(a.ranges[node])); a.next[node]++ {
			p, n := a.ranges[node][a.next[node]/per], a.next[node]%per
			addr := offset(p, n)
			if a.used[addr] || a.single && !a.isPodHost(p, n) {
				continue
			}
			return addr, nil
		}
		if a.single {
			return netip.Addr{}, fmt.Errorf("node %s: subnet %s is full (%d pods)", name, a.ranges[node][0], max(int(per)-3, 0))
		}
		if err := a.grow(node, name); err != nil {
			return netip.Addr{}, err
		}
	}
}

// keep takes out the addresses that pods of an API have already, wherever they
// lie; of two pods with one, the first keeps it. Nobody gets a block by that: an
// address outside of its node's prefixes is one of a former mode.
func (a *ipam) keep(pods []Pod) {
	for i := range pods {
		p := &pods[i]
		if a.used[p.Address] {
			p.Address = netip.Addr{}
		}
		if p.Address.IsValid() {
			a.used[p.Address] = true
		}
	}
}

// assign gives every pod its address: the one that it has, or the previous one if
// it still holds, else a free one, in the order of the pods.
func (a *ipam) assign(pods []Pod, nodeIndex map[string]int, prev map[string]PodAllocation) error {
	a.keep(pods)
	for i := range pods {
		p := &pods[i]
		was, ok := prev[p.Key()]
		if p.Address.IsValid() || !ok || was.Family != a.family || was.Node != p.Node {
			continue
		}
		if addr, err := netip.ParseAddr(was.Address); err == nil && a.usable(nodeIndex[p.Node], addr) {
			p.Address = addr
			a.used[addr] = true
		}
	}
	var errs []error
	full := map[string]bool{} // complain once a node
	for i := range pods {
		p := &pods[i]
		if p.Address.IsValid() || full[p.Node] {
			continue
		}
		addr, err := a.take(nodeIndex[p.Node], p.Node)
		if err != nil {
			full[p.Node] = true
			errs = append(errs, fmt.Errorf("address of pod %s: %w", p.Key(), err))
			continue
		}
		p.Address = addr
		a.used[addr] = true
	}
	return errors.Join(errs...)
}

// record writes the prefixes into the nodes and the allocation. What the other
// family had stays in the allocation, so that switching back finds it.
func (a *ipam) record(mode ModeName, nodes []NodeState, alloc *Allocation) {
	for i := range nodes {
		n := &nodes[i]
		if len(a.ranges[i]) == 0 {
			continue
		}
		if a.single {
			n.PodCIDR = a.ranges[i][0]
			alloc.Subnets[n.Name] = n.PodCIDR.String()
			continue
		}
		n.Blocks = a.ranges[i]
		alloc.Blocks[n.Name] = nil
		for _, b := range n.Blocks {
			alloc.Blocks[n.Name] = append(alloc.Blocks[n.Name], b.String())
		}
		if mode == CalicoIPIP {
			n.TunnelAddress = n.Blocks[0].Addr()
		}
	}
}
