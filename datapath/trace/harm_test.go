package trace_test

import (
	"fmt"
	"net/netip"
	"strings"

	"slipway/datapath"
)

// What the faults do.

func (n *planned) forwarding(label string, v int) {
	st := n.states[label]
	st.Sysctls["net/ipv4/ip_forward"] = fmt.Sprint(v)
	for i := range st.Devices {
		st.Devices[i].Conf.Forwarding = v
	}
}

// knows gives a place a neighbour entry.
func (n *planned) knows(label, dev string, a netip.Addr, mac string) {
	st := n.states[label]
	st.Neighbors = append(st.Neighbors, datapath.NeighborState{Dev: dev, Address: a, MAC: mac, State: "reachable"})
}

// dropRoutes takes a node's routes to the pods of another away.
func (n *planned) dropRoutes(label, to string) {
	st := n.states[label]
	var keep []datapath.FIBRoute
	for _, r := range st.Routes {
		ours := false
		for _, m := range n.snap.Nodes {
			ours = ours || m.Name == to && r.Table == 254 && (r.Dst == m.PodCIDR || len(m.Blocks) > 0 && r.Dst == m.Blocks[0])
		}
		if !ours {
			keep = append(keep, r)
		}
	}
	if len(keep) == len(st.Routes) {
		n.t.Fatalf("%s has no route to %s", label, to)
	}
	st.Routes = keep
}

func (n *planned) vtepMAC(label, of, mac string) {
	st := n.states[label]
	for _, m := range n.snap.Nodes {
		if m.Name != of {
			continue
		}
		for i := range st.Neighbors {
			if st.Neighbors[i].MAC == m.VTEPMAC {
				st.Neighbors[i].MAC = mac
			}
		}
		for i := range st.FDB {
			if st.FDB[i].MAC == m.VTEPMAC {
				st.FDB[i].MAC = mac
			}
		}
	}
}

func (n *planned) vxlan(label string) *datapath.VXLANAttrs {
	d := n.states[label].Device("flannel.1")
	own := *d.VXLAN
	d.VXLAN = &own
	return d.VXLAN
}

func (n *planned) dropMasquerade(label string) {
	var keep []string
	for line := range strings.Lines(n.states[label].RuleSave["nat"]) {
		if !strings.Contains(line, "MASQUERADE") {
			keep = append(keep, line)
		}
	}
	n.states[label].RuleSave["nat"] = strings.Join(keep, "")
}

// unplug removes a pod with both ends of its veth.
func (n *planned) unplug(pod string) {
	for end, far := range n.wires {
		label, dev, _ := strings.Cut(end, " ")
		if far[0] == "default/"+pod || label == "default/"+pod {
			delete(n.wires, end)
		}
		if far[0] == "default/"+pod {
			n.removeDevice(label, dev)
		}
	}
	for _, st := range n.states {
		for i := len(st.Devices) - 1; i > 0; i-- {
			if st.Devices[i].Master == "cni0" && n.wires[st.Namespace+" "+st.Devices[i].Name] == [2]string{} {
				n.removeDevice(st.Namespace, st.Devices[i].Name)
			}
		}
	}
}

func (n *planned) removeDevice(label, dev string) {
	st := n.states[label]
	for i := range st.Devices {
		if st.Devices[i].Name == dev {
			st.Devices = append(st.Devices[:i], st.Devices[i+1:]...)
			return
		}
	}
}
