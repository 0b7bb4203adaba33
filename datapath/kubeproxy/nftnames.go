package kubeproxy

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strconv"

	"slipway/datapath"
)

// NFTTable is the name of kube-proxy's nftables table, of family ip (upstream
// pkg/proxy/nftables/proxier.go, kubeProxyTable).
const NFTTable = "kube-proxy"

// Names in the table (upstream pkg/proxy/nftables/proxier.go).
const (
	nftFilterPrerouting = "filter-prerouting-pre-dnat"
	nftFilterOutputPre  = "filter-output-pre-dnat"
	nftFilterInput      = "filter-input"
	nftFilterForward    = "filter-forward"
	nftFilterOutput     = "filter-output"
	nftNATPrerouting    = "nat-prerouting"
	nftNATOutput        = "nat-output"
	nftNATPostrouting   = "nat-postrouting"

	nftServices          = "services"
	nftServiceIPs        = "service-ips"
	nftServiceNodePorts  = "service-nodeports"
	nftNodePortIPs       = "nodeport-ips"
	nftClusterIPs        = "cluster-ips"
	nftEndpointsCheck    = "service-endpoints-check"
	nftNodePortsCheck    = "nodeport-endpoints-check"
	nftNoEndpoints       = "no-endpoint-services"
	nftNoEndpointPorts   = "no-endpoint-nodeports"
	nftReject            = "reject-chain"
	nftClusterIPsCheck   = "cluster-ips-check"
	nftFirewallIPs       = "firewall-ips"
	nftFirewallCheck     = "firewall-check"
	nftMasquerading      = "masquerading"
	nftHairpin           = "hairpin-connections"
	nftPrefixCluster     = "service-"
	nftPrefixLocal       = "local-"
	nftPrefixExternal    = "external-"
	nftPrefixEndpoint    = "endpoint-"
	nftPrefixAffinity    = "affinity-"
	nftPrefixFirewall    = "firewall-"
	nftAddr              = "ipv4_addr"
	nftAddrPort          = "ipv4_addr . inet_proto . inet_service"
	nftAnyPort           = "inet_proto . inet_service"
	nftVerdict           = "verdict"
	nftNoLocalhost       = "ip daddr != 127.0.0.0/8"
	nftByAddrPort        = "ip daddr . meta l4proto . th dport vmap @"
	nftByPort            = "meta l4proto . th dport vmap @"
	nftMasqueradeOutcome = "masquerade fully-random"
)

// nftNameMax is the longest name of a chain or set without its prefix:
// knftables.NameLengthMax less upstream's chainNamePrefixLengthMax.
const nftNameMax = 256 - 16

// nftName puts a hash in front of a name, and cuts what is too long (upstream
// hashAndTruncate).
func nftName(name string) string {
	sum := sha256.Sum256([]byte(name))
	name = base32.StdEncoding.EncodeToString(sum[:5]) + "-" + name
	if len(name) > nftNameMax {
		name = name[:nftNameMax-3] + "..."
	}
	return name
}

// nftCommentMax is the longest comment that nft takes (libnftnl
// include/libnftnl/udata.h, NFTNL_UDATA_COMMENT_MAXLEN).
const nftCommentMax = 128

// nftComment cuts what is too long for a comment. Upstream does not, and can then
// write no rules at all.
func nftComment(text string) string {
	if len(text) > nftCommentMax {
		text = text[:nftCommentMax-3] + "..."
	}
	return text
}

// nftBase is what the chains of a service port are named after (upstream
// servicePortChainNameBase).
func (p *port) nftBase() string {
	return fmt.Sprintf("%s/%s/%s/%s", p.svc.Namespace, p.svc.Name, p.protocol, p.portName)
}

// nftEndpoint is the same of one of its endpoints (upstream
// servicePortEndpointChainNameBase).
func (p *port) nftEndpoint(e endpoint) string {
	return nftName(p.nftBase() + "__" + e.Address.String() + "/" + strconv.Itoa(e.Port))
}

// nftBaseChains are the chains that hooks call, with their priorities: those of
// dstnat, filter and srcnat, and one of dstnat less 10 (upstream
// nftablesBaseChains; values in linux include/uapi/linux/netfilter_ipv4.h).
var nftBaseChains = []datapath.NFChain{
	{Name: nftFilterPrerouting, Type: "filter", Hook: "prerouting", Priority: -110},
	{Name: nftFilterOutputPre, Type: "filter", Hook: "output", Priority: -110},
	{Name: nftFilterInput, Type: "filter", Hook: "input"},
	{Name: nftFilterForward, Type: "filter", Hook: "forward"},
	{Name: nftFilterOutput, Type: "filter", Hook: "output"},
	{Name: nftNATPrerouting, Type: "nat", Hook: "prerouting", Priority: -100},
	{Name: nftNATOutput, Type: "nat", Hook: "output", Priority: -100},
	{Name: nftNATPostrouting, Type: "nat", Hook: "postrouting", Priority: 100},
}

// nftJumps are the rules of those, in order (upstream nftablesJumpChains).
var nftJumps = []struct{ from, to, when string }{
	{nftFilterInput, nftNodePortsCheck, "ct state new "},
	{nftFilterInput, nftEndpointsCheck, "ct state new "},
	{nftFilterForward, nftEndpointsCheck, "ct state new "},
	{nftFilterOutput, nftEndpointsCheck, "ct state new "},
	{nftFilterPrerouting, nftFirewallCheck, "ct state new "},
	{nftFilterOutputPre, nftFirewallCheck, "ct state new "},
	{nftNATOutput, nftServices, ""},
	{nftNATPrerouting, nftServices, ""},
	{nftNATPostrouting, nftMasquerading, ""},
	{nftFilterForward, nftClusterIPsCheck, "ct state new "},
	{nftFilterOutput, nftClusterIPsCheck, "ct state new "},
}
