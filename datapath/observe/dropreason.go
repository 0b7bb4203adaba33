package observe

import (
	"strings"

	"slipway/datapath/trace"
)

// drop says what a reason of the kernel's means for a packet's way.
type drop struct {
	reason trace.Reason
	table  string
	// stage at which it happened; empty: where the packet was last seen.
	stage trace.Stage
	text  string
	hint  string
}

// drops are the kernel's reasons (linux include/net/dropreason-core.h), without
// SKB_DROP_REASON_, as far as packets of a lab can meet them.
var drops = map[string]drop{
	"NO_SOCKET":           {trace.ReasonNoListener, "socket", trace.Deliver, "nothing listens on the port", "see what listens: ss -lntu"},
	"SOCKET_FILTER":       {trace.ReasonNoListener, "socket", trace.Deliver, "the socket's own filter refused it", ""},
	"SOCKET_RCVBUFF":      {trace.ReasonNoListener, "socket", trace.Deliver, "the socket's receive buffer is full", "the process does not read"},
	"SOCKET_BACKLOG":      {trace.ReasonNoListener, "socket", trace.Deliver, "the socket's backlog is full", "the process does not read"},
	"TCP_LISTEN_OVERFLOW": {trace.ReasonNoListener, "socket", trace.Deliver, "the listener's queue of connections is full", "the process does not accept"},
	"OTHERHOST":           {trace.ReasonOtherHost, "", trace.Ingress, "the frame is for another MAC", "compare the sender's neighbour entry with the device's MAC"},
	"IP_RPFILTER":         {trace.ReasonRPFilter, "sysctl", trace.Route, "the reverse path filter: the way back to the source leads elsewhere", "sysctl net.ipv4.conf.*.rp_filter"},
	"IP_LOCAL_SOURCE":     {trace.ReasonMartian, "main", trace.Route, "the source is an address of this host", "two places may own the address"},
	"IP_INVALID_SOURCE":   {trace.ReasonMartian, "main", trace.Route, "the source is no valid address", ""},
	"IP_INVALID_DEST":     {trace.ReasonMartian, "main", trace.Route, "the destination is no valid address", ""},
	"IP_LOCALNET":         {trace.ReasonMartian, "main", trace.Route, "a loopback address that comes from outside", "sysctl net.ipv4.conf.*.route_localnet"},
	"IP_INNOROUTES":       {trace.ReasonNoRoute, "main", trace.Route, "no route to the destination", "ip route get"},
	"IP_OUTNOROUTES":      {trace.ReasonNoRoute, "main", trace.Route, "no route to the destination", "ip route get"},
	"IP_INADDRERRORS":     {trace.ReasonForwardingOff, "sysctl", trace.Route, "the host does not forward", "sysctl net.ipv4.ip_forward"},
	"IP_INHDR":            {trace.ReasonTTL, "ttl", trace.Route, "its time to live ended", "a routing loop, or a small --ttl"},
	"NEIGH_FAILED":        {trace.ReasonNoNeighbor, "neighbor", "", "nobody answers ARP for the next hop", "ip neigh"},
	"NEIGH_CREATEFAIL":    {trace.ReasonNoNeighbor, "neighbor", "", "no neighbour entry could be made", "ip neigh"},
	"NEIGH_QUEUEFULL":     {trace.ReasonNoNeighbor, "neighbor", "", "too many packets wait for the next hop's MAC", "ip neigh"},
	"NEIGH_DEAD":          {trace.ReasonNoNeighbor, "neighbor", "", "the neighbour entry is gone", "ip neigh"},
	"PKT_TOO_BIG":         {trace.ReasonMTU, "link", trace.Route, "larger than the next device's MTU, and DF is set", "ip link; see the ICMP error"},
	"DEV_READY":           {trace.ReasonDeviceDown, "link", trace.Egress, "the device is not ready", "ip link"},
	"FULL_RING":           {trace.ReasonTunnelDown, "tunnel", trace.Egress, "the device's queue is full: nobody reads it", "is the tunnel's process alive?"},
	"TAP_FILTER":          {trace.ReasonDeviceDown, "link", trace.Egress, "the TAP device's filter", ""},
	"TAP_TXFILTER":        {trace.ReasonDeviceDown, "link", trace.Egress, "the TAP device's filter", ""},
	"TC_INGRESS":          {trace.ReasonLoss, "link", trace.Ingress, "a tc program on the device dropped it", "tc filter show dev DEVICE ingress"},
	"TC_EGRESS":           {trace.ReasonLoss, "link", trace.Egress, "a tc program on the device dropped it", "tc filter show dev DEVICE egress"},
	"QDISC_DROP":          {trace.ReasonDeviceDown, "link", trace.Egress, "the device's queue dropped it: it has no carrier, as a TUN that no process holds, or is full", "ip link, tc -s qdisc"},
	"QDISC_OVERLIMIT":     {trace.ReasonLoss, "link", trace.Egress, "the device's queue is full", "tc -s qdisc"},
	"CPU_BACKLOG":         {trace.ReasonLoss, "link", "", "the CPU's queue of packets is full", "/proc/net/softnet_stat"},
	"VXLAN_INVALID_HDR":   {trace.ReasonNoVTEP, "tunnel", trace.Decap, "not a valid VXLAN header", ""},
	"VXLAN_VNI_NOT_FOUND": {trace.ReasonNoVTEP, "tunnel", trace.Decap, "no VXLAN device has this VNI", "ip -d link show type vxlan"},
	"NO_TX_TARGET":        {trace.ReasonNoFDB, "fdb", "", "no forwarding entry says where to", "bridge fdb"},
	"TUNNEL_TXINFO":       {trace.ReasonNoFDB, "fdb", "", "the tunnel does not know where to", ""},
	"MAC_INVALID_SOURCE":  {trace.ReasonOtherHost, "fdb", "", "the source MAC is invalid, or the device's own", "two devices may have the same MAC"},
	"LOCAL_MAC":           {trace.ReasonOtherHost, "fdb", "", "the source MAC is the device's own", "two devices may have the same MAC"},

	"BRIDGE_INGRESS_STP_STATE": {trace.ReasonPortDown, "bridge", trace.BridgeStage, "the bridge port does not forward", "bridge link"},

	"IP_NOPROTO":      {trace.ReasonTunnelDown, "tunnel", trace.Decap, "nothing handles the protocol", ""},
	"UNHANDLED_PROTO": {trace.ReasonTunnelDown, "tunnel", trace.Ingress, "nothing handles the packet's type", ""},
	"SKB_CSUM":        {trace.ReasonLoss, "link", "", "the checksum is wrong", "checksum offload on a device that cannot"},
	"TCP_CSUM":        {trace.ReasonLoss, "link", trace.Deliver, "the TCP checksum is wrong", "checksum offload on a device that cannot"},
	"UDP_CSUM":        {trace.ReasonLoss, "link", trace.Deliver, "the UDP checksum is wrong", "checksum offload on a device that cannot"},
	"ICMP_CSUM":       {trace.ReasonLoss, "link", trace.Deliver, "the ICMP checksum is wrong", ""},
	"IP_CSUM":         {trace.ReasonLoss, "link", trace.Ingress, "the IP header's checksum is wrong", ""},
}

