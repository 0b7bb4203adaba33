package tracer

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath/trace"
	"slipway/lab"
	"slipway/topology"
)

// NameError says that an end of a trace cannot be what was written.
type NameError struct {
	Name string // as it was written
	Why  string
	Hint string
}

// Error says why.
func (e *NameError) Error() string { return fmt.Sprintf("%q: %s", e.Name, e.Why) }

// source finds where a packet is to be sent from.
func source(st *lab.State, name string) (*lab.Target, trace.Endpoint, error) {
	t, err := lab.Resolve(st, name)
	if err != nil {
		return nil, trace.Endpoint{}, err
	}
	if t.Fabric() {
		return nil, trace.Endpoint{}, &NameError{name, "only switches frames and sends none of its own", "trace from a node, a pod or external"}
	}
	return t, endpointOf(t), nil
}

func endpointOf(t *lab.Target) trace.Endpoint {
	e := trace.Endpoint{Node: t.Node, Address: t.Address, Name: t.Label}
	if t.Pod != nil {
		e.Pod = t.Pod.Key()
	}
	return e
}

// wanted is a destination as it was asked for.
type wanted struct {
	host  string
	port  string // number or name; empty: not said
	proto string // empty: not said
}

// splitDestination takes DST[:PORT] apart.
func splitDestination(s, proto string) (wanted, error) {
	w := wanted{host: s, proto: strings.ToLower(proto)}
	if _, err := netip.ParseAddr(s); err == nil {
		return w, nil // an IPv6 address has colons of its own
	}
	if host, port, ok := strings.Cut(s, ":"); ok {
		w.host, w.port = host, port
		if port == "" {
			return w, &NameError{s, "the port after the colon is missing", ""}
		}
	}
	if w.host == "" {
		return w, &NameError{s, "there is no destination", ""}
	}
	if n, err := strconv.Atoi(w.port); err == nil && (n < 1 || n > 65535) {
		return w, &NameError{s, "a port is 1 to 65535", ""}
	}
	return w, nil
}

// destination finds what a packet is to be sent to.
func destination(st *lab.State, s, proto string) (trace.Endpoint, error) {
	w, err := splitDestination(s, proto)
	if err != nil {
		return trace.Endpoint{}, err
	}
	if a, err := netip.ParseAddr(w.host); err == nil {
		return w.toAddress(st.Snapshot, a)
	}
	for _, find := range []func(*lab.State) (trace.Endpoint, bool, error){w.toNamedService, w.toTarget, w.toService} {
		if e, ok, err := find(st); ok || err != nil {
			return e, err
		}
	}
	_, err = lab.Resolve(st, w.host)
	return trace.Endpoint{}, fmt.Errorf("%w; nor is there a service of that name", err)
}

// toAddress annotates an address with what has it.
func (w wanted) toAddress(s *topology.Snapshot, a netip.Addr) (trace.Endpoint, error) {
	if !a.Is4() {
		return trace.Endpoint{}, &NameError{w.host, "IPv6 is not traced", ""}
	}
	e := trace.Endpoint{Address: a, Name: w.host}
	for _, v := range s.Services {
		if v.ClusterIP == a || slices.Contains(v.ExternalIPs, a) || slices.Contains(v.LoadBalancerIPs, a) {
			e.Service = v.Key()
			return w.servicePort(e, v)
		}
	}
	for _, p := range s.Pods {
		if p.Address == a {
			e.Pod, e.Node = p.Key(), p.Node
			return w.podPort(e, p)
		}
	}
	for _, n := range s.Nodes {
		if n.Address == a || n.TunnelAddress == a {
			e.Node = n.Name
		}
	}
	return w.plainPort(e, s)
}

// toNamedService takes the forms that can only be a service.
func (w wanted) toNamedService(st *lab.State) (trace.Endpoint, bool, error) {
	for _, prefix := range []string{"svc/", "service/", "services/"} {
		if name, ok := strings.CutPrefix(w.host, prefix); ok {
			v, found := serviceByName(st.Snapshot, name)
			if !found {
				return trace.Endpoint{}, true, &NameError{w.host, "no such service", "`slipway get services` lists them"}
			}
			e, err := w.service(st, v)
			return e, true, err
		}
	}
	return trace.Endpoint{}, false, nil
}

