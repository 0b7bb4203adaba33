package trace

import (
	"fmt"
	"strings"

	"slipway/datapath"
)

// portState is a bridge port's state; a port without attributes forwards.
func portState(port *datapath.Device) string {
	if port.Port == nil || port.Port.State == "" {
		return "forwarding"
	}
	return port.Port.State
}

// bridgeReceive is br_handle_frame: a frame comes in by a port of a bridge
// (net/bridge/br_input.c).
func (w *walk) bridgeReceive(pl *place, br, port *datapath.Device, s *skb) end {
	if st := portState(port); st != "forwarding" {
		return w.stop(pl, s, Hop{Stage: BridgeStage, Device: br.Name}, portDown(pl, br, port, "received by"))
	}
	if isBroadcastMAC(s.dmac) {
		return w.stop(pl, s, Hop{Stage: BridgeStage, Device: br.Name}, unknownFault("fdb", "", "broadcast frames are not followed"))
	}
	if pl.sysctl("net/bridge/bridge-nf-call-iptables", "0") == "1" {
		return w.bridgePrerouting(pl, br, port, s)
	}
	return w.bridgeFrame(pl, br, port, s)
}

func portDown(pl *place, br, port *datapath.Device, doing string) *fault {
	return &fault{
		reason: ReasonPortDown, table: "link", device: port.Name, rule: fmt.Sprintf("%s master %s state %s", port.Name, br.Name, portState(port)),
		text: fmt.Sprintf("the frame would be %s port %s of bridge %s, whose state is %s", doing, port.Name, br.Name, portState(port)),
		hint: fmt.Sprintf("bridge link show dev %s on %s", port.Name, pl.label()),
	}
}

// bridgeFrame is br_handle_frame_finish: the bridge learns where the sender is
// and looks where the receiver is.
func (w *walk) bridgeFrame(pl *place, br, port *datapath.Device, s *skb) end {
	if port.Port == nil || port.Port.Learning {
		w.learn(pl, br, s.smac, port.Name)
	}
	if w.forBridge(pl, br, s.dmac) {
		w.hop(pl, s, Hop{Stage: BridgeStage, Device: br.Name, Reason: fmt.Sprintf("the MAC %s is %s's own: the packet goes up to this machine's IP stack", s.dmac, br.Name)})
		return w.passUp(pl, br, s)
	}
	return w.bridgeForward(pl, br, port, s)
}

// passUp is br_pass_frame_up: the bridge's own device receives the frame.
func (w *walk) passUp(pl *place, br *datapath.Device, s *skb) end {
	w.hop(pl, s, Hop{Stage: Ingress, Device: br.Name, MTU: br.MTU, Reason: "received by " + br.Name})
	return w.ipRcv(pl, br, s)
}

// bridgeTransmit is br_dev_xmit: the bridge's own device sends (net/bridge/br_device.c).
func (w *walk) bridgeTransmit(pl *place, br *datapath.Device, s *skb) end {
	return w.bridgeForward(pl, br, nil, s)
}

func (w *walk) learn(pl *place, br *datapath.Device, mac, port string) {
	key := wireEnd{pl.name, br.Name}
	if w.learned[key] == nil {
		w.learned[key] = map[string]string{}
	}
	if mac != "" {
		w.learned[key][strings.ToLower(mac)] = port
	}
}

// forBridge reports whether frames to a MAC go up to the bridge's own device.
func (w *walk) forBridge(pl *place, br *datapath.Device, mac string) bool {
	if sameMAC(mac, br.MAC) {
		return true
	}
	for _, p := range pl.ports(br.Name) {
		if sameMAC(p.MAC, mac) {
			return true
		}
	}
	return false
}

// bridgeForward finds the port that a frame leaves by and sends it. in is the
// port that it came by; nil if the bridge's own device sends it.
func (w *walk) bridgeForward(pl *place, br, in *datapath.Device, s *skb) end {
	at := Hop{Stage: BridgeStage, Device: br.Name}
	out, why, flt := w.outPort(pl, br, in, s)
	if flt != nil {
		return w.stop(pl, s, at, flt)
	}
	if refused := mayForward(in, out); refused != nil {
		return w.stop(pl, s, at, w.blameFarEnd(pl, out, refused(pl, br, out)))
	}
	at.Reason = why
	w.hop(pl, s, at)
	if s.bridged != nil {
		if e := w.bridgedForward(pl, br, out, s); e != nil {
			return *e
		}
	}
	if flt := w.tooLongForPort(out, s); flt != nil {
		return w.stop(pl, s, Hop{Stage: outStage(pl), Device: out.Name, MTU: out.MTU, Hidden: true}, flt)
	}
	return w.transmit(pl, out, s)
}

// outPort is the lookup in the bridge's forwarding table.
func (w *walk) outPort(pl *place, br, in *datapath.Device, s *skb) (port *datapath.Device, why string, flt *fault) {
	if name, ok := w.learned[wireEnd{pl.name, br.Name}][strings.ToLower(s.dmac)]; ok {
		return pl.devices[name], fmt.Sprintf("%s has just learnt that MAC %s is behind %s", br.Name, s.dmac, name), nil
	}
	for i := range pl.st.FDB {
		e := &pl.st.FDB[i]
		if e.Master == br.Name && !e.Local && sameMAC(e.MAC, s.dmac) && pl.devices[e.Dev] != nil {
			return pl.devices[e.Dev], fmt.Sprintf("%s knows that MAC %s is behind %s", br.Name, s.dmac, e.Dev), nil
		}
	}
	return w.flooded(pl, br, in, s)
}

