package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// route is a routing decision (struct rtable).
type route struct {
	fibResult
	dev  string     // that the packet leaves by; "lo" for its own addresses
	gw   netip.Addr // next hop on the link; the destination itself if connected
	src  netip.Addr // that a packet without source gets
	here bool       // the destination is the namespace itself
	mtu  int        // of the route, else of the device
}

// describe is the route as hops show it.
func (r route) describe() string {
	if r.route == nil {
		return ""
	}
	s := r.text() + " (table " + tableName(r.route.Table)
	if len(r.legs) > 0 && len(r.route.NextHops) > 0 {
		s += ", next hop " + r.gw.String() + " dev " + r.dev
	}
	return s + ")"
}

// routeOutput finds the way for a packet that the namespace sends itself
// (net/ipv4/route.c, ip_route_output_key_hash_rcu).
func (w *walk) routeOutput(pl *place, q flow) (route, *fault) {
	q.iif = loopbackIIf
	if kind, ok := pl.addrType(q.dst, ""); ok && (kind == "BROADCAST" || kind == "MULTICAST") {
		return route{}, unknownFault("", "", "%s is a %s address: such packets are not followed", q.dst, kind)
	}
	res, flt := pl.fib.lookup(q)
	if flt != nil {
		if q.oif != "" && !flt.unknown {
			return w.assumeOnLink(pl, q)
		}
		return route{}, flt
	}
	if res.kind() == "local" {
		return w.localRoute(pl, res, q), nil
	}
	if res.kind() != "unicast" {
		return route{}, unknownFault(tableName(res.route.Table), res.text(), "routes of type %s are not followed", res.kind())
	}
	return w.viaLeg(pl, res, w.leg(res.legs), q)
}

// localRoute leads to the namespace itself, over the loopback.
func (w *walk) localRoute(pl *place, res fibResult, q flow) route {
	rt := route{fibResult: res, dev: loopbackIIf, gw: q.dst, src: q.dst, here: true}
	if res.route.Src.IsValid() {
		rt.src = res.route.Src
	}
	if lo := pl.devices[loopbackIIf]; lo != nil {
		rt.mtu = lo.MTU
	}
	return rt
}

// assumeOnLink is what happens to a packet that is bound to a device, if the
// tables have no way through it or refuse one: the destination is taken to be
// on the link.
func (w *walk) assumeOnLink(pl *place, q flow) (route, *fault) {
	d := pl.devices[q.oif]
	if d == nil {
		return route{}, &fault{reason: ReasonNoRoute, table: "link", text: fmt.Sprintf("there is no device %s", q.oif)}
	}
	src, _ := selectAddress(pl, d.Name, netip.Addr{}, scopeLink)
	return route{dev: d.Name, gw: q.dst, src: src, mtu: d.MTU}, nil
}

// leg picks one of a multipath route's next hops. The kernel does so by a hash
// of the packet with a secret (net/ipv4/fib_semantics.c, fib_select_multipath),
// so that only the weights are known.
func (w *walk) leg(legs []datapath.NextHop) datapath.NextHop {
	if len(legs) == 1 || w.choose == nil {
		return legs[0]
	}
	sum := 0
	for _, l := range legs {
		sum += max(l.Weight, 1)
	}
	weights := make([]float64, len(legs))
	for i, l := range legs {
		weights[i] = float64(max(l.Weight, 1)) / float64(sum)
	}
	return legs[w.choose(weights)]
}

func (w *walk) viaLeg(pl *place, res fibResult, leg datapath.NextHop, q flow) (route, *fault) {
	d := pl.devices[leg.Dev]
	if d == nil {
		return route{}, &fault{reason: ReasonNoRoute, table: tableName(res.route.Table), rule: res.text(), text: fmt.Sprintf("the route %q leads to device %s, which is not there", res.text(), leg.Dev)}
	}
	rt := route{fibResult: res, dev: leg.Dev, gw: q.dst, src: res.route.Src, mtu: d.MTU}
	if leg.Via.IsValid() {
		rt.gw = leg.Via
	}
	if res.route.MTU > 0 {
		rt.mtu = res.route.MTU
	}
	if !rt.src.IsValid() {
		rt.src, _ = selectAddress(pl, leg.Dev, leg.Via, scopeOf(res.route))
	}
	return rt, nil
}

// routeInput finds the way for a packet that came by a device (net/ipv4/route.c,
// ip_route_input_slow).
func (w *walk) routeInput(pl *place, s *skb, dev *datapath.Device) (route, *fault) {
	if flt := martian(pl, s.p, dev); flt != nil {
		return route{}, flt
	}
	q := flow{dst: s.p.Dst, src: s.p.Src, mark: s.p.Mark, iif: dev.Name}
	res, flt := pl.fib.lookup(q)
	forwards := dev.Conf.Forwarding != 0
	if flt != nil {
		if !forwards { // ip_error tells nobody
			if flt.reason == ReasonNoRoute {
				return route{}, forwardingOff(pl, dev, s.p.Dst)
			}
			flt.icmp = nil
		}
		return route{}, flt
	}
	switch kind := res.kind(); {
	case kind == "local":
		if flt := w.validateSource(pl, s.p, dev, loopbackIIf); flt != nil {
			return route{}, flt
		}
		return w.localRoute(pl, res, q), nil
	case kind == "broadcast" || kind == "multicast":
		return route{}, unknownFault("", "", "%s is a %s address: such packets are not followed", s.p.Dst, kind)
	case !forwards:
		return route{}, forwardingOff(pl, dev, s.p.Dst)
	case kind != "unicast":
		return route{}, unknownFault(tableName(res.route.Table), res.text(), "routes of type %s are not followed", kind)
	}
	rt, flt := w.viaLeg(pl, res, w.leg(res.legs), q)
	if flt == nil {
		flt = w.validateSource(pl, s.p, dev, rt.dev)
	}
	return rt, flt
}

func forwardingOff(pl *place, dev *datapath.Device, dst netip.Addr) *fault {
	key := "net.ipv4.ip_forward"
	if pl.sysctl("net/ipv4/ip_forward", "0") != "0" {
		key = "net.ipv4.conf." + dev.Name + ".forwarding"
	}
	return &fault{
		reason: ReasonForwardingOff, table: "sysctl", rule: key + " = 0",
		text: fmt.Sprintf("the packet came by %s for %s, which is not an address of this machine, and it does not forward: %s is 0", dev.Name, dst, key),
		hint: fmt.Sprintf("sysctl -w %s=1 on %s", key, pl.label()),
	}
}