func (w wanted) toService(st *lab.State) (trace.Endpoint, bool, error) {
	if e, ok, err := w.toHeadlessPod(st); ok {
		return e, ok, err
	}
	v, found := serviceByName(st.Snapshot, w.host)
	if !found {
		return trace.Endpoint{}, false, nil
	}
	e, err := w.service(st, v)
	return e, true, err
}

// toTarget takes nodes and pods by their full names; a service may have a name
// that begins like a pod's.
func (w wanted) toTarget(st *lab.State) (trace.Endpoint, bool, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(w.host, "pod/"), "node/")
	t, err := lab.Resolve(st, host)
	if err != nil || (t.Pod != nil && host != t.Pod.Key() && host != t.Pod.Name && isService(st.Snapshot, host)) {
		return trace.Endpoint{}, false, nil //nolint:nilerr // the next way may find it
	}
	if t.Fabric() {
		return trace.Endpoint{}, true, &NameError{w.host, "only switches frames and has no address", ""}
	}
	e := endpointOf(t)
	if t.Pod != nil {
		e, err = w.podPort(e, *t.Pod)
		return e, true, err
	}
	e, err = w.plainPort(e, st.Snapshot)
	return e, true, err
}

func isService(s *topology.Snapshot, name string) bool {
	_, ok := serviceByName(s, name)
	return ok
}

const clusterDomain = "cluster.local"

// serviceByName takes NAME (in namespace default, else wherever it is alone),
// NAMESPACE/NAME, and the names that the cluster's DNS has: NAME.NAMESPACE,
// NAME.NAMESPACE.svc, NAME.NAMESPACE.svc.cluster.local.
func serviceByName(s *topology.Snapshot, name string) (topology.Service, bool) {
	name = strings.TrimSuffix(strings.TrimSuffix(name, "."), "."+clusterDomain)
	name = strings.TrimSuffix(name, ".svc")
	namespace := ""
	if ns, n, ok := strings.Cut(name, "/"); ok {
		namespace, name = ns, n
	} else if n, ns, ok := strings.Cut(name, "."); ok {
		namespace, name = ns, n
	}
	var found []topology.Service
	for _, v := range s.Services {
		if v.Name != name || (namespace != "" && v.Namespace != namespace) {
			continue
		}
		if v.Namespace == "default" {
			return v, true
		}
		found = append(found, v)
	}
	if len(found) != 1 {
		return topology.Service{}, false
	}
	return found[0], true
}

// service is the address that the cluster's DNS answers with.
func (w wanted) service(st *lab.State, v topology.Service) (trace.Endpoint, error) {
	e := trace.Endpoint{Service: v.Key(), Name: w.host, Address: v.ClusterIP}
	switch {
	case v.Type == topology.ExternalName:
		return e, &NameError{w.host, "is an ExternalName service: DNS answers with " + v.ExternalName + ", and no packet goes to the service itself", ""}
	case v.Headless || !v.ClusterIP.IsValid():
		return w.headless(st, v)
	}
	return w.servicePort(e, v)
}

// headless: DNS answers with the pods themselves, of which the first is taken.
func (w wanted) headless(st *lab.State, v topology.Service) (trace.Endpoint, error) {
	for _, p := range v.Ports {
		if len(p.Endpoints) == 0 {
			continue
		}
		end := p.Endpoints[0]
		e := trace.Endpoint{Service: v.Key(), Name: w.host, Address: end.Address, Node: end.Node, Pod: end.Pod}
		if w.port != "" {
			return w.plainPort(e, st.Snapshot)
		}
		e.Port, e.Protocol = uint16(end.Port), strings.ToLower(string(p.Protocol))
		return w.settle(e)
	}
	return trace.Endpoint{}, &NameError{w.host, "is headless and has no endpoints: DNS has no answer", ""}
}

// toHeadlessPod takes HOSTNAME.SERVICE.NAMESPACE[.svc…].
func (w wanted) toHeadlessPod(st *lab.State) (trace.Endpoint, bool, error) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(w.host, "."+clusterDomain), ".svc"), ".")
	if len(parts) != 3 {
		return trace.Endpoint{}, false, nil
	}
	for _, p := range st.Snapshot.Pods {
		if p.Hostname == parts[0] && p.Subdomain == parts[1] && p.Namespace == parts[2] {
			e, err := w.podPort(trace.Endpoint{Pod: p.Key(), Node: p.Node, Address: p.Address, Name: w.host, Service: parts[2] + "/" + parts[1]}, p)
			return e, true, err
		}
	}
	return trace.Endpoint{}, false, nil
}

