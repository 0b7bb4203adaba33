package linux

import (
	"fmt"
	"strings"

	"slipway/datapath"
)

// pods compares the host ends of the pods' veths. These changes are the CNI
// plugin's to make.
func (s *steps) pods(st datapath.KernelState) {
	links := map[string]datapath.LinkState{}
	for _, l := range st.Links {
		links[l.Name] = l
	}
	hostRoutes := map[string][]datapath.Route{}
	for _, r := range st.Routes {
		if isPodRoute(r) {
			hostRoutes[r.Dev] = append(hostRoutes[r.Dev], r)
		}
	}
	wanted := map[string]bool{}
	for _, p := range s.cfg.PodPorts {
		wanted[p.HostIf] = true
		l, ok := links[p.HostIf]
		if !ok {
			s.pod(datapath.Add, p.Commands()[0], "")
			continue
		}
		s.podLink(p, l)
		if p.Bridge == "" {
			s.podRoute(p, hostRoutes[p.HostIf])
		}
	}
	for _, l := range st.Links {
		if isPodPort(l) && !wanted[l.Name] {
			s.pod(datapath.Remove, "ip link delete "+l.Name, l.Name)
		}
	}
}

func (s *steps) pod(action datapath.ChangeAction, command, was string) {
	s.add(stagePod, action, "pod", command, was, nil)
}

func (s *steps) podLink(p datapath.PodPort, l datapath.LinkState) {
	set := "ip link set " + p.HostIf + " "
	if p.MTU != 0 && l.MTU != p.MTU {
		s.pod(datapath.Update, fmt.Sprintf("%smtu %d", set, p.MTU), fmt.Sprintf("mtu %d", l.MTU))
	}
	if p.HostMAC != "" && !strings.EqualFold(p.HostMAC, l.MAC) {
		s.pod(datapath.Update, set+"address "+p.HostMAC, "address "+l.MAC)
	}
	if p.Bridge != l.Master {
		command := set + "master " + p.Bridge
		if p.Bridge == "" {
			command = set + "nomaster"
		}
		s.pod(datapath.Update, command, "master "+l.Master)
	}
	if p.Bridge != "" && p.Bridge == l.Master && p.Hairpin != l.Hairpin {
		s.pod(datapath.Update, fmt.Sprintf("bridge link set dev %s hairpin %s", p.HostIf, onOff(p.Hairpin)), "hairpin "+onOff(l.Hairpin))
	}
	if !l.Up {
		s.pod(datapath.Update, set+"up", "down")
	}
}

// podRoute compares the host routes through a pod's interface with the one
// that is wanted.
func (s *steps) podRoute(p datapath.PodPort, routes []datapath.Route) {
	found := false
	for _, r := range routes {
		if r.Dst.Addr() == p.Address.Addr() && r.LinkScope && !r.Via.IsValid() {
			found = true
			continue
		}
		s.pod(datapath.Remove, "ip route delete "+r.String(), r.String())
	}
	if !found {
		s.pod(datapath.Add, fmt.Sprintf("ip route replace %s dev %s scope link", p.Address.Addr(), p.HostIf), "")
	}
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}
