package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/topology"
)

// copyObjects copies a snapshot as far as edits change it: services with their
// endpoints.
func copyObjects(s *topology.Snapshot) *topology.Snapshot {
	c := *s
	c.Services = slices.Clone(s.Services)
	for i := range c.Services {
		c.Services[i].Ports = slices.Clone(c.Services[i].Ports)
		for j := range c.Services[i].Ports {
			p := &c.Services[i].Ports[j]
			p.Endpoints = slices.Clone(p.Endpoints)
		}
	}
	return &c
}

// findPod finds a pod by "namespace/name", or by a name that only one pod has.
func findPod(s *topology.Snapshot, name string) (topology.Pod, error) {
	var found []topology.Pod
	for _, p := range s.Pods {
		if p.Key() == name || p.Name == name {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return topology.Pod{}, fmt.Errorf("there is no pod %q", name)
	}
	return topology.Pod{}, fmt.Errorf("pod %q is not one: %s and %s", name, found[0].Key(), found[1].Key())
}

// parseDeleteService reads what comes after "delete service".
func parseDeleteService(w *words) (Edit, error) {
	name, err := w.take("a service's name")
	if err != nil {
		return Edit{}, err
	}
	return Edit{note: replanned, objects: func(s *topology.Snapshot) error {
		var have, found []string
		for _, v := range s.Services {
			have = append(have, v.Key())
			if v.Key() == name || v.Name == name {
				found = append(found, v.Key())
			}
		}
		switch len(found) {
		case 0:
			return fmt.Errorf("there is no service %q; there are %s", name, strings.Join(have, ", "))
		case 1:
			s.Services = slices.DeleteFunc(s.Services, func(v topology.Service) bool { return v.Key() == found[0] })
			return nil
		}
		return fmt.Errorf("service %q is not one: %s", name, list(found))
	}}, nil
}

const replanned = "kube-proxy has written its rules anew on every node, as it would; connections that are tracked already keep their endpoint"

// parseDeleteEndpoint reads what comes after "delete endpoint".
func parseDeleteEndpoint(w *words) (Edit, error) {
	name, err := w.take("a pod or an address")
	if err != nil {
		return Edit{}, err
	}
	return Edit{note: replanned, objects: func(s *topology.Snapshot) error {
		is, err := endpointIs(s, name)
		if err != nil {
			return err
		}
		if removeEndpoints(s, is) == 0 {
			return fmt.Errorf("%s is no endpoint of any service", name)
		}
		return nil
	}}, nil
}

// endpointIs makes a test for the endpoints that a text means: an address, an
// address with a port, or a pod.
func endpointIs(s *topology.Snapshot, text string) (func(topology.Endpoint) bool, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return func(e topology.Endpoint) bool { return e.Address == a }, nil
	}
	if a, err := netip.ParseAddrPort(text); err == nil {
		return func(e topology.Endpoint) bool { return e.Address == a.Addr() && e.Port == int(a.Port()) }, nil
	}
	p, err := findPod(s, text)
	return func(e topology.Endpoint) bool { return e.Pod == p.Key() }, err
}

// removeEndpoints takes endpoints out of all services and counts them.
func removeEndpoints(s *topology.Snapshot, is func(topology.Endpoint) bool) int {
	n := 0
	for i := range s.Services {
		for j := range s.Services[i].Ports {
			p := &s.Services[i].Ports[j]
			was := len(p.Endpoints)
			p.Endpoints = slices.DeleteFunc(p.Endpoints, is)
			n += was - len(p.Endpoints)
		}
	}
	return n
}

// parseDeletePod reads what comes after "delete pod".
func parseDeletePod(w *words) (Edit, error) {
	name, err := w.take("a pod's name")
	if err != nil {
		return Edit{}, err
	}
	return Edit{
		note: replanned + "; nobody remembers the pod's MAC address any more",
		objects: func(s *topology.Snapshot) error {
			pod, err := findPod(s, name)
			if err == nil {
				removeEndpoints(s, func(e topology.Endpoint) bool { return e.Pod == pod.Key() })
			}
			return err
		},
		state: func(c *editing) error {
			pod, err := findPod(c.cluster, name)
			if err == nil {
				c.removePod(pod)
			}
			return err
		},
		// That only one pod has the name has been checked with the objects.
		gone: func(p Place) bool { return p.Pod && (p.Label == name || strings.HasSuffix(p.Label, "/"+name)) },
	}, nil
}

// removePod does what the CNI plugin's DEL does on the pod's node: the veth is
// gone, and with it all that leads to it.
func (c *editing) removePod(pod topology.Pod) {
	c.Neighbors = slices.DeleteFunc(c.Neighbors, func(n datapath.NeighborState) bool { return n.Address == pod.Address })
	if c.place.Label != pod.Node {
		return
	}
	for _, d := range slices.Clone(c.Devices) {
		if d.Kind != "veth" {
			continue
		}
		if far, _, ok := c.far(d.Name); !ok || !far.Pod || far.Label != pod.Key() {
			continue
		}
		c.forgetDevice(d.Name, func(datapath.FIBRoute) bool { return false })
		c.FDB = slices.DeleteFunc(c.FDB, func(f datapath.FDBState) bool { return f.Dev == d.Name })
		c.Devices = slices.DeleteFunc(c.Devices, func(o datapath.Device) bool { return o.Name == d.Name })
	}
}

// replan writes kube-proxy's rules of a node anew, as it would for the objects.
func replan(st *datapath.NetState, after topology.Snapshot, node string) error {
	set, err := kubeproxy.Plan(after, node, kubeproxy.DefaultOptions(after))
	if err != nil {
		return err
	}
	if set.NFT != nil {
		st.NFTPlanned = []datapath.NFTable{*set.NFT}
	}
	for _, t := range set.Tables {
		save, ok := st.RuleSave[t.Name]
		if !ok {
			continue // the kernel does not have the table: nothing looks at it
		}
		rs, err := parseTable(save)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
		rs.replace(t.Chains, t.Rules)
		st.RuleSave[t.Name] = rs.String()
	}
	return nil
}