// servicePort settles port and protocol by the service's ports.
func (w wanted) servicePort(e trace.Endpoint, v topology.Service) (trace.Endpoint, error) {
	if w.proto == "icmp" {
		return w.settle(e)
	}
	var names []string
	for _, p := range v.Ports {
		proto := strings.ToLower(string(p.Protocol))
		names = append(names, fmt.Sprintf("%d/%s", p.Port, proto))
		fits := w.port == "" || w.port == strconv.Itoa(p.Port) || w.port == p.Name
		if fits && (w.proto == "" || w.proto == proto) {
			e.Port, e.Protocol = uint16(p.Port), proto
			return w.settle(e)
		}
	}
	if w.port == "" {
		return e, &NameError{w.host, fmt.Sprintf("service %s has no %s port, only %s", v.Key(), w.proto, strings.Join(names, ", ")), ""}
	}
	if _, err := strconv.Atoi(w.port); err != nil {
		return e, &NameError{w.host + ":" + w.port, fmt.Sprintf("service %s has no such port, only %s", v.Key(), strings.Join(names, ", ")), ""}
	}
	return w.numbered(e) // a port that the service does not have: what becomes of it is worth a trace
}

// podPort settles port and protocol by the pod's declared ports; a pod without
// any is pinged.
func (w wanted) podPort(e trace.Endpoint, p topology.Pod) (trace.Endpoint, error) {
	if w.port == "" && w.proto == "icmp" {
		return w.settle(e)
	}
	for _, c := range p.Ports {
		proto := strings.ToLower(string(c.Protocol))
		fits := w.port == "" || w.port == strconv.Itoa(c.Port) || w.port == c.Name
		if fits && (w.proto == "" || w.proto == proto) {
			e.Port, e.Protocol = uint16(c.Port), proto
			return w.settle(e)
		}
	}
	return w.numbered(e)
}

// plainPort is for what has no ports of its own: machines and other addresses.
func (w wanted) plainPort(e trace.Endpoint, s *topology.Snapshot) (trace.Endpoint, error) {
	if n, err := strconv.Atoi(w.port); err == nil && w.proto == "" {
		for _, v := range s.Services {
			for _, p := range v.Ports {
				if p.NodePort == n {
					e.Service, w.proto = v.Key(), strings.ToLower(string(p.Protocol))
				}
			}
		}
	}
	return w.numbered(e)
}

// numbered takes the port as a number; without any it is a ping.
func (w wanted) numbered(e trace.Endpoint) (trace.Endpoint, error) {
	if w.port == "" {
		if w.proto != "" && w.proto != "icmp" {
			return e, &NameError{w.host, w.proto + " needs a port: " + w.host + ":PORT", ""}
		}
		e.Protocol = "icmp"
		return w.settle(e)
	}
	n, err := strconv.Atoi(w.port)
	if err != nil {
		return e, &NameError{w.host + ":" + w.port, "has no port of that name", "`slipway get pods -o yaml` shows the ports"}
	}
	e.Port, e.Protocol = uint16(n), "tcp"
	return w.settle(e)
}

// settle lets what was asked for win.
func (w wanted) settle(e trace.Endpoint) (trace.Endpoint, error) {
	if w.proto != "" {
		e.Protocol = w.proto
	}
	if e.Protocol == "icmp" {
		if w.port != "" {
			return e, &NameError{w.host + ":" + w.port, "ICMP has no ports", "leave the port out, or choose --proto tcp or udp"}
		}
		e.Port = 0
	}
	return e, nil
}

// Ends finds what a trace's two ends mean, without looking at the lab: where its
// packet would be sent from, and the address, port and protocol that it would go to.
func Ends(st *lab.State, from, to, proto string) (*lab.Target, trace.Endpoint, error) {
	t, _, err := source(st, from)
	if err != nil {
		return nil, trace.Endpoint{}, err
	}
	e, err := destination(st, to, proto)
	return t, e, err
}
