package agent

import (
	"context"
	"fmt"

	"slipway/datapath/lease"
	"slipway/topology"
)

// register finds out where the node stands and says so, unless that is known.
func (a *agent) register(ctx context.Context) (err error) {
	a.mu.Lock()
	claimed := a.claimed
	a.mu.Unlock()
	if claimed {
		if a.dev, err = findDevice(a.nl, a.cfg.Interface, a.own.Address); err == nil && a.dev.prefix.Addr() == a.own.Address {
			return nil
		}
	}
	cluster, err := a.settings(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.cluster = cluster
	a.mu.Unlock()
	self, err := a.registry.Self(ctx)
	if err != nil {
		return err
	}
	want, dev, err := a.want(self)
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.own, a.claimed = want, true // unless told otherwise from now on
	a.mu.Unlock()
	got, err := a.registry.Claim(ctx, want)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.claimed = false
		return err
	}
	a.own, a.dev = got, dev
	return nil
}

// want is what the node is to say of itself.
func (a *agent) want(self lease.Lease) (lease.Lease, device, error) {
	network := a.cluster.Spec.Network
	address := self.Address
	for _, n := range a.cluster.Spec.Nodes {
		if n.Name == a.cfg.Node && !address.IsValid() {
			address = n.Address
		}
	}
	dev, err := findDevice(a.nl, a.cfg.Interface, address)
	if err != nil {
		return self, dev, err
	}
	self.Node, self.Address, self.Backend = a.cfg.Node, dev.prefix.Addr(), lease.Backend(network.Mode)
	if network.Mode.IsCalico() && self.Address != address {
		return self, dev, fmt.Errorf("interface %s has the address %s, but the other nodes peer with the node's InternalIP %s", dev.name, self.Address, address)
	}
	if network.Mode == topology.FlannelVXLAN {
		self.VNI, self.VTEPMAC = network.VXLAN.VNI, topology.MAC(a.cluster.Metadata.Name, a.cfg.Node, "flannel.1")
	}
	return self, dev, nil
}
