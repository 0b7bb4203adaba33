// Package cni plugs pods into a node's network. The same code runs in two ways:
// in process, where the lab calls [Node.Attach] for each pod, and as a CNI
// plugin ([PluginMain]) that implements ADD, DEL, CHECK, GC and STATUS of the
// CNI specification 1.1, which [Runtime] starts through libcni as a container
// runtime would. Both leave the same kernel state.
//
// A pod is plugged in one of two ways. Behind a bridge (flannel) the host end
// of its veth is a port of cni0 and the bridge's own address is the gateway.
// Routed (calico) the host end stands alone: the pod has a /32, its default
// route points at 169.254.1.1, which nobody owns, and the node answers ARP for
// it by proxy.
//
// Proxy ARP has a condition that is easily missed: the kernel answers for an
// address only if it would itself route that address, and out of another device
// (arp_process and arp_fwd_proxy in linux net/ipv4/arp.c). On ordinary machines
// the default route sees to that. A node without one needs a route that covers
// the gateway; the smallest is "169.254.1.1 dev eth0 scope link", and the link
// local route "169.254.0.0/16 dev eth0" that several distributions install by
// themselves does as well. Attach, Check and STATUS say so when it is missing
// ([ErrGatewayUncovered]) instead of leaving a pod that cannot talk.
package cni
