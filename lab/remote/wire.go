package remote

import (
	"fmt"
	"net/netip"
	"slices"

	"slipway/datapath"
	"slipway/datapath/hostview"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/lab"
)

type spaceOf = hostview.Space

// wire is a subnet that hosts share: a switch of which nothing is known but who is
// on it.
type wire struct {
	subnet netip.Prefix
	ends   []wireEnd
}

type wireEnd struct {
	host, namespace, device string
	mtu                     int
}

// elsewhere is the port behind which everything is that was not looked at.
const elsewhere = "elsewhere"

// plug puts a host's device on the wire of its subnet; on none if it has no address,
// and its bridge has none.
func (j *joiner) plug(host, namespace string, st *datapath.NetState, d *datapath.Device) {
	with := d
	for with.Master != "" && len(with.Addresses) == 0 {
		next := st.Device(with.Master)
		if next == nil || next.Name == with.Name {
			break
		}
		with = next
	}
	for _, a := range with.Addresses {
		if !a.Addr().Is4() || a.Bits() == a.Addr().BitLen() {
			continue
		}
		w := j.wires[a.Masked()]
		if w == nil {
			w = &wire{subnet: a.Masked()}
			j.wires[w.subnet] = w
		}
		w.ends = append(w.ends, wireEnd{host, namespace, d.Name, d.MTU})
		return
	}
	j.out.Peers[trace.PeerKey(namespace, d.Name)] = trace.PeerEnd{None: fmt.Sprintf("%s of %s has no address: which network it is in is not known", d.Name, host)}
}

// join makes a namespace with a bridge for each wire. It has learnt nothing: a frame
// goes to the host that has its MAC, or, if none has it, elsewhere, which nobody
// can follow.
func (j *joiner) join() {
	subnets := make([]netip.Prefix, 0, len(j.wires))
	for p := range j.wires {
		subnets = append(subnets, p)
	}
	slices.SortFunc(subnets, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for i, p := range subnets {
		w := j.wires[p]
		name := lab.FabricNS(j.st.Lab)
		if i > 0 {
			name = fmt.Sprintf("%s-%d", name, i)
		}
		j.out.Places[name] = trace.Place{Label: "network " + p.String(), Namespace: name, Wire: true}
		st := &datapath.NetState{Namespace: name, Devices: []datapath.Device{{Name: "wire", Index: 1, Kind: "bridge", MAC: portMAC(i, 0), Up: true, Carrier: true, PeerNSID: -1}}}
		add := func(port string) {
			st.Devices = append(st.Devices, datapath.Device{
				Name: port, Index: len(st.Devices) + 1, Kind: "veth", MAC: portMAC(i, len(st.Devices)), Up: true, Carrier: true, Master: "wire", PeerNSID: -1,
				Port: &datapath.BridgePort{State: "forwarding", Learning: true, Flood: true},
			})
		}
		for _, e := range w.ends {
			port := e.host
			if e.device != "eth0" {
				port += "-" + e.device
			}
			add(port)
			j.out.Peers[trace.PeerKey(name, port)] = trace.PeerEnd{Namespace: e.namespace, Device: e.device}
			j.out.Peers[trace.PeerKey(e.namespace, e.device)] = trace.PeerEnd{Namespace: name, Device: port}
		}
		add(elsewhere)
		j.out.Peers[trace.PeerKey(name, elsewhere)] = trace.PeerEnd{None: "no host that was looked at"}
		j.out.States[name] = st
	}
	j.out.Notes = append(j.out.Notes, "what lies between hosts was not looked at: it is taken to be one wire for each subnet")
}

// portMAC is one that no device has: nobody sends to a switch's port.
func portMAC(wire, port int) string {
	return fmt.Sprintf("02:00:00:%02x:%02x:%02x", byte(wire), byte(port>>8), byte(port))
}

// Clocks says how far hosts' clocks are off, for people.
func Clocks(seen map[string]*Seen) []string {
	var out []string
	for _, host := range ordered.Keys(seen) {
		if s := seen[host]; s.Ahead.Abs() > s.Within {
			out = append(out, fmt.Sprintf("the clock of %s is ahead by %s, to %s", host, s.Ahead.Round(1e6), s.Within.Round(1e6)))
		}
	}
	return out
}
