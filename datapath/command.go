package datapath

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"slipway/topology"
)

// protocolNames are the names that `ip route` prints for rtm_protocol values
// (iproute2 etc/iproute2/rt_protos); boot is what it leaves out.
var protocolNames = map[RouteProtocol]string{
	ProtoKernel: "kernel", ProtoBoot: "boot", ProtoStatic: "static", ProtoBird: "bird",
}

// String is the protocol's name, or its number when it has none here.
func (p RouteProtocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// String is the route as `ip route` takes it, which is nearly how it prints it.
func (r Route) String() string {
	var w words
	w.addIf(r.Type != Unicast, string(r.Type))
	w.add(destination(r.Dst))
	w.addIf(r.Via.IsValid(), "via", r.Via.String())
	w.addIf(r.Dev != "", "dev", r.Dev)
	w.addIf(r.Protocol != 0 && r.Protocol != ProtoBoot, "proto", r.Protocol.String())
	w.addIf(r.LinkScope, "scope", "link")
	// Else `ip route add` would make a route without a gateway scope link.
	w.addIf(!r.LinkScope && r.Type == Unicast && r.Dev != "" && !r.Via.IsValid(), "scope", "global")
	w.addIf(r.Src.IsValid(), "src", r.Src.String())
	w.addIf(r.MTU != 0, "mtu", strconv.Itoa(r.MTU))
	w.addIf(r.Onlink, "onlink")
	return w.String()
}

// destination is a prefix as `ip route` prints it.
func destination(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "default"
	case p.IsSingleIP():
		return p.Addr().String()
	default:
		return p.String()
	}
}

// String is the entry as `ip neighbor` takes it.
func (n Neighbor) String() string {
	return fmt.Sprintf("%s lladdr %s dev %s nud permanent", n.Address, n.MAC, n.Dev)
}

// String is the entry as `bridge fdb` takes it.
func (f FDBEntry) String() string {
	return fmt.Sprintf("%s dev %s dst %s self permanent", f.MAC, f.Dev, f.Dst)
}

// String is the value as `sysctl -w` takes it.
func (s Sysctl) String() string {
	return strings.ReplaceAll(s.Key, "/", ".") + "=" + s.Value
}

// AddCommand is the command that makes the link, without its addresses.
func (l Link) AddCommand() string {
	if l.Kind == TUN {
		var w words
		w.add("ip", "tuntap", "add", "dev", l.Name, "mode", "tun")
		w.addIf(l.VNetHdr, "vnet_hdr")
		return w.String()
	}
	var w words
	w.add("ip", "link", "add", l.Name)
	w.addIf(l.MAC != "", "address", l.MAC)
	w.addIf(l.MTU != 0, "mtu", strconv.Itoa(l.MTU))
	w.add("type", string(l.Kind))
	if v := l.VXLAN; v != nil {
		w.add(v.String())
	}
	return w.String()
}

// String is the attributes as `ip link add … type vxlan` takes them.
func (v VXLANAttrs) String() string {
	var w words
	if v.External {
		w.add("gpe", "external", "dstport", strconv.Itoa(v.Port))
		return w.String()
	}
	w.add("id", strconv.Itoa(v.VNI))
	w.addIf(v.Local.IsValid(), "local", v.Local.String())
	w.addIf(v.Device != "", "dev", v.Device)
	w.add("dstport", strconv.Itoa(v.Port))
	w.addIf(!v.Learning, "nolearning")
	return w.String()
}

// Commands are the commands with which an operator would give an empty node
// this configuration, in an order that works. The tunnel daemon and the BGP
// speaker, which are processes and not commands, are only in [NodeConfig.String].
func (c NodeConfig) Commands() []string {
	var out []string
	for _, s := range c.Sysctls {
		out = append(out, "sysctl -w "+s.String())
	}
	for _, l := range c.Links {
		out = append(out, c.linkCommands(l)...)
	}
	for _, n := range c.Neighbors {
		out = append(out, "ip neighbor replace "+n.String())
	}
	for _, f := range c.FDB {
		out = append(out, "bridge fdb replace "+f.String())
	}
	for _, r := range c.Routes {
		out = append(out, "ip route replace "+r.String())
	}
	for _, p := range c.PodPorts {
		out = append(out, p.Commands()...)
	}
	for _, set := range c.RuleSets {
		out = append(out, set.Commands()...)
	}
	return out
}

