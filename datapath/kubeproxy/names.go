package kubeproxy

import (
	"crypto/sha256"
	"encoding/base32"
)

// kube-proxy's top-level chains (upstream pkg/proxy/iptables/proxier.go).
const (
	chainServices    = "KUBE-SERVICES"
	chainExternal    = "KUBE-EXTERNAL-SERVICES"
	chainNodePorts   = "KUBE-NODEPORTS"
	chainPostrouting = "KUBE-POSTROUTING"
	chainMarkMasq    = "KUBE-MARK-MASQ"
	chainForward     = "KUBE-FORWARD"
	chainLBFirewall  = "KUBE-PROXY-FIREWALL"
	chainCanary      = "KUBE-PROXY-CANARY"
	chainFirewall    = "KUBE-FIREWALL" // kubelet's; kube-proxy keeps a copy
)

// Prefixes of the chains that belong to one service port or endpoint.
const (
	prefixCluster  = "KUBE-SVC-" // endpoints of policy Cluster
	prefixLocal    = "KUBE-SVL-" // endpoints of policy Local
	prefixSource   = "KUBE-FW-"  // loadBalancerSourceRanges
	prefixExternal = "KUBE-EXT-" // traffic from outside
	prefixEndpoint = "KUBE-SEP-"
)

// nfacct counters (upstream pkg/proxy/metrics/metrics.go).
const (
	counterInvalid   = "ct_state_invalid_dropped_pkts"
	counterLocalhost = "localhost_nps_accepted_pkts"
)

// chainHash is the 16 characters that name a chain: base32 of SHA-256 of
// "namespace/name:port" + protocol in lower case (+ "address:port" for an
// endpoint), cut so that the name stays below iptables' 28 characters
// (upstream portProtoHash, servicePortEndpointChainName).
func chainHash(portName, protocol, endpoint string) string {
	sum := sha256.Sum256([]byte(portName + protocol + endpoint))
	var out [16]byte
	base32.StdEncoding.Encode(out[:], sum[:10]) // 10 bytes are 16 characters
	return string(out[:])
}
