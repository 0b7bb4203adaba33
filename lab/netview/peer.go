package netview

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/lab"
)

// hints say where the lab's own names let one expect the other end of a device.
// They only order the questions to the kernel.
type hints struct {
	ports   []lab.Port
	onNode  map[string][]string // pods' namespaces by node
	podOf   map[string]string   // a pod's namespace by node and host device
	machine []string            // namespaces
	pods    []string
}

func hintsOf(st *lab.State) (hints, error) {
	h := hints{onNode: map[string][]string{}, podOf: map[string]string{}, machine: []string{lab.FabricNS(st.Lab)}}
	var err error
	if h.ports, err = lab.Ports(st); err != nil {
		return h, err
	}
	for _, p := range h.ports {
		h.machine = append(h.machine, p.NetNS)
	}
	for _, p := range st.Snapshot.Pods {
		ns := lab.NSOfPod(st.Lab, p.Key())
		h.pods = append(h.pods, ns)
		h.onNode[p.Node] = append(h.onNode[p.Node], ns)
		for _, device := range []string{flannel.HostIf(p.Key()), calico.HostIf(p.Key())} {
			h.podOf[trace.PeerKey(p.Node, device)] = ns
		}
	}
	return h, nil
}

// likely orders the lab's namespaces by how likely one holds a device's other
// end, the likeliest first; some come twice.
func (h *hints) likely(at trace.Place, device string) []string {
	var out []string
	if ns := h.podOf[trace.PeerKey(at.Label, device)]; ns != "" {
		out = append(out, ns)
	}
	for _, p := range h.ports {
		switch {
		case p.NetNS == at.Namespace && p.Device == device:
			out = append(out, h.machine[0])
		case at.Wire && p.Name == device:
			out = append(out, p.NetNS)
		case at.Pod && p.Machine == at.Node:
			out = append(out, p.NetNS)
		}
	}
	if !at.Pod {
		out = append(out, h.onNode[at.Node]...)
	}
	return slices.Concat(out, h.machine, h.pods)
}

// Peer implements [trace.Network]. For the two ends of a wire that a relay
// delays, each is the other's peer while the relay runs, and there is a note.
func (v *View) Peer(namespace, device string) (peerNamespace, peerDevice string, err error) {
	key := trace.PeerKey(namespace, device)
	v.mu.Lock()
	end, ok := v.peers[key]
	v.mu.Unlock()
	if !ok {
		ns, dev, err := v.findPeer(namespace, device)
		end = trace.EndOf(ns, dev, err)
		v.mu.Lock()
		v.peers[key] = end
		v.mu.Unlock()
		return ns, dev, err
	}
	r := trace.Recorded{Places: v.byNS, Peers: map[string]trace.PeerEnd{key: end}}
	return r.Peer(namespace, device)
}

func (v *View) findPeer(namespace, device string) (string, string, error) {
	st, err := v.Sketch(namespace)
	if err != nil {
		return "", "", err
	}
	at := v.Place(namespace)
	d := st.Device(device)
	switch {
	case d == nil:
		return "", "", fmt.Errorf("peer of %s in %s: there is no such device", device, at.Label)
	case d.Kind == "tap":
		return v.relayPeer(at, d)
	case d.PeerIndex == 0:
		return "", "", fmt.Errorf("%s in %s is a %s device: %w", device, at.Label, d.Kind, trace.ErrNoPeer)
	case d.PeerNSID < 0:
		peer := st.DeviceByIndex(d.PeerIndex)
		if peer == nil {
			return "", "", fmt.Errorf("%s in %s: its peer went away meanwhile", device, at.Label)
		}
		return namespace, peer.Name, nil
	}
	return v.vethPeer(at, d)
}

// vethPeer asks the kernel which of the lab's namespaces it is that a veth's
// end numbers, and that namespace for the device.
func (v *View) vethPeer(at trace.Place, d *datapath.Device) (string, string, error) {
	here, err := v.space(at.Namespace)
	if err != nil {
		return "", "", err
	}
	tried := map[string]bool{}
	for _, name := range v.hints.likely(at, d.Name) {
		if tried[name] {
			continue
		}
		tried[name] = true
		there, err := v.space(name)
		if errors.Is(err, netns.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", "", err
		}
		id, err := here.h.GetNetNsIdByFd(there.ns.Fd())
		if err != nil {
			return "", "", fmt.Errorf("number of %s in %s: %w", name, at.Label, err)
		}
		if id == d.PeerNSID {
			device, err := peerDevice(there, d)
			if err != nil {
				return "", "", fmt.Errorf("peer of %s in %s: %w", d.Name, at.Label, err)
			}
			return name, device, nil
		}
	}
	return "", "", fmt.Errorf("%s in %s leads to a namespace that is not the lab's (link-netnsid %d): %w", d.Name, at.Label, d.PeerNSID, trace.ErrNoPeer)
}

// peerDevice names the device in the other namespace, which must name this one
// as its peer: meanwhile, another may have got its index.
func peerDevice(there *space, d *datapath.Device) (string, error) {
	l, err := there.h.LinkByIndex(d.PeerIndex)
	if err != nil {
		return "", fmt.Errorf("device %d in %s: %w", d.PeerIndex, there.ns.Name(), err)
	}
	_, veth := l.(*netlink.Veth)
	if (!veth && l.Type() != d.Kind) || l.Attrs().ParentIndex != d.Index {
		return "", fmt.Errorf("%s in %s is not its other end: the lab changed meanwhile", l.Attrs().Name, there.ns.Name())
	}
	return l.Attrs().Name, nil
}

// relayPeer crosses a relay, which the daemon runs between two TAPs.
func (v *View) relayPeer(at trace.Place, d *datapath.Device) (string, string, error) {
	for _, p := range v.hints.ports {
		ns, device := v.hints.machine[0], p.Name
		switch {
		case at.Wire && p.Name == d.Name:
			ns, device = p.NetNS, p.Device
		case p.NetNS != at.Namespace || p.Device != d.Name:
			continue
		}
		if err := v.daemon.relayed(v.ctx, p.Name); err != nil {
			return "", "", fmt.Errorf("%s in %s is the end of a relayed wire: %w: %w", d.Name, at.Label, err, trace.ErrNoPeer)
		}
		v.note(fmt.Sprintf("%s of %s and port %s of the fabric are joined by a relay in slipwayd, which delays what goes to %s by %s", p.Device, p.Machine, p.Name, p.Machine, p.Delay))
		return ns, device, nil
	}
	return "", "", fmt.Errorf("%s in %s is a TAP that is no wire of the lab's: %w", d.Name, at.Label, trace.ErrNoPeer)
}