// byLocation explains what the kernel gives no reason for, by the function that
// dropped the packet (prefixes: compilers add suffixes).
var byLocation = []struct {
	function string
	drop     drop
}{
	{"ip_error", drop{trace.ReasonBlackhole, "main", trace.Route, "a blackhole route, or one that rejects while the kernel limits its errors", "ip route get"}},
	{"arp_error_report", drops["NEIGH_FAILED"]},
	{"veth_xmit", drop{trace.ReasonDeviceDown, "link", trace.Egress, "the veth's other end is down", "ip link"}},
	{"__dev_forward_skb", drop{trace.ReasonDeviceDown, "link", trace.Egress, "the veth's other end is down", "ip link"}},
	{"____dev_forward_skb", drop{trace.ReasonDeviceDown, "link", trace.Egress, "the veth's other end is down", "ip link"}},
	{"noop_enqueue", drop{trace.ReasonDeviceDown, "link", trace.Egress, "the device is down", "ip link"}},
	{"tun_get_user", drop{trace.ReasonDeviceDown, "link", trace.Ingress, "the tunnel's process wrote it to a TUN device that is down", "ip link"}},
	{"tun_net_xmit", drop{trace.ReasonTunnelDown, "tunnel", trace.Egress, "nobody reads the TUN device", "is the tunnel's process alive?"}},
	{"br_handle_frame", drops["BRIDGE_INGRESS_STP_STATE"]},
	{"br_forward", drop{trace.ReasonHairpinOff, "bridge", trace.BridgeStage, "the bridge may not send it out of that port", "bridge -d link"}},
	{"__br_forward", drop{trace.ReasonPortDown, "bridge", trace.BridgeStage, "the bridge may not send it out of that port", "bridge -d link"}},
	{"br_flood", drop{trace.ReasonNoFDB, "bridge", trace.BridgeStage, "the bridge knows no port for it", "bridge fdb"}},
	{"vxlan_xmit", drops["NO_TX_TARGET"]},
	{"udp_", drops["NO_SOCKET"]},
	{"tcp_v4_rcv", drops["NO_SOCKET"]},
}

// taken are reasons of packets that were received and are done with.
var taken = map[string]bool{"SKB_CONSUMED": true, "TCP_RESET": true, "TCP_OLD_ACK": true}

// explain finds what a loss means. The zero drop's reason is none: the kernel
// does not say.
func explain(e *sighting, tunnel bool) drop {
	d, ok := drops[e.Reason]
	if !ok || (e.Reason == "DEV_READY" && strings.HasPrefix(e.Location, "tun_")) { // linux drivers/net/tun.c
		for _, l := range byLocation {
			if strings.HasPrefix(e.Location, l.function) {
				d = l.drop
				break
			}
		}
	}
	if tunnel && d.reason == trace.ReasonNoListener {
		return drop{trace.ReasonNoVTEP, "tunnel", trace.Decap, "nothing takes packets of the tunnel at this port", "compare the tunnels' ports; is the tunnel up?"}
	}
	return d
}

// icmpDrop says what an error that this host sends means; inHook is whether a
// rule sent it, out whether the packet was on its way out already.
func icmpDrop(kind, code uint8, inHook, out bool) drop {
	switch {
	case inHook:
		return drop{trace.ReasonRuleReject, "filter", "", "a rule rejects it", ""}
	case kind == 11:
		return drops["IP_INHDR"]
	case kind != 3:
		return drop{}
	}
	switch code {
	case 0:
		return drops["IP_INNOROUTES"]
	case 1:
		if out {
			return drops["NEIGH_FAILED"]
		}
		return drop{trace.ReasonUnreachable, "main", trace.Route, "an unreachable route", "ip route get"}
	case 2, 3:
		return drops["NO_SOCKET"]
	case 4:
		return drops["PKT_TOO_BIG"]
	case 9, 10, 13:
		return drop{trace.ReasonProhibit, "main", trace.Route, "a prohibit route", "ip route get"}
	}
	return drop{}
}
