package kubeproxy

import (
	"net/netip"

	"slipway/datapath"
	"slipway/topology"
)

// Options are kube-proxy's configuration and what it finds out about its node.
// The zero value is a kube-proxy without detection of local traffic and with
// mark bit 0; [DefaultOptions] are kubeadm's.
type Options struct {
	// Mode is the backend; empty is iptables.
	Mode topology.ProxyMode
	// ClusterCIDR is the pods' range, by which kube-proxy tells local traffic
	// (detectLocalMode ClusterCIDR). The zero prefix is no detection at all.
	ClusterCIDR netip.Prefix
	// MasqueradeAll masquerades everything that goes to a cluster IP.
	MasqueradeAll bool
	// MasqueradeBit is the bit of the packet mark that asks for masquerade.
	MasqueradeBit int
	// RandomFully: the node's iptables has MASQUERADE --random-fully (1.6.2).
	RandomFully bool
	// LocalhostNodePorts lets node ports be reached at 127.0.0.1, which needs
	// the values of [Sysctls].
	LocalhostNodePorts bool
	// TCPBeLiberal: the node has nf_conntrack_tcp_be_liberal set, so that
	// kube-proxy does not drop INVALID packets.
	TCPBeLiberal bool
	// ServiceCIDR is the range of cluster IPs, which the nftables mode keeps from
	// leaving the node untranslated. The zero prefix: it does not.
	ServiceCIDR netip.Prefix
	// NodePortsEverywhere lets node ports be reached at all of the node's
	// addresses in the nftables mode (nodePortAddresses 0.0.0.0/0), not only at
	// its primary one (upstream's default for that mode, "primary").
	NodePortsEverywhere bool
	// NFAcct: the node's kernel has nfacct, and kube-proxy's two counters exist.
	NFAcct bool
}

// defaultMasqueradeBit is upstream's iptables.masqueradeBit
// (pkg/proxy/apis/config/v1alpha1/defaults.go).
const defaultMasqueradeBit = 14

// DefaultOptions are what kubeadm configures for the snapshot's cluster, on a
// node with a current iptables and a kernel without nfacct.
func DefaultOptions(s topology.Snapshot) Options {
	return Options{
		Mode:               s.Proxy.Mode,
		ClusterCIDR:        s.Network.PodCIDR,
		ServiceCIDR:        s.Network.ServiceCIDR.Masked(),
		MasqueradeBit:      defaultMasqueradeBit,
		RandomFully:        true,
		LocalhostNodePorts: true,
	}
}

// routeLocalnet lets packets to 127.0.0.0/8 be routed.
const routeLocalnet = "net/ipv4/conf/all/route_localnet"

// Sysctls are the values that kube-proxy sets for its rules to work. The
// nftables mode has no localhost node ports and sets none; there it is the
// kernel's default, which undoes what the iptables mode has left.
func Sysctls(o Options) []datapath.Sysctl {
	switch {
	case o.Mode == topology.ProxyNFTables:
		return []datapath.Sysctl{{Key: routeLocalnet, Value: "0"}}
	case !o.LocalhostNodePorts:
		return nil
	default:
		return []datapath.Sysctl{{Key: routeLocalnet, Value: "1"}}
	}
}
