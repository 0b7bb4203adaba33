package remote

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/topology"
)

// Network puts what was seen on hosts together: the hosts' and their pods'
// namespaces under the names that a lab's would have, and between hosts a wire for
// each subnet that they share. st names the cluster, its nodes and its pods.
func Network(st *lab.State, seen map[string]*Seen) (*trace.Recorded, error) {
	j := joiner{st: st, out: &trace.Recorded{
		Places: map[string]trace.Place{}, States: map[string]*datapath.NetState{}, Peers: map[string]trace.PeerEnd{}, Unread: map[string]string{},
	}, wires: map[netip.Prefix]*wire{}}
	for _, host := range ordered.Keys(seen) {
		if err := j.add(host, seen[host]); err != nil {
			return nil, err
		}
	}
	for _, n := range st.Snapshot.Nodes {
		name := lab.NSOfMachine(st.Lab, n.Name)
		if seen[n.Name] == nil {
			j.out.Places[name] = trace.Place{Label: n.Name, Node: n.Name, Namespace: name}
			j.out.Unread[name] = "the host could not be reached"
		}
	}
	j.join()
	return j.out, nil
}

type joiner struct {
	st    *lab.State
	out   *trace.Recorded
	wires map[netip.Prefix]*wire
}

// add takes one host in.
func (j *joiner) add(host string, s *Seen) error {
	names := map[uint64]string{}
	for inode, sp := range s.Spaces {
		names[inode] = j.name(host, s, inode, sp)
	}
	root := s.Spaces[s.Root]
	if root == nil {
		return fmt.Errorf("%s: the agent has not seen the host itself", host)
	}
	for inode, sp := range s.Spaces {
		name := names[inode]
		if sp.State == nil {
			j.out.Unread[name] = sp.Error
			continue
		}
		sp.State.Namespace = name
		j.out.States[name] = sp.State
		for dev, end := range sp.Peers {
			j.out.Peers[trace.PeerKey(name, dev)] = trace.PeerEnd{Namespace: names[end.Space], Device: end.Device}
		}
		for i := range sp.State.Devices {
			d := &sp.State.Devices[i]
			if _, known := sp.Peers[d.Name]; known {
				continue
			}
			if inode == s.Root && leadsOut(d) {
				j.plug(host, name, root.State, d)
				continue
			}
			j.out.Peers[trace.PeerKey(name, d.Name)] = trace.PeerEnd{None: fmt.Sprintf("where %s of %s leads was not seen", d.Name, j.out.Places[name].Label)}
		}
	}
	if root.State != nil {
		return j.addTunnels(host, root.State)
	}
	return nil
}

// name is what a namespace is called: as that of the node, of the pod that has one
// of its addresses, or by its number.
func (j *joiner) name(host string, s *Seen, inode uint64, sp *spaceOf) string {
	name, p := "", trace.Place{Node: host}
	switch pod := j.podIn(host, sp); {
	case inode == s.Root:
		name, p.Label = lab.NSOfMachine(j.st.Lab, host), host
	case pod != nil:
		name, p.Label, p.Pod = lab.NSOfPod(j.st.Lab, pod.Key()), pod.Key(), true
	default:
		p.Label = fmt.Sprintf("%s/net:[%d]", host, inode)
		name = lab.NSOfMachine(j.st.Lab, host) + fmt.Sprintf(".net-%d", inode)
	}
	p.Namespace = name
	j.out.Places[name] = p
	return name
}

func (j *joiner) podIn(host string, sp *spaceOf) *topology.Pod {
	if sp.State == nil {
		return nil
	}
	pods := j.st.Snapshot.Pods
	i := slices.IndexFunc(pods, func(p topology.Pod) bool {
		return p.Node == host && slices.ContainsFunc(sp.State.Devices, func(d datapath.Device) bool {
			return slices.ContainsFunc(d.Addresses, func(a netip.Prefix) bool { return a.Addr() == p.Address })
		})
	})
	if i < 0 {
		return nil
	}
	return &pods[i]
}

// leadsOut reports whether what a device sends leaves the machine, as far as that
// can be told: it is a machine's own device, or, where the machine is a container,
// one end of a pair whose other end is nowhere to be seen.
func leadsOut(d *datapath.Device) bool {
	switch d.Kind {
	case "loopback", "bridge", "vxlan", "tun", "tap", "ipip", "dummy", "ipvlan", "macvlan", "bond", "vlan", "wireguard", "gre", "sit":
		return false
	}
	return true
}

// addTunnels says which tunnels a node has that its kernel does not know of.
func (j *joiner) addTunnels(host string, st *datapath.NetState) error {
	n, ok := j.st.Snapshot.NodeByName(host)
	if !ok || !n.InDatapath() {
		return nil
	}
	udp, ipip, err := lab.PlannedTunnels(j.st, host)
	if err != nil {
		return err
	}
	if udp != nil {
		out := &datapath.UDPTunnelState{UDPTunnel: *udp}
		switch d := st.Device(udp.Device); {
		case d == nil:
			out.Problem = "there is no " + udp.Device
		case udp.Implementation == topology.UDPeBPF && !programmed(st, udp.Device, "slipway-udp"):
			out.Problem = udp.Device + " has no BPF programs"
		case d.Up && !d.Carrier:
			out.Problem = "no process has " + udp.Device + " open"
		default:
			out.Running = true
		}
		st.UDPTunnel = out
	}
	if ipip != nil {
		out := &datapath.IPIPState{IPIPTunnel: *ipip}
		switch d := st.Device(ipip.Device); {
		case d == nil:
			out.Problem = "there is no " + ipip.Device
		case ipip.Implementation == topology.IPIPKernel && d.Kind != "ipip":
			out.Problem = fmt.Sprintf("%s is a %s device, not an ipip one", ipip.Device, d.Kind)
		case ipip.Implementation == topology.IPIPeBPF && !programmed(st, ipip.Device, "slipway-ipip"):
			out.Problem = ipip.Device + " has no BPF programs"
		}
		out.Attached = out.Problem == ""
		st.IPIP = out
	}
	return nil
}

func programmed(st *datapath.NetState, device, prefix string) bool {
	d := st.Device(device)
	return slices.ContainsFunc(d.Egress, func(p string) bool { return strings.HasPrefix(p, prefix) })
}
