package lease

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"

	clientv3 "go.etcd.io/etcd/client/v3"

	"slipway/topology"
)

// etcdConfig is the network's configuration (flannel pkg/subnet/config.go, and
// Documentation/configuration.md).
type etcdConfig struct {
	Network   netip.Prefix
	SubnetMin netip.Addr `json:",omitzero"`
	SubnetMax netip.Addr `json:",omitzero"`
	SubnetLen int        `json:",omitempty"`
	Backend   backend
}

// backend is the part that depends on the mode.
type backend struct {
	Type          string
	VNI           int  `json:",omitempty"`
	Port          int  `json:",omitempty"`
	DirectRouting bool `json:",omitempty"`
}

// defaultSubnetLen is flannel's for networks that hold four such subnets; those
// that do not are split into four.
const defaultSubnetLen = 24

// configOf is what a cluster file's network is in flannel's words. SubnetMin says
// that the first subnet counts, which flannel leaves out by itself.
func configOf(n topology.Network) etcdConfig {
	c := etcdConfig{Network: n.PodCIDR, SubnetLen: n.NodePrefixLength, SubnetMin: n.PodCIDR.Masked().Addr(), Backend: backend{Type: Backend(n.Mode)}}
	switch n.Mode {
	case topology.FlannelVXLAN:
		c.Backend.VNI, c.Backend.Port, c.Backend.DirectRouting = n.VXLAN.VNI, n.VXLAN.Port, n.VXLAN.DirectRouting
	case topology.FlannelUDP:
		c.Backend.Port = n.UDP.Port
	}
	return c
}

// Settle returns the network as etcd has it: what all nodes have to agree on
// comes from there, the rest from the cluster file. Where etcd has none, it is
// written from the file if create says so; else that is ErrNoConfig.
func (e *Etcd) Settle(ctx context.Context, n topology.Network, create bool) (topology.Network, error) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	key := path.Join(e.opts.Prefix, "config")
	r, err := e.client.Get(ctx, key)
	if err != nil {
		return n, fmt.Errorf("read %s: %w", key, err)
	}
	var raw []byte
	switch {
	case len(r.Kvs) > 0:
		raw = r.Kvs[0].Value
	case !create:
		return n, fmt.Errorf("%s: %w", key, ErrNoConfig)
	default:
		if raw, err = json.Marshal(configOf(n)); err != nil {
			return n, err
		}
		if _, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", 0)).Then(clientv3.OpPut(key, string(raw))).Commit(); err != nil {
			return n, fmt.Errorf("write %s: %w", key, err)
		}
		return e.Settle(ctx, n, false) // another node's may have come first
	}
	c, err := parseConfig(raw)
	if err != nil {
		return n, fmt.Errorf("%s: %w", key, err)
	}
	if n, err = c.apply(n); err != nil {
		return n, fmt.Errorf("%s: %w", key, err)
	}
	e.mu.Lock()
	e.config = c
	e.mu.Unlock()
	return n, nil
}

// parseConfig reads flannel's configuration with flannel's defaults (pkg/subnet/
// config.go, CheckNetworkConfig).
func parseConfig(raw []byte) (etcdConfig, error) {
	var c etcdConfig
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, err
	}
	if !c.Network.IsValid() || !c.Network.Addr().Is4() {
		return c, errors.New("Network is no IPv4 network") //nolint:staticcheck,revive // flannel's name of the field
	}
	c.Network = c.Network.Masked()
	if c.SubnetLen == 0 {
		c.SubnetLen = max(defaultSubnetLen, c.Network.Bits()+2)
	}
	if c.SubnetLen < c.Network.Bits()+2 || c.SubnetLen > 30 {
		return c, fmt.Errorf("SubnetLen %d: %s has to hold at least four subnets of at least four addresses", c.SubnetLen, c.Network)
	}
	first, last := span(c.Network)
	size := uint32(1) << (32 - c.SubnetLen)
	if !c.SubnetMin.IsValid() { // the first subnet is left out: its address is the network's
		c.SubnetMin = address(first + size)
	}
	if !c.SubnetMax.IsValid() {
		c.SubnetMax = address(last - size + 1)
	}
	for name, a := range map[string]netip.Addr{"SubnetMin": c.SubnetMin, "SubnetMax": c.SubnetMax} {
		if !c.Network.Contains(a) || number(a)%size != 0 {
			return c, fmt.Errorf("%s %s is not the beginning of a /%d of %s", name, a, c.SubnetLen, c.Network)
		}
	}
	if c.Backend.Type == "" {
		c.Backend.Type = "udp"
	}
	return c, nil
}

// apply overrides a network with what the nodes agree on.
func (c etcdConfig) apply(n topology.Network) (topology.Network, error) {
	if want := Backend(n.Mode); c.Backend.Type != want {
		return n, fmt.Errorf("its backend is %q, and the cluster file's mode is %s", c.Backend.Type, n.Mode)
	}
	n.PodCIDR, n.NodePrefixLength = c.Network, c.SubnetLen
	switch n.Mode {
	case topology.FlannelVXLAN:
		if c.Backend.VNI != 0 {
			n.VXLAN.VNI = c.Backend.VNI
		}
		if c.Backend.Port != 0 {
			n.VXLAN.Port = c.Backend.Port
		}
		n.VXLAN.DirectRouting = c.Backend.DirectRouting
	case topology.FlannelUDP:
		if c.Backend.Port != 0 {
			n.UDP.Port = c.Backend.Port
		}
	}
	return n, nil
}

// allows reports whether a node may have the subnet.
func (c etcdConfig) allows(p netip.Prefix) bool {
	return p.Bits() == c.SubnetLen && p == p.Masked() && c.Network.Contains(p.Addr()) &&
		c.SubnetMin.Compare(p.Addr()) <= 0 && p.Addr().Compare(c.SubnetMax) <= 0
}

// free is the lowest subnet that overlaps no taken one.
func (c etcdConfig) free(taken map[netip.Prefix]bool) (netip.Prefix, error) {
	size := uint64(1) << (32 - c.SubnetLen)
	first, last := uint64(number(c.SubnetMin)), uint64(number(c.SubnetMax))
next:
	for n := first; n <= last; n += size {
		p := netip.PrefixFrom(address(uint32(n)), c.SubnetLen).Masked()
		for t := range taken {
			if t.Overlaps(p) {
				continue next
			}
		}
		return p, nil
	}
	return netip.Prefix{}, fmt.Errorf("%s to %s, /%d each, %d taken: %w", c.SubnetMin, c.SubnetMax, c.SubnetLen, len(taken), ErrFull)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func address(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// span is the first and last address of a network.
func span(p netip.Prefix) (first, last uint32) {
	first = number(p.Masked().Addr())
	return first, first | uint32(uint64(1)<<(32-p.Bits())-1)
}