// flooded finds which port of a flooded frame leads to somebody who takes it.
func (w *walk) flooded(pl *place, br, in *datapath.Device, s *skb) (port *datapath.Device, why string, flt *fault) {
	var open, takers []*datapath.Device
	var errs []error
	for _, p := range pl.ports(br.Name) {
		if mayForward(in, p) != nil || p.Port != nil && !p.Port.Flood {
			continue
		}
		open = append(open, p)
		found, e := w.holders(pl, p, s.dmac)
		errs = append(errs, e...)
		if len(found) > 0 {
			takers = append(takers, p)
		}
	}
	switch {
	case len(takers) == 1:
		return takers[0], fmt.Sprintf("%s does not know MAC %s and floods the frame; who takes it is behind %s", br.Name, s.dmac, takers[0].Name), nil
	case len(takers) > 1:
		f := unknownFault("fdb", "", "%s floods the frame to MAC %s, which several places have: %s and %s take it", br.Name, s.dmac, takers[0].Name, takers[1].Name)
		f.reason = ReasonDuplicate
		return nil, "", f
	}
	if flt := w.shutOff(pl, br, in, s); flt != nil {
		return nil, "", flt
	}
	switch {
	case len(errs) > 0:
		return nil, "", unknownFault("fdb", "", "%s floods the frame to MAC %s; who takes it is not known: %v", br.Name, s.dmac, errs[0])
	case len(open) == 1:
		return open[0], fmt.Sprintf("%s does not know MAC %s and floods the frame to its only other port", br.Name, s.dmac), nil
	}
	return nil, "", nobody(br, s)
}

// shutOff is a frame whose receiver is right behind a port that may not send it.
func (w *walk) shutOff(pl *place, br, in *datapath.Device, s *skb) *fault {
	for _, p := range pl.ports(br.Name) {
		if why := mayForward(in, p); why != nil {
			if found, _ := w.behind(pl, p, s.dmac); found {
				return w.blameFarEnd(pl, p, why(pl, br, p))
			}
		}
	}
	return nil
}

// blameFarEnd says why a port is disabled, if its other end is down.
func (w *walk) blameFarEnd(pl *place, port *datapath.Device, f *fault) *fault {
	if f.reason != ReasonPortDown || port.Carrier {
		return f
	}
	if end, err := w.peer(pl.name, port.Name); err == nil {
		if far := w.bystander(end.namespace); far.err == nil && far.devices[end.device] != nil && !far.devices[end.device].Up {
			f.hint = fmt.Sprintf("the port's other end, %s of %s, is down: ip link set %s up there", end.device, far.label(), end.device)
		}
	}
	return f
}

// nobody is a flooded frame that no receiver takes.
func nobody(br *datapath.Device, s *skb) *fault {
	f := &fault{
		reason: ReasonOtherHost, table: "neighbor", rule: s.neighbor,
		text: fmt.Sprintf("nobody on bridge %s has the MAC %s: all ports get a copy of the frame, and each receiver drops it as another host's", br.Name, s.dmac),
	}
	if s.neighborOf != "" {
		f.hint = fmt.Sprintf("%s has that MAC in its neighbour entry %q", s.neighborOf, s.neighbor)
	}
	return f
}

// behind reports whether a MAC is right behind a port, even if that is shut.
func (w *walk) behind(pl *place, port *datapath.Device, mac string) (bool, error) {
	peer, err := w.peer(pl.name, port.Name)
	if err != nil {
		return false, err
	}
	far := w.bystander(peer.namespace)
	if far.err != nil {
		return false, far.err
	}
	d := far.devices[peer.device]
	return d != nil && sameMAC(d.MAC, mac), nil
}

// refusal is why a bridge does not send by a port.
type refusal func(pl *place, br, out *datapath.Device) *fault

// mayForward is should_deliver (net/bridge/br_forward.c): may a frame that came
// by in leave by out? nil says yes.
func mayForward(in, out *datapath.Device) refusal {
	switch {
	case portState(out) != "forwarding":
		return func(pl *place, br, out *datapath.Device) *fault { return portDown(pl, br, out, "sent by") }
	case in != nil && in.Name == out.Name && (out.Port == nil || !out.Port.Hairpin):
		return hairpinOff
	case in != nil && in.Port != nil && out.Port != nil && in.Port.Isolated && out.Port.Isolated:
		return func(_ *place, br, out *datapath.Device) *fault {
			return &fault{
				reason: ReasonPortDown, table: "link", rule: fmt.Sprintf("%s isolated on, %s isolated on", in.Name, out.Name),
				text: fmt.Sprintf("ports %s and %s of bridge %s are isolated from each other", in.Name, out.Name, br.Name),
			}
		}
	}
	return nil
}

func hairpinOff(pl *place, br, out *datapath.Device) *fault {
	return &fault{
		reason: ReasonHairpinOff, table: "link", device: out.Name, rule: out.Name + " hairpin off",
		text: fmt.Sprintf("the frame would have to leave bridge %s by port %s, which it came by, and hairpin mode is off there", br.Name, out.Name),
		hint: fmt.Sprintf("bridge link set dev %s hairpin on, on %s", out.Name, pl.label()),
	}
}

// tooLongForPort is the check of br_dev_queue_push_xmit.
func (w *walk) tooLongForPort(out *datapath.Device, s *skb) *fault {
	if out.MTU == 0 || s.wire() <= out.MTU+vlanSlack {
		return nil
	}
	return &fault{
		reason: ReasonMTU, table: "link", rule: fmt.Sprintf("%s mtu %d", out.Name, out.MTU),
		text: fmt.Sprintf("bridge port %s takes no packets longer than its MTU of %d; this one has %d bytes, and a bridge tells nobody", out.Name, out.MTU, s.p.Length),
		hint: "give all devices of a segment the same MTU",
	}
}
