package lab

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/nl"
	"slipway/lab/shape"
	"slipway/topology"
)

// wire is one leg of a machine plugged into the fabric: a veth pair, or two
// TAPs with a relay between them where a delay needs one.
type wire struct {
	machine machine
	leg     topology.Interface
	segment topology.Segment
	port    string // device in the fabric
	bridge  string
	relay   bool
}

func bridgeName(segment string) string { return ifName("br", segment) }

// wiresOf lists the wires of a machine.
func wiresOf(s *topology.Snapshot, m machine, sup shape.Support) ([]wire, error) {
	var out []wire
	for _, leg := range m.legs {
		seg, ok := s.SegmentByName(leg.Segment)
		if !ok {
			return nil, fmt.Errorf("machine %s: no segment %q", m.name, leg.Segment)
		}
		out = append(out, wire{
			machine: m, leg: leg, segment: seg,
			port: ifName(m.name, leg.Name), bridge: bridgeName(seg.Name),
			relay: shape.NeedsRelay(seg, sup),
		})
	}
	return out, nil
}

// ensure makes the wire's devices, addresses and attributes what they have to
// be, and returns what it changed.
func (w wire) ensure(node, fabric *place, bridge netlink.Link) (datapath.Diff, error) {
	diff, err := w.ensureDevices(node, fabric)
	if err != nil {
		return diff, fmt.Errorf("wire %s of %s into %s: %w", w.leg.Name, w.machine.name, w.segment.Name, err)
	}
	inner, err := node.h.LinkByName(w.leg.Name)
	if err != nil {
		return diff, fmt.Errorf("wire %s of %s: %w", w.leg.Name, w.machine.name, err)
	}
	outer, err := fabric.h.LinkByName(w.port)
	if err != nil {
		return diff, fmt.Errorf("port %s of the fabric: %w", w.port, err)
	}
	for _, step := range []func() (datapath.Diff, error){
		func() (datapath.Diff, error) { return w.setLink(node.h, inner) },
		func() (datapath.Diff, error) { return w.setAddress(node.h, inner) },
		func() (datapath.Diff, error) { return w.setPort(fabric.h, outer, bridge) },
	} {
		did, err := step()
		diff = append(diff, did...)
		if err != nil {
			return diff, fmt.Errorf("wire %s of %s into %s: %w", w.leg.Name, w.machine.name, w.segment.Name, err)
		}
	}
	return diff, nil
}

// ensureDevices makes both ends, first removing ends of the other kind or an
// end that lost its partner.
func (w wire) ensureDevices(node, fabric *place) (datapath.Diff, error) {
	want := "veth"
	if w.relay {
		want = "tuntap"
	}
	inner, e1 := node.h.LinkByName(w.leg.Name)
	outer, e2 := fabric.h.LinkByName(w.port)
	if e1 == nil && e2 == nil && inner.Type() == want && outer.Type() == want {
		return nil, nil
	}
	for _, x := range []struct {
		h    *nl.Handle
		link netlink.Link
		err  error
	}{{node.h, inner, e1}, {fabric.h, outer, e2}} {
		if x.err == nil {
			if err := x.h.LinkDel(x.link); err != nil && !nl.Missing(err) {
				return nil, err
			}
		} else if !nl.Missing(x.err) {
			return nil, x.err
		}
	}
	if w.relay {
		return w.added("tap"), w.makeTAPs(node, fabric)
	}
	return w.added("veth"), w.makeVeth(node, fabric)
}

func (w wire) added(kind string) datapath.Diff {
	cmd := fmt.Sprintf("ip link add %s type %s peer name %s netns %s", w.leg.Name, kind, w.port, fabricName)
	return datapath.Diff{{Node: w.machine.name, Action: datapath.Add, Object: "link", Command: cmd}}
}

func (w wire) makeVeth(node, fabric *place) error {
	mac, err := net.ParseMAC(w.leg.MAC)
	if err != nil {
		return err
	}
	return node.h.LinkAdd(&netlink.Veth{
		// One queue each way, see endAttrs in datapath/cni.
		LinkAttrs: netlink.LinkAttrs{Name: w.leg.Name, MTU: w.segment.MTU, HardwareAddr: mac, NumTxQueues: 1, NumRxQueues: 1},
		PeerName:  w.port, PeerNamespace: netlink.NsFd(fabric.ns.Fd()), PeerMTU: uint32(w.segment.MTU),
	})
}

// makeTAPs makes the two persistent TAPs that a delay relay joins.
func (w wire) makeTAPs(node, fabric *place) error {
	for _, end := range []struct {
		p    *place
		name string
	}{{node, w.leg.Name}, {fabric, w.port}} {
		if err := shape.CreateTap(shape.Port{NS: end.p.ns, Name: end.name}); err != nil {
			return fmt.Errorf("add tap %s: %w", end.name, err)
		}
	}
	return nil
}

