package cni

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// NetworkName is the CNI network that in-process attachments belong to.
const NetworkName = "slipway"

// maxContainerID bounds what a pod's name may add to a link alias, which holds
// 255 bytes (IFALIASZ in linux include/uapi/linux/if.h), and to file names.
const maxContainerID = 128

// ContainerID is the CNI container ID of a pod ("namespace/name"): readable,
// and unique because Kubernetes names hold no underscore. Names that would make
// it too long are hashed.
func ContainerID(pod string) string {
	id := strings.ReplaceAll(pod, "/", "_")
	if len(id) <= maxContainerID {
		return id
	}
	sum := sha256.Sum256([]byte(pod))
	return hex.EncodeToString(sum[:])
}

// alias marks the host end of an attachment, so that GC can tell which
// attachment of which network a link belongs to.
func alias(network, containerID, ifName string) string {
	return network + ":" + containerID + ":" + ifName
}

// want is a PodPort in the kernel's terms.
type want struct {
	datapath.PodPort
	hostMAC, podMAC, gatewayMAC net.HardwareAddr
	alias                       string
}

func wantOf(network string, p datapath.PodPort) (want, error) {
	w := want{PodPort: p, alias: alias(network, ContainerID(p.Pod), p.ContainerIf)}
	var errs []error
	var err error
	if w.hostMAC, err = parseMAC(p.HostMAC); err != nil {
		errs = append(errs, err)
	}
	if w.podMAC, err = parseMAC(p.ContainerMAC); err != nil {
		errs = append(errs, err)
	}
	if w.gatewayMAC, err = parseMAC(p.GatewayMAC); err != nil {
		errs = append(errs, err)
	}
	if !p.Address.IsValid() || !p.Address.Addr().Is4() {
		errs = append(errs, fmt.Errorf("address %q is not an IPv4 prefix", p.Address))
	}
	if p.Gateway.IsValid() && !p.Gateway.Is4() {
		errs = append(errs, fmt.Errorf("gateway %q is not an IPv4 address", p.Gateway))
	}
	for _, name := range []string{p.HostIf, p.ContainerIf} {
		if name == "" || len(name) >= unix.IFNAMSIZ {
			errs = append(errs, fmt.Errorf("interface name %q: must have 1 to %d characters", name, unix.IFNAMSIZ-1))
		}
	}
	return w, errors.Join(errs...)
}

func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(s)
	if err == nil && len(mac) != 6 {
		err = errors.New("not an Ethernet address")
	}
	if err != nil {
		return nil, fmt.Errorf("MAC %q: %w", s, err)
	}
	return mac, nil
}

func (w want) routed() bool { return w.Bridge == "" }

// podRoutes are the routes that the pod needs beyond the connected one that the
// kernel adds with the address, in the order in which they must be added.
func (w want) podRoutes(link int) []netlink.Route {
	if !w.Gateway.IsValid() {
		return nil
	}
	def := netlink.Route{
		LinkIndex: link,
		Dst:       ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		Gw:        w.Gateway.AsSlice(),
		Protocol:  unix.RTPROT_BOOT,
	}
	if !w.routed() {
		return []netlink.Route{def}
	}
	// The gateway is in no subnet of the pod's: calico's plugin adds the link
	// route first (projectcalico/calico cni-plugin/pkg/dataplane/linux).
	return []netlink.Route{linkRoute(w.Gateway, link), def}
}

// hostRoute leads to a routed pod.
func (w want) hostRoute(link int) netlink.Route { return linkRoute(w.Address.Addr(), link) }

func linkRoute(to netip.Addr, link int) netlink.Route {
	return netlink.Route{
		LinkIndex: link,
		Dst:       ipNet(netip.PrefixFrom(to, to.BitLen())),
		Scope:     netlink.SCOPE_LINK,
		Protocol:  unix.RTPROT_BOOT,
	}
}

func sameRoute(a, b netlink.Route) bool {
	return a.LinkIndex == b.LinkIndex && a.Scope == b.Scope && a.Gw.Equal(b.Gw) && sameNet(a.Dst, b.Dst)
}

// sameNet compares destinations; nil stands for the default route.
func sameNet(a, b *net.IPNet) bool { return ipNetString(a) == ipNetString(b) }

func ipNetString(n *net.IPNet) string {
	if n == nil {
		return "0.0.0.0/0"
	}
	return n.String()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sameMAC(want, have net.HardwareAddr) bool { return want == nil || bytes.Equal(want, have) }

// devconf is one per-device IPv4 setting: an IPV4_DEVCONF_… of linux
// include/uapi/linux/ip.h, its name below /proc/sys, and its value.
type devconf struct {
	id    int
	name  string
	value uint32
}

// routedDevconf is what calico sets on the host end of a pod
// (projectcalico/calico cni-plugin/pkg/dataplane/linux configureSysctls and
// felix/dataplane/linux/endpoint_mgr.go configureInterface): forward from it,
// answer ARP by proxy, and accept only the pod's own source address.
var routedDevconf = []devconf{{1, "forwarding", 1}, {3, "proxy_arp", 1}, {8, "rp_filter", 1}}

// proxyDelay is calico's neigh/DEV/proxy_delay: answer at once, instead of after
// a random delay of up to 0.8 s, which is the kernel's default.
const proxyDelay = 0
