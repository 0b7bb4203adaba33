package trace

import (
	"errors"
	"fmt"
	"strings"

	"slipway/datapath"
)

// transmit is dev_queue_xmit: a device of pl sends the frame (net/core/dev.c),
// in the way of its kind.
func (w *walk) transmit(pl *place, dev *datapath.Device, s *skb) end {
	at := Hop{Stage: Egress, Device: dev.Name, MTU: dev.MTU, Neighbor: s.neighbor, Reason: egressText(dev, s)}
	if pl.Wire {
		at.Stage, at.Reason = Wire, "out of the underlay's switch by "+dev.Name
	}
	ipip := servesIPIP(pl, dev)
	// tc takes it before any device event
	at.Hidden = ipip && ipipKind(pl, dev) == ipipEBPF || servesUDPTunnel(pl, dev) && isProgrammed(pl.st.UDPTunnel)
	if len(*w.hops()) >= w.maxHops {
		return w.stop(pl, s, at, unknownFault("link", "", "the packet is still on its way after %d hops: it goes round in circles", w.maxHops))
	}
	if flt := deviceDown(pl, dev, ipip); flt != nil {
		return w.stop(pl, s, at, flt)
	}
	for _, prog := range dev.Egress {
		if flt := w.program(prog, dev.Name); flt != nil {
			return w.stop(pl, s, at, flt)
		}
	}
	w.hop(pl, s, at)
	switch {
	case dev.Kind == "loopback":
		return w.receive(pl, dev.Name, s)
	case dev.Kind == "bridge":
		return w.bridgeTransmit(pl, dev, s)
	case servesUDPTunnel(pl, dev):
		return w.udpTransmit(pl, dev, s)
	case dev.Kind == "vxlan" && dev.VXLAN != nil:
		return w.vxlanTransmit(pl, dev, s)
	case ipip:
		return w.ipipTransmit(pl, dev, s)
	}
	return w.cross(pl, dev, s)
}

func egressText(dev *datapath.Device, s *skb) string {
	if s.dmac == "" || plain(dev) {
		return "sent by " + dev.Name
	}
	return fmt.Sprintf("sent by %s to MAC %s", dev.Name, s.dmac)
}

// deviceDown is what a device that is down, or has no carrier, does.
func deviceDown(pl *place, dev *datapath.Device, ipip bool) *fault {
	switch {
	case !dev.Up:
		return &fault{
			reason: ReasonDeviceDown, table: "link", rule: dev.Name + " state DOWN",
			text: fmt.Sprintf("device %s is down", dev.Name), hint: fmt.Sprintf("ip link set %s up on %s", dev.Name, pl.label()),
		}
	case servesUDPTunnel(pl, dev) || ipip:
		return nil // a TUN without carrier says more below
	case !dev.Carrier:
		return &fault{
			reason: ReasonDeviceDown, table: "link", rule: dev.Name + " NO-CARRIER",
			text: fmt.Sprintf("device %s has no carrier: its other end is down or not there", dev.Name),
			hint: "bring up the other end",
		}
	}
	return nil
}

// program knows what the tc programs of this product do; of all others it is
// unknown (datapath/bpf/filter.go).
func (w *walk) program(name, dev string) *fault {
	kind, _, _ := strings.Cut(name, " ")
	switch kind {
	case "slipway-ipip-encap", "slipway-ipip-decap", "slipway-udp-encap", "slipway-udp-decap":
		return nil
	case "slipway-loss":
		w.note("%s loses packets at random (%s); the prediction is for one that is not lost", dev, name)
		return nil
	}
	return unknownFault("tc", name, "the tc program %q on %s may do anything", name, dev)
}

