package flannel

import (
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// udpDevice is the name flanneld's TUN gets first ("flannel%d",
// flannel pkg/backend/udp/udp_network_amd64.go, initTun).
const udpDevice = "flannel0"

// udp carries packets through a TUN and a process that puts them, bare, into
// UDP datagrams; or tc programs do that, around a device of the same name.
type udp struct{}

// Name implements [datapath.Mode].
func (udp) Name() topology.ModeName { return topology.FlannelUDP }

// Check implements [datapath.Mode].
func (udp) Check(s topology.Snapshot) error { return check(s, topology.OverheadUDP) }

// Plan implements [datapath.Mode]. The TUN has the subnet's first address with
// /32, so that no broadcast routes are made, and one route for all pods
// (flannel pkg/backend/udp/udp_network_amd64.go, configureIface); which node a
// packet goes to is the process's affair.
func (udp) Plan(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	cfg, self, ok, err := node(s, name)
	if err != nil || !ok {
		return cfg, err
	}
	port := uint16(s.Network.UDP.Port)
	cfg.Links = append(cfg.Links, udpLink(s, self))
	cfg.Routes = append(cfg.Routes, datapath.Route{Dst: s.Network.PodCIDR, Dev: udpDevice, Protocol: datapath.ProtoBoot})
	cfg.UDPTunnel = &datapath.UDPTunnel{
		Device: udpDevice, Underlay: self.Interface.Name, MTU: int(s.Network.MTU),
		Local:          netip.AddrPortFrom(self.Interface.Prefix.Addr(), port),
		Implementation: s.Network.UDP.Implementation, Network: s.Network.PodCIDR,
	}
	for n := range peers(s, self) {
		cfg.UDPTunnel.Leases = append(cfg.UDPTunnel.Leases, datapath.TunnelLease{
			Subnet: n.PodCIDR, Remote: netip.AddrPortFrom(n.Interface.Prefix.Addr(), port),
		})
	}
	return cfg, nil
}

// udpLink is a TUN for a process, and for the programs a device that takes bare
// packets out of what they make of the datagrams (datapath/bpf/udp.c).
func udpLink(s topology.Snapshot, self topology.NodeState) datapath.Link {
	l := datapath.Link{
		Name: udpDevice, Kind: datapath.TUN, MTU: int(s.Network.MTU),
		Addresses: []netip.Prefix{netip.PrefixFrom(self.PodCIDR.Addr(), 32)},
		VNetHdr:   s.Network.UDP.Implementation == topology.UDPBatched,
	}
	if s.Network.UDP.Implementation == topology.UDPeBPF {
		l.Kind, l.VXLAN = datapath.VXLAN, &datapath.VXLANAttrs{Port: s.Network.UDP.Port, External: true}
	}
	return l
}

// PlanRouter implements [datapath.Mode].
func (udp) PlanRouter(s topology.Snapshot, name string) (datapath.NodeConfig, error) {
	return router(s, name)
}
