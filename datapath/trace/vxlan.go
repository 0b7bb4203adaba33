package trace

import (
	"fmt"
	"net/netip"

	"slipway/datapath"
)

// zeroMAC is the entry of a VXLAN device for everything it does not know.
const zeroMAC = "00:00:00:00:00:00"

// vxlanOverhead is what VXLAN adds to a packet: IPv4, UDP, VXLAN and the inner
// frame's Ethernet header (RFC 7348 §5).
const vxlanOverhead = 20 + 8 + 8 + 14

// tunnelTTL is a tunnel's TTL where nobody set one (ip4_dst_hoplimit).
const tunnelTTL = 64

// vxlanTransmit is vxlan_xmit (drivers/net/vxlan/vxlan_core.c): the forwarding
// table says behind which machine the frame's MAC is, and the frame goes there
// in a UDP packet.
func (w *walk) vxlanTransmit(pl *place, dev *datapath.Device, s *skb) end {
	at := Hop{Stage: Encap, Device: dev.Name}
	entry, flt := vxlanFDB(pl, dev, s)
	if flt != nil {
		return w.stop(pl, s, at, flt)
	}
	x := dev.VXLAN
	outer := &skb{inner: s, tunnel: "vxlan", vni: uint32(x.VNI), p: datapath.Packet{
		Src: x.Local, Dst: entry.Dst, Proto: "udp", DPort: uint16(x.Port), TTL: tunnelTTL, Length: s.wire() + vxlanOverhead, Mark: s.p.Mark,
	}}
	if entry.Port != 0 {
		outer.p.DPort = uint16(entry.Port)
	}
	if entry.VNI != 0 {
		outer.vni = uint32(entry.VNI)
	}
	if pl.isLocal(entry.Dst) { // encap_bypass_if_local
		return w.vxlanBypass(pl, dev, outer, entry)
	}
	s.forget()
	at.Action, at.Reason = EncapAction, fmt.Sprintf("%s knows MAC %s behind %s: the frame goes there in a UDP packet to port %d, VNI %d", dev.Name, s.dmac, entry.Dst, outer.p.DPort, outer.vni)
	return w.sendOuter(pl, outer, x.Device, at)
}

// sendOuter sends a packet that a tunnel made.
func (w *walk) sendOuter(pl *place, outer *skb, oif string, at Hop) end {
	rt, flt := w.routeOutput(pl, flow{dst: outer.p.Dst, src: outer.p.Src, mark: outer.p.Mark, oif: oif})
	if flt == nil && unspecified(outer.p.Src) {
		outer.p.Src = rt.src
	}
	at.Action = EncapAction
	w.hop(pl, outer, at)
	if flt != nil {
		return w.refuse(pl, outer, Hop{Stage: Route}, flt)
	}
	w.hop(pl, outer, Hop{Stage: Route, Device: rt.dev, Route: rt.describe(), MTU: rt.mtu, Reason: routeText(rt, outer.p.Dst)})
	return w.localOut(pl, outer, rt)
}

// vxlanFDB is vxlan_find_mac.
func vxlanFDB(pl *place, dev *datapath.Device, s *skb) (*datapath.FDBState, *fault) {
	for _, mac := range []string{s.dmac, zeroMAC} {
		var found []*datapath.FDBState
		for i := range pl.st.FDB {
			e := &pl.st.FDB[i]
			if e.Dev == dev.Name && e.Master == "" && sameMAC(e.MAC, mac) && e.Dst.IsValid() {
				found = append(found, e)
			}
		}
		if len(found) > 1 || len(found) == 1 && found[0].Dst.IsMulticast() {
			return nil, unknownFault("fdb", fdbText(found[0]), "%s sends copies of the frame to several machines, which is not followed", dev.Name)
		}
		if len(found) == 1 {
			return found[0], nil
		}
	}
	return nil, &fault{
		reason: ReasonNoFDB, table: "fdb",
		text: fmt.Sprintf("%s does not know behind which machine MAC %s is: its forwarding table has no entry", dev.Name, s.dmac),
		hint: fmt.Sprintf("bridge fdb replace %s dev %s dst NODE on %s", s.dmac, dev.Name, pl.label()),
	}
}

func fdbText(e *datapath.FDBState) string {
	return fmt.Sprintf("%s dev %s dst %s", e.MAC, e.Dev, e.Dst)
}

// vxlanBypass is vxlan_encap_bypass: a remote that is this machine itself needs
// no wire.
func (w *walk) vxlanBypass(pl *place, dev *datapath.Device, outer *skb, entry *datapath.FDBState) end {
	w.hop(pl, outer.inner, Hop{Stage: Encap, Device: dev.Name, Reason: fmt.Sprintf("the remote %s is this machine itself: the frame goes nowhere", entry.Dst)})
	to := vxlanDevice(pl, outer)
	if to == nil {
		return w.stop(pl, outer, Hop{Stage: Encap, Device: dev.Name}, &fault{reason: ReasonNoVTEP, table: "fdb", rule: fdbText(entry), text: fmt.Sprintf("the forwarding table of %s names this machine itself, which has no VTEP for the frame", dev.Name)})
	}
	outer.inner.dmac = "" // taken as its own, whomever it is for
	return w.receive(pl, to.Name, outer.inner)
}

