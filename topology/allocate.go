package topology

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Allocate decides everything that the cluster file and the manifests leave
// open: names, placements and addresses of pods, leases and blocks of nodes,
// cluster IPs and node ports. What prev has is kept wherever it still fits, so
// that a change moves as little as possible; prev and objs may be nil. It is a
// pure function: equal input, equal output. The error joins every reason why
// the objects do not fit the cluster.
func Allocate(c *Cluster, objs *Objects, prev *Allocation) (*Snapshot, *Allocation, error) {
	if objs == nil {
		objs = &Objects{}
	}
	if prev == nil {
		prev = &Allocation{}
	}
	snap := &Snapshot{Lab: c.Metadata.Name, Network: c.Spec.Network, Proxy: c.Spec.Proxy}
	snap.Network.MTU = c.PodMTU()
	alloc := &Allocation{
		Subnets: map[string]string{}, Blocks: map[string][]string{}, Pods: map[string]PodAllocation{},
		ClusterIPs: map[string]string{}, NodePorts: map[string]int{},
	}
	addrs, chosen, err := underlayAddresses(c, prev.Addresses)
	if err != nil {
		return nil, nil, err
	}
	alloc.Addresses = chosen
	underlay(c, snap, addrs)
	keepLeases(snap.Nodes, prev, alloc)

	if c.Spec.Components.Real() {
		snap.Components = c.Spec.Components
		// Where the installer puts it, also before it is there.
		snap.ClusterDNS = offset(c.Spec.Network.ServiceCIDR.Masked(), dnsIndex)
	} else {
		objs = withDNS(objs)
	}
	dnsNames, podErr := allocatePods(c, objs, prev, snap, alloc)
	svcErr := allocateServices(c, objs, prev, snap, alloc, dnsNames)
	if err := errors.Join(podErr, svcErr); err != nil {
		return nil, nil, err
	}
	return snap, alloc, nil
}

// PodMTU is the MTU of the pods in bytes: what the file says, else that of the
// smallest segment less the mode's encapsulation.
func (c *Cluster) PodMTU() MTU {
	if m := c.Spec.Network.MTU; m != 0 {
		return m
	}
	return MTU(c.underlayMTU() - c.Spec.Network.Mode.Overhead())
}

// underlayMTU is the smallest MTU of the segments.
func (c *Cluster) underlayMTU() int {
	least := 0
	for _, g := range c.Spec.Underlay.Segments {
		if least == 0 || g.MTU < least {
			least = g.MTU
		}
	}
	return least
}

// keepLeases carries over what nodes that are still there had in either
// family.
func keepLeases(nodes []NodeState, prev, alloc *Allocation) {
	for _, n := range nodes {
		if !n.InDatapath() {
			continue
		}
		if s, ok := prev.Subnets[n.Name]; ok {
			alloc.Subnets[n.Name] = s
		}
		if b, ok := prev.Blocks[n.Name]; ok {
			alloc.Blocks[n.Name] = slices.Clone(b)
		}
	}
}

// maxFileName is NAME_MAX (linux include/uapi/linux/limits.h): a pod's network
// namespace, slipway-LAB-NAMESPACE.POD, is a file.
const maxFileName = 255

// allocatePods expands the workloads, places the pods and gives them
// addresses. It returns the pods' own DNS names by key.
func allocatePods(c *Cluster, objs *Objects, prev *Allocation, snap *Snapshot, alloc *Allocation) (map[string]string, error) {
	place := newPlacer(snap.Nodes)
	dnsNames, owners := map[string]string{}, map[string]string{}
	var errs []error
	for _, t := range templates(objs) {
		pods, err := place.place(snap.Lab, &t, prev.Pods)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, p := range pods {
			if other, dup := owners[p.Key()]; dup {
				errs = append(errs, fmt.Errorf("pod %s of %s: the name is taken by %s", p.Key(), ownerName(p.Owner), other))
				continue
			}
			if n := len("slipway-"+snap.Lab+"-") + len(p.Key()); n > maxFileName {
				errs = append(errs, fmt.Errorf("pod %s: the name of its network namespace has %d characters; at most %d are possible", p.Key(), n, maxFileName))
			}
			owners[p.Key()] = ownerName(p.Owner)
			if n := t.dnsName(p); n != "" {
				dnsNames[p.Key()] = n
			}
			snap.Pods = append(snap.Pods, p)
		}
	}
	if p, ok := dnsPod(objs, snap); ok {
		snap.Pods = append(snap.Pods, p)
	}
	ipam, err := newIPAM(c, snap.Nodes, prev)
	if err != nil {
		return dnsNames, errors.Join(append(errs, err)...)
	}
	errs = append(errs, ipam.assign(snap.Pods, place.index, prev.Pods))
	ipam.record(c.Spec.Network.Mode, snap.Nodes, alloc)
	for _, p := range snap.Pods {
		alloc.Pods[p.Key()] = PodAllocation{Node: p.Node, Address: p.Address.String(), Family: ipam.family}
	}
	slices.SortFunc(snap.Pods, func(a, b Pod) int {
		if n := strings.Compare(a.Namespace, b.Namespace); n != 0 {
			return n
		}
		return strings.Compare(a.Name, b.Name)
	})
	return dnsNames, errors.Join(errs...)
}

func ownerName(owner string) string {
	if owner == "" {
		return "a bare pod"
	}
	return owner
}

// The cluster's DNS service, as kubeadm and CoreDNS's manifests name it.
const (
	dnsNamespace = "kube-system"
	dnsService   = "kube-dns"
	dnsAppLabel  = "k8s-app"
	// dnsIndex is the place of its address in the service CIDR (kubeadm
	// cmd/kubeadm/app/constants GetDNSIP).
	dnsIndex = 10
)

// declaresDNS reports whether the user brings a cluster DNS of their own.
func declaresDNS(objs *Objects) bool {
	return slices.ContainsFunc(objs.Services, func(s corev1.Service) bool {
		return s.Namespace == dnsNamespace && s.Name == dnsService
	})
}

// withDNS adds the lab's DNS service to a copy of the objects, unless the user
// brings one.
func withDNS(objs *Objects) *Objects {
	if declaresDNS(objs) {
		return objs
	}
	s := corev1.Service{}
	s.Namespace, s.Name = dnsNamespace, dnsService
	s.Labels = map[string]string{dnsAppLabel: dnsService}
	s.Spec.Selector = s.Labels
	s.Spec.Ports = []corev1.ServicePort{
		{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
		{Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP},
	}
	out := *objs
	out.Services = append(slices.Clone(objs.Services), s)
	out.builtinDNS = true
	return &out
}

// dnsPod is the pod behind the lab's DNS service, on the first node.
func dnsPod(objs *Objects, snap *Snapshot) (Pod, bool) {
	at := slices.IndexFunc(snap.Nodes, func(n NodeState) bool { return n.InDatapath() })
	if !objs.builtinDNS || at < 0 {
		return Pod{}, false
	}
	name := "coredns-" + safeHash(10, "coredns") + "-" + safeHash(5, snap.Lab)
	return Pod{
		Namespace: dnsNamespace, Name: name, Node: snap.Nodes[at].Name, Hostname: name, Kind: PodDNS,
		Owner: "Deployment/coredns", Labels: map[string]string{dnsAppLabel: dnsService},
		MAC: derivedMAC(snap.Lab, dnsNamespace, name),
		Ports: []ContainerPort{
			{Name: "dns", Port: 53, Protocol: UDPProtocol},
			{Name: "dns-tcp", Port: 53, Protocol: TCPProtocol},
		},
	}, true
}
