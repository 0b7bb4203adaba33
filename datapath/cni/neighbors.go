package cni

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// neighbors: pod and node know each other without ARP. They are set without
// being read: the kernel finds a namespace's entries only by walking those of
// all namespaces, and setting one that is there changes nothing.
func (r *repair) neighbors() error {
	towards := r.host.Index
	if !r.want.routed() {
		var err error
		if towards, err = r.node.bridge(r.want.Bridge, false); err != nil {
			return err
		}
	}
	if r.dry {
		return nil
	}
	if err := r.node.h.NeighSet(permanent(towards, r.want.Address.Addr(), r.want.podMAC)); err != nil {
		return fmt.Errorf("set neighbour %s of the node: %w", r.want.Address.Addr(), err)
	}
	if err := r.pod.NeighSet(permanent(r.host.peer(), r.want.Gateway, r.want.gatewayMAC)); err != nil {
		return fmt.Errorf("set neighbour %s of the pod: %w", r.want.Gateway, err)
	}
	return nil
}

func permanent(link int, addr netip.Addr, mac net.HardwareAddr) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: link, Family: netlink.FAMILY_V4, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac}
}

// forget removes what ARP told the node of a former pod with the same address,
// which it would believe for up to base_reachable_time * 1.5, 45 s (arp(7)), and
// lose the new pod's packets to.
func (r *repair) forget() error {
	bridge, err := r.node.bridge(r.want.Bridge, false)
	if err != nil {
		return err
	}
	err = r.node.h.NeighDel(&netlink.Neigh{LinkIndex: bridge, Family: netlink.FAMILY_V4, IP: r.want.Address.Addr().AsSlice()})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("forget neighbour %s: %w", r.want.Address.Addr(), err)
	}
	return nil
}