// cross takes a frame over a veth to its other end.
func (w *walk) cross(pl *place, dev *datapath.Device, s *skb) end {
	peer, err := w.peer(pl.name, dev.Name)
	if err != nil {
		f := unknownFault("link", dev.Name, "where %s leads is not known: %v", dev.Name, err)
		if errors.Is(err, ErrNoPeer) && dev.Kind == "veth" {
			f = &fault{reason: ReasonDeviceDown, table: "link", rule: dev.Name, text: fmt.Sprintf("device %s has no other end", dev.Name)}
		}
		return w.stop(pl, s, Hop{Stage: outStage(pl), Device: dev.Name}, f)
	}
	s.scrub()
	if s.inner != nil {
		s.inner.scrub()
	}
	return w.receive(w.place(peer.namespace), peer.device, s)
}

func outStage(pl *place) Stage {
	if pl.Wire {
		return Wire
	}
	return Egress
}

// receive is netif_receive_skb: a frame comes in by a device, whose tc programs
// see it first, then its bridge, then IP (net/core/dev.c, __netif_receive_skb_core).
func (w *walk) receive(pl *place, device string, s *skb) end {
	if pl.err != nil {
		return w.lost(pl, s, Ingress, device)
	}
	at := Hop{Stage: Ingress, Device: device, Reason: "received by " + device}
	if pl.Wire {
		at.Stage, at.Reason = Wire, "into the underlay's switch by "+device
	}
	dev := pl.devices[device]
	if dev == nil {
		return w.stop(pl, s, at, unknownFault("link", device, "device %s is not in the collected state", device))
	}
	at.MTU = dev.MTU
	if flt := notForwardable(pl, dev, s); flt != nil {
		at.Hidden = true // it is refused before it is received
		return w.stop(pl, s, at, flt)
	}
	w.hop(pl, s, at)
	if takesIPIP(pl, dev, s) {
		return w.ipipDecap(pl, dev, s)
	}
	if s.disguised = s.tunnel == "udp" && forProgram(pl, dev, s); !s.disguised && forProgram(pl, dev, s) {
		return w.stop(pl, s, at, unknownFault("tunnel", device, "what flannel-udp's BPF program on %s does with a datagram that is not from a tunnel is not predicted", device))
	}
	for _, prog := range dev.Ingress {
		if flt := w.program(prog, dev.Name); flt != nil {
			return w.stop(pl, s, at, flt)
		}
	}
	if dev.Master != "" {
		if br := pl.devices[dev.Master]; br != nil && br.Kind == "bridge" {
			return w.bridgeReceive(pl, br, dev, s)
		}
	}
	return w.ipRcv(pl, dev, s)
}

// vlanSlack is how much longer than its MTU a packet may be that a virtual
// device takes (include/linux/netdevice.h, __is_skb_forwardable: VLAN_HLEN).
const vlanSlack = 4

// notForwardable is is_skb_forwardable: what a veth's receiving end refuses
// without a word.
func notForwardable(pl *place, dev *datapath.Device, s *skb) *fault {
	switch {
	case !dev.Up:
		return &fault{
			reason: ReasonDeviceDown, table: "link", rule: dev.Name + " state DOWN",
			text: fmt.Sprintf("device %s is down", dev.Name), hint: fmt.Sprintf("ip link set %s up on %s", dev.Name, pl.label()),
		}
	case dev.Kind == "veth" && dev.MTU > 0 && s.wire() > dev.MTU+vlanSlack:
		return &fault{
			reason: ReasonMTU, table: "link", rule: fmt.Sprintf("%s mtu %d", dev.Name, dev.MTU),
			text: fmt.Sprintf("%s takes no packets longer than its MTU of %d; this one has %d bytes, and nobody tells the sender", dev.Name, dev.MTU, s.p.Length),
			hint: "give both ends of the link the same MTU",
		}
	}
	return nil
}

func sameMAC(a, b string) bool { return strings.EqualFold(a, b) }

const broadcastMAC = "ff:ff:ff:ff:ff:ff"

func isBroadcastMAC(m string) bool { return sameMAC(m, broadcastMAC) }