func (c NodeConfig) linkCommands(l Link) []string {
	if l.Kind == IPIP && c.IPIP != nil && c.IPIP.OnTUN() {
		l.Kind = TUN
	}
	out := []string{l.AddCommand()}
	if l.Kind == TUN && l.MTU != 0 {
		out = append(out, fmt.Sprintf("ip link set %s mtu %d", l.Name, l.MTU))
	}
	for _, a := range l.Addresses {
		out = append(out, fmt.Sprintf("ip address add %s dev %s", a, l.Name))
	}
	return append(out, fmt.Sprintf("ip link set %s up", l.Name))
}

// OnTUN reports whether the tunnel's device is a TUN, because something other
// than the kernel's ipip module encapsulates.
func (t IPIPTunnel) OnTUN() bool {
	return t.Implementation == topology.IPIPeBPF || t.Implementation == topology.IPIPUserspace
}

// Commands are the commands that plug the pod in. A pod without a namespace
// yet is shown with its own name in the namespace's place.
func (p PodPort) Commands() []string {
	ns := p.NetNS
	if ns == "" {
		ns = strings.ReplaceAll(p.Pod, "/", "-")
	}
	host := fmt.Sprintf("ip link add %s mtu %d type veth peer name %s mtu %d", p.HostIf, p.MTU, p.ContainerIf, p.MTU)
	if p.HostMAC != "" {
		host = fmt.Sprintf("ip link add %s address %s mtu %d type veth peer name %s mtu %d", p.HostIf, p.HostMAC, p.MTU, p.ContainerIf, p.MTU)
	}
	if p.ContainerMAC != "" {
		host += " address " + p.ContainerMAC
	}
	out := []string{host + " netns " + ns}
	if p.Bridge != "" {
		out = append(out, fmt.Sprintf("ip link set %s master %s up", p.HostIf, p.Bridge))
		if p.Hairpin {
			out = append(out, fmt.Sprintf("bridge link set dev %s hairpin on", p.HostIf))
		}
	} else {
		out = append(out,
			fmt.Sprintf("sysctl -w net.ipv4.conf.%s.proxy_arp=1", p.HostIf),
			fmt.Sprintf("ip link set %s up", p.HostIf),
			fmt.Sprintf("ip route replace %s dev %s scope link", p.Address.Addr(), p.HostIf))
	}
	return append(out, p.containerCommands(ns)...)
}

func (p PodPort) containerCommands(ns string) []string {
	out := []string{
		fmt.Sprintf("ip -n %s address add %s dev %s", ns, p.Address, p.ContainerIf),
		fmt.Sprintf("ip -n %s link set %s up", ns, p.ContainerIf),
	}
	if !p.Address.Masked().Contains(p.Gateway) {
		out = append(out, fmt.Sprintf("ip -n %s route add %s dev %s scope link", ns, p.Gateway, p.ContainerIf))
	}
	return append(out, fmt.Sprintf("ip -n %s route add default via %s dev %s", ns, p.Gateway, p.ContainerIf))
}

// Commands are the iptables or nft commands that load the set into tables that
// have none of it.
func (s RuleSet) Commands() []string {
	var out []string
	for _, t := range s.Tables {
		run := "iptables -t " + t.Name + " "
		for _, c := range t.Chains {
			out = append(out, run+"-N "+c)
		}
		for _, r := range t.Rules {
			out = append(out, run+r)
		}
		at := 0
		for _, j := range t.Jumps {
			if !j.Prepend {
				out = append(out, run+j.Rule)
				continue
			}
			at++
			out = append(out, run+insertAt(j.Rule, at))
		}
	}
	if s.NFT != nil {
		out = append(out, s.NFT.Commands()...)
	}
	return out
}

// insertAt turns "-A CHAIN rule" into "-I CHAIN n rule".
func insertAt(rule string, n int) string {
	chain, rest, _ := strings.Cut(strings.TrimPrefix(rule, "-A "), " ")
	return fmt.Sprintf("-I %s %d %s", chain, n, rest)
}

// words builds a command line.
type words []string

func (w *words) add(s ...string) { *w = append(*w, s...) }

func (w *words) addIf(cond bool, s ...string) {
	if cond {
		w.add(s...)
	}
}

func (w words) String() string { return strings.Join(w, " ") }
