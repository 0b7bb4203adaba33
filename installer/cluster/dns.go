package cluster

import (
	"net/netip"
	"slices"

	"slipway/installer"
	"slipway/topology"
)

// defaultDNSImage is CoreDNS where no image of it is given.
const defaultDNSImage = "registry.k8s.io/coredns/coredns:v1.14.2"

// dns is the cluster's DNS.
func (p *planner) dns() (installer.Phase, error) {
	ph := installer.Phase{Title: "DNS",
		About: "CoreDNS is a workload like any other: a deployment, a service with an address that all pods are told, and rights to see services and endpoints."}
	image := p.image("coredns")
	if image == "" {
		image = defaultDNSImage
	}
	text, err := render("coredns.yaml", map[string]any{
		"Domain": Domain, "Image": image, "Address": p.clusterDNS(), "Replicas": p.dnsReplicas(), "Forward": p.forwards(),
	})
	ph.Steps = []installer.Step{{Name: "coredns", Why: "Its service has the address that kubelets write into pods' resolv.conf.", Work: p.applied("coredns.yaml", text)}}
	return ph, err
}

// dnsReplicas are two, so that one may fail, where two nodes run pods.
func (p *planner) dnsReplicas() int { return min(2, max(1, len(p.workers))) }

// forwards reports whether CoreDNS passes on what it does not know: wherever it runs,
// it must have whom to ask, or it does not start.
func (p *planner) forwards() bool {
	return !p.inLab() && !slices.ContainsFunc(p.kubelets(), func(n topology.NodeState) bool { return p.Facts[n.Name].NoDNS })
}

// inLab reports whether the machines are a lab's nodes.
func (p *planner) inLab() bool {
	for _, f := range p.Facts {
		if f.Lab {
			return true
		}
	}
	return false
}

// clusterDNS is the address of the cluster's DNS: the tenth of the services'
// (kubeadm's constants, GetDNSIP), unless the snapshot has another.
func (p *planner) clusterDNS() netip.Addr {
	if p.Snapshot.ClusterDNS.IsValid() {
		return p.Snapshot.ClusterDNS
	}
	a := p.Snapshot.Network.ServiceCIDR.Masked().Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}