// setLink sets MTU, MAC and state of the machine's end.
func (w wire) setLink(h *nl.Handle, l netlink.Link) (datapath.Diff, error) {
	var diff datapath.Diff
	a := l.Attrs()
	if a.MTU != w.segment.MTU {
		diff = append(diff, w.update("link", fmt.Sprintf("ip link set %s mtu %d", a.Name, w.segment.MTU), fmt.Sprint(a.MTU)))
		if err := h.LinkSetMTU(l, w.segment.MTU); err != nil {
			return diff, err
		}
	}
	if a.HardwareAddr.String() != w.leg.MAC {
		mac, err := net.ParseMAC(w.leg.MAC)
		if err != nil {
			return diff, err
		}
		if err := h.LinkSetHardwareAddr(l, mac); err != nil {
			return diff, err
		}
		if len(diff) > 0 || a.Flags&net.FlagUp != 0 {
			diff = append(diff, w.update("link", fmt.Sprintf("ip link set %s address %s", a.Name, w.leg.MAC), a.HardwareAddr.String()))
		}
	}
	if a.Flags&net.FlagUp == 0 {
		return append(diff, w.update("link", "ip link set "+a.Name+" up", "down")), h.LinkSetUp(l)
	}
	return diff, nil
}

// setAddress leaves the machine's end with exactly its address.
func (w wire) setAddress(h *nl.Handle, l netlink.Link) (datapath.Diff, error) {
	have, err := nl.Dump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_V4) })
	if err != nil {
		return nil, err
	}
	var diff datapath.Diff
	found := false
	for i := range have {
		if prefixOf(have[i].IPNet) == w.leg.Prefix {
			found = true
			continue
		}
		if w.machine.keeps(prefixOf(have[i].IPNet).Addr()) {
			continue
		}
		diff = append(diff, datapath.Change{Node: w.machine.name, Action: datapath.Remove, Object: "address", Command: fmt.Sprintf("ip addr del %s dev %s", have[i].IPNet, w.leg.Name)})
		if err := h.AddrDel(l, &have[i]); err != nil && !nl.Missing(err) {
			return diff, err
		}
	}
	if found {
		return diff, nil
	}
	diff = append(diff, datapath.Change{Node: w.machine.name, Action: datapath.Add, Object: "address", Command: fmt.Sprintf("ip addr add %s dev %s", w.leg.Prefix, w.leg.Name)})
	return diff, h.AddrAdd(l, &netlink.Addr{IPNet: ipNet(w.leg.Prefix)})
}

// setPort plugs the fabric's end into the segment's bridge.
func (w wire) setPort(h *nl.Handle, l, bridge netlink.Link) (datapath.Diff, error) {
	var diff datapath.Diff
	a := l.Attrs()
	if a.MTU != w.segment.MTU {
		diff = append(diff, w.update("port", fmt.Sprintf("ip link set %s mtu %d", a.Name, w.segment.MTU), fmt.Sprint(a.MTU)))
		if err := h.LinkSetMTU(l, w.segment.MTU); err != nil {
			return diff, err
		}
	}
	if a.MasterIndex != bridge.Attrs().Index {
		diff = append(diff, w.update("port", fmt.Sprintf("ip link set %s master %s", a.Name, w.bridge), ""))
		if err := h.LinkSetMasterByIndex(l, bridge.Attrs().Index); err != nil {
			return diff, err
		}
	}
	if a.Flags&net.FlagUp == 0 {
		return append(diff, w.update("port", "ip link set "+a.Name+" up", "down")), h.LinkSetUp(l)
	}
	return diff, nil
}

// shape makes both ends of the wire limit, lose and delay as the segment says.
// On a segment that does neither it looks no further when the ends hold nothing.
func (w wire) shape(node, fabric *place, queues map[string]bool, sup shape.Support) (datapath.Diff, error) {
	if !w.segment.Shaped() && !queues[w.port] {
		inner, err := queueing(node.h)
		if err != nil || !inner[w.leg.Name] {
			return nil, err
		}
	}
	var diff datapath.Diff
	for _, end := range []struct {
		on, device string
		apply      func() (shape.Report, error)
	}{
		{fabricName, w.port, func() (shape.Report, error) { return shape.ApplyRateLoss(fabric.ns, w.port, w.segment, sup) }},
		{w.machine.name, w.leg.Name, func() (shape.Report, error) { return shape.ApplyUplinkRate(node.ns, w.leg.Name, w.segment, sup) }},
	} {
		r, err := end.apply()
		if err != nil {
			return diff, fmt.Errorf("shape %s of %s: %w", end.device, end.on, err)
		}
		if r.Changed {
			diff = append(diff, datapath.Change{Node: end.on, Action: datapath.Update, Object: "shaping", Command: "tc qdisc replace dev " + end.device + " # " + shape.Describe(w.segment, sup)})
		}
	}
	return diff, nil
}

// queueing lists, in one dump, the devices that hold a queueing discipline which
// somebody put there: the kernel's own have no handle.
func queueing(h *nl.Handle) (map[string]bool, error) {
	qdiscs, err := nl.Dump(func() ([]netlink.Qdisc, error) { return h.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines in %s: %w", h.NSName(), err)
	}
	out := map[string]bool{}
	for _, q := range qdiscs {
		if q.Attrs().Handle == 0 {
			continue
		}
		l, err := h.LinkByIndex(q.Attrs().LinkIndex)
		if nl.Missing(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("device of a queueing discipline in %s: %w", h.NSName(), err)
		}
		out[l.Attrs().Name] = true
	}
	return out, nil
}

func (w wire) update(object, command, was string) datapath.Change {
	return datapath.Change{Node: w.machine.name, Action: datapath.Update, Object: object, Command: command, Was: was}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
