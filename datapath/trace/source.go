package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// Scopes of routes and addresses: the larger, the nearer
// (linux include/uapi/linux/rtnetlink.h, RT_SCOPE_…).
const (
	scopeUniverse = 0
	scopeLink     = 253
	scopeHost     = 254
)

func scopeOf(r *datapath.FIBRoute) int {
	switch r.Scope {
	case "link":
		return scopeLink
	case "host":
		return scopeHost
	}
	return scopeUniverse
}

// addressScope is the scope that `ip address add` gives an address.
func addressScope(a netip.Addr) int {
	if a.IsLoopback() {
		return scopeHost
	}
	return scopeUniverse
}

// selectAddress is the source for packets that leave by a device towards dst
// (net/ipv4/devinet.c, inet_select_addr): the device's first address in dst's
// subnet, else its first, else any other device's.
func selectAddress(pl *place, dev string, dst netip.Addr, scope int) (netip.Addr, bool) {
	var first netip.Addr
	if d := pl.devices[dev]; d != nil {
		for _, p := range d.Addresses {
			if addressScope(p.Addr()) > scope {
				continue
			}
			if !dst.IsValid() || p.Masked().Contains(dst) {
				return p.Addr(), true
			}
			if !first.IsValid() {
				first = p.Addr()
			}
		}
	}
	if first.IsValid() {
		return first, true
	}
	for i := range pl.st.Devices {
		for _, p := range pl.st.Devices[i].Addresses {
			if s := addressScope(p.Addr()); s != scopeLink && s <= scope {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// martian refuses addresses that no packet from outside may have
// (net/ipv4/route.c, ip_route_input_slow).
func martian(pl *place, p datapath.Packet, dev *datapath.Device) *fault {
	routeLocal := pl.st.All.RouteLocal != 0 || dev.Conf.RouteLocal != 0
	bad := ""
	switch {
	case p.Src.IsMulticast() || p.Src.IsUnspecified() || p.Src == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		bad = "source " + p.Src.String()
	case p.Dst.IsUnspecified():
		bad = "destination " + p.Dst.String()
	case p.Src.IsLoopback() && !routeLocal:
		bad = "source " + p.Src.String()
	case p.Dst.IsLoopback() && !routeLocal:
		bad = "destination " + p.Dst.String()
	default:
		return nil
	}
	return &fault{
		reason: ReasonMartian, table: "local",
		text: fmt.Sprintf("a packet that came by %s cannot have %s: it is a martian", dev.Name, bad),
	}
}

// validateSource decides whether a packet may come from its source by the
// device (net/ipv4/fib_frontend.c, fib_validate_source). out is the device that
// it would leave by.
func (w *walk) validateSource(pl *place, p datapath.Packet, dev *datapath.Device, out string) *fault {
	rpf := max(pl.st.All.RPFilter, dev.Conf.RPFilter)
	acceptLocal := pl.st.All.AcceptLocal != 0 || dev.Conf.AcceptLocal != 0
	if rpf == 0 && !(dev.Name == out && sendsRedirects(pl, dev)) {
		if acceptLocal {
			return nil
		}
		if !pl.fib.foreign && !pl.fib.custom {
			if _, own := pl.st.LocalAddress(p.Src); own {
				return localSource(p, dev)
			}
			return nil
		}
	}
	return w.reversePath(pl, p, dev, out, rpf, acceptLocal)
}

// sendsRedirects reports IN_DEV_TX_REDIRECTS, which is on by default.
func sendsRedirects(pl *place, dev *datapath.Device) bool {
	return pl.sysctl("net/ipv4/conf/all/send_redirects", "1") != "0" || pl.sysctl("net/ipv4/conf/"+dev.Name+"/send_redirects", "1") != "0"
}

// reversePath asks for the way back to the source (net/ipv4/fib_frontend.c,
// __fib_validate_source), as if the packet's answer came by out.
func (w *walk) reversePath(pl *place, p datapath.Packet, dev *datapath.Device, out string, rpf int, acceptLocal bool) *fault {
	q := flow{dst: p.Src, src: p.Dst, iif: out}
	if pl.st.All.SrcValidMark != 0 || dev.Conf.SrcValidMark != 0 {
		q.mark = p.Mark
	}
	res, flt := pl.fib.lookup(q)
	switch {
	case flt != nil && flt.unknown:
		return flt
	case flt != nil:
		return lastResort(pl, p, dev, rpf, flt.text)
	case res.kind() == "local" && !acceptLocal:
		return localSource(p, dev)
	case res.kind() != "unicast" && res.kind() != "local":
		return &fault{reason: ReasonMartian, table: tableName(res.route.Table), rule: res.text(), text: fmt.Sprintf("the source %s is a %s address here", p.Src, res.kind())}
	}
	for _, l := range res.legs {
		if l.Dev == dev.Name || res.kind() == "local" && dev.Name == loopbackIIf {
			return nil
		}
	}
	back := fmt.Sprintf("the way back to %s is %q, not %s", p.Src, res.text(), dev.Name)
	if len(dev.Addresses) == 0 {
		return lastResort(pl, p, dev, rpf, back)
	}
	if rpf == 1 {
		return rpFault(pl, p, dev, rpf, back)
	}
	return nil // loose, or off: any way back will do
}

func lastResort(pl *place, p datapath.Packet, dev *datapath.Device, rpf int, why string) *fault {
	if rpf == 0 {
		return nil
	}
	return rpFault(pl, p, dev, rpf, why)
}

func localSource(p datapath.Packet, dev *datapath.Device) *fault {
	return &fault{
		reason: ReasonMartian, table: "local",
		text: fmt.Sprintf("a packet that came by %s has this machine's own address %s as its source: it is a martian", dev.Name, p.Src),
		hint: "two places own the address, or a packet to oneself through a service was not masqueraded",
	}
}

func rpFault(pl *place, p datapath.Packet, dev *datapath.Device, rpf int, why string) *fault {
	key, mode := "net.ipv4.conf."+dev.Name+".rp_filter", "strict"
	if pl.st.All.RPFilter >= dev.Conf.RPFilter {
		key = "net.ipv4.conf.all.rp_filter"
	}
	if rpf == 2 {
		mode = "loose"
	}
	return &fault{
		reason: ReasonRPFilter, table: "sysctl", rule: fmt.Sprintf("%s = %d", key, rpf),
		text: fmt.Sprintf("the %s reverse path filter of %s refuses source %s: %s", mode, dev.Name, p.Src, why),
		hint: fmt.Sprintf("sysctl -w %s=0 on %s, or mend the way back", key, pl.label()),
	}
}