// vxlanDevice finds the device that takes a VXLAN packet.
func vxlanDevice(pl *place, outer *skb) *datapath.Device {
	for i := range pl.st.Devices {
		d := &pl.st.Devices[i]
		if d.VXLAN != nil && d.Up && uint16(d.VXLAN.Port) == outer.p.DPort && uint32(d.VXLAN.VNI) == outer.vni {
			return d
		}
	}
	return nil
}

// vxlanReceive is vxlan_rcv: the packet in the UDP packet is received by the
// device of its VNI.
func (w *walk) vxlanReceive(pl *place, in *datapath.Device, outer *skb) end {
	dev := vxlanDevice(pl, outer)
	if dev == nil {
		return w.stop(pl, outer, Hop{Stage: Decap, Device: in.Name}, &fault{
			reason: ReasonNoVTEP, table: "tunnel",
			text: fmt.Sprintf("no VXLAN device here has VNI %d", outer.vni), hint: "ip -d link show type vxlan on " + pl.label(),
		})
	}
	s := outer.inner
	if sameMAC(s.smac, dev.MAC) { // vxlan_set_mac
		return w.stop(pl, outer, Hop{Stage: Decap, Device: dev.Name}, &fault{
			reason: ReasonDuplicate, table: "link", rule: dev.Name + " " + dev.MAC,
			text: fmt.Sprintf("the inner frame comes from MAC %s, which is %s's own: two VTEPs have the same", s.smac, dev.Name),
		})
	}
	s.p.Mark = outer.p.Mark
	w.hop(pl, s, Hop{Stage: Decap, Device: dev.Name, Action: DecapAction, Reason: fmt.Sprintf("VNI %d belongs to %s, which unwraps the frame", outer.vni, dev.Name)})
	return w.receive(pl, dev.Name, s)
}

// tunnelEnd finds which tunnel takes a packet that has come to its machine; nil
// if it is for sockets.
func (w *walk) tunnelEnd(pl *place, s *skb) func(*place, *datapath.Device, *skb) end {
	if s.inner == nil {
		return nil
	}
	switch {
	case s.tunnel == "vxlan" && vxlanPort(pl, s.p.DPort):
		return w.vxlanReceive
	case s.tunnel == "udp" && servedUDP(pl, s.p):
		return w.udpReceive
	case s.tunnel == "ipip" && pl.st.IPIP != nil:
		return w.ipipReceive
	}
	return w.noTunnel
}

// vxlanPort reports whether a VXLAN device that is up has opened the UDP port.
func vxlanPort(pl *place, port uint16) bool {
	for i := range pl.st.Devices {
		if d := &pl.st.Devices[i]; d.VXLAN != nil && d.Up && uint16(d.VXLAN.Port) == port {
			return true
		}
	}
	return false
}

// noTunnel is an encapsulated packet that nothing here takes. Its kernel tells
// the machine that sent it, but nobody tells who sent the packet inside.
func (w *walk) noTunnel(pl *place, dev *datapath.Device, s *skb) end {
	f := &fault{reason: ReasonNoVTEP, table: "tunnel"}
	switch {
	case s.tunnel == "ipip":
		f.reason, f.text = ReasonTunnelDown, "nothing here takes IP in IP (protocol 4)"
	case s.tunnel == "udp" && pl.st.UDPTunnel != nil && pl.st.UDPTunnel.Local.Port() == s.p.DPort:
		f.reason = ReasonTunnelDown
		f.text = "the process that serves " + pl.st.UDPTunnel.Device + " is not running" + because(pl.st.UDPTunnel.Problem)
	default:
		f.text = fmt.Sprintf("no tunnel here has UDP port %d open", s.p.DPort)
		f.hint = "both ends must use the same port: ip -d link show on " + pl.label()
		for i := range pl.st.Devices {
			if x := pl.st.Devices[i].VXLAN; x != nil {
				f.rule = fmt.Sprintf("%s vxlan id %d dstport %d", pl.st.Devices[i].Name, x.VNI, x.Port)
			}
		}
	}
	return w.stop(pl, s, Hop{Stage: Decap, Device: dev.Name}, f)
}

func because(problem string) string {
	if problem == "" {
		return ""
	}
	return ": " + problem
}

// prefixHolds reports whether a lease's subnet holds an address.
func prefixHolds(p netip.Prefix, a netip.Addr) bool { return p.IsValid() && p.Contains(a) }
