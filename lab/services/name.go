package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slipway/topology"
)

// NameError says that a name means no service or port, or several.
type NameError struct {
	Name       string
	What       string   // "service", or "port" of a service
	Candidates []string // what it may have meant
	Ambiguous  bool
}

// Error lists the candidates.
func (e *NameError) Error() string {
	said := fmt.Sprintf("no %s %q", e.What, e.Name)
	if e.Ambiguous {
		said = fmt.Sprintf("%s %q may be any of several", e.What, e.Name)
	}
	if e.Name == "" {
		said = "say which " + e.What
	}
	if len(e.Candidates) == 0 {
		return said + ", and there are none"
	}
	return said + "; there are " + strings.Join(e.Candidates, ", ")
}

// Found is a service and those of its ports that are meant.
type Found struct {
	Service topology.Service
	Ports   []topology.ServicePort
}

// Find reads NAME[:PORT], where NAME is a service as NAME (in namespace
// default, else wherever it is alone), NAMESPACE/NAME, NAME.NAMESPACE (and the
// rest of its DNS name), or its cluster IP, and PORT is a port's number, name or
// node port. Without PORT all ports are meant.
func Find(s *topology.Snapshot, name string) (Found, error) {
	rest, port, given := strings.Cut(name, ":")
	svc, err := find(s, rest)
	if err != nil {
		return Found{}, err
	}
	f := Found{Service: *svc, Ports: svc.Ports}
	if !given {
		return f, nil
	}
	// A number may be both a port of TCP and of UDP; "53/udp" tells them apart.
	number, proto, _ := strings.Cut(port, "/")
	f.Ports = slices.DeleteFunc(slices.Clone(svc.Ports), func(p topology.ServicePort) bool {
		ok := p.Name == number || strconv.Itoa(p.Port) == number || p.NodePort != 0 && strconv.Itoa(p.NodePort) == number
		return !ok || number == "" || proto != "" && !strings.EqualFold(proto, string(p.Protocol))
	})
	if len(f.Ports) == 0 {
		return Found{}, &NameError{Name: port, What: "port of " + svc.Key(), Candidates: portNames(svc.Ports)}
	}
	return f, nil
}

// OnePort is the only port that is meant.
func (f Found) OnePort() (topology.ServicePort, error) {
	switch len(f.Ports) {
	case 1:
		return f.Ports[0], nil
	case 0:
		return topology.ServicePort{}, &NameError{What: "port of " + f.Service.Key()}
	default:
		return topology.ServicePort{}, &NameError{What: "port of " + f.Service.Key(), Candidates: portNames(f.Ports)}
	}
}

func portNames(ports []topology.ServicePort) []string {
	var out []string
	for _, p := range ports {
		out = append(out, portLabel(p))
	}
	return out
}

// portLabel is "http (8080/tcp)".
func portLabel(p topology.ServicePort) string {
	number := fmt.Sprintf("%d/%s", p.Port, strings.ToLower(string(p.Protocol)))
	if p.Name == "" {
		return number
	}
	return p.Name + " (" + number + ")"
}

func find(s *topology.Snapshot, name string) (*topology.Service, error) {
	all := s.Services
	if a, err := netip.ParseAddr(name); err == nil {
		i := slices.IndexFunc(all, func(v topology.Service) bool {
			return v.ClusterIP == a || slices.Contains(v.ExternalIPs, a) || slices.Contains(v.LoadBalancerIPs, a)
		})
		if i < 0 {
			return nil, unknown(all, name)
		}
		return &all[i], nil
	}
	dns := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "."), ".cluster.local"), ".svc")
	for _, match := range []func(topology.Service) bool{
		func(v topology.Service) bool {
			return v.Key() == name || v.Name+"."+v.Namespace == dns || v.Namespace == "default" && v.Name == name
		},
		func(v topology.Service) bool { return v.Name == name },
	} {
		var found []int
		for i, v := range all {
			if match(v) {
				found = append(found, i)
			}
		}
		if len(found) == 1 {
			return &all[found[0]], nil
		}
		if len(found) > 1 {
			e := &NameError{Name: name, What: "service", Ambiguous: true}
			for _, i := range found {
				e.Candidates = append(e.Candidates, all[i].Key())
			}
			return nil, e
		}
	}
	return nil, unknown(all, name)
}

// maxCandidates bounds how many services an error lists.
const maxCandidates = 10

// unknown lists services whose names have something in common with what was
// asked for, all if none has.
func unknown(all []topology.Service, name string) error {
	var near, keys []string
	_, short, ok := strings.Cut(name, "/")
	if !ok {
		short = name
	}
	for _, v := range all {
		keys = append(keys, v.Key())
		if short != "" && (strings.Contains(v.Name, short) || strings.Contains(short, v.Name)) {
			near = append(near, v.Key())
		}
	}
	if len(near) > 0 {
		keys = near
	}
	if more := len(keys) - maxCandidates; more > 0 {
		keys = append(keys[:maxCandidates], fmt.Sprintf("%d more", more))
	}
	return &NameError{Name: name, What: "service", Candidates: keys}
}

// NoRulesError says that kube-proxy makes no rules for a kind of service.
type NoRulesError struct{ Service topology.Service }

// Error says what happens instead.
func (e *NoRulesError) Error() string {
	v := e.Service
	if v.Type == topology.ExternalName {
		return fmt.Sprintf("%s is of type ExternalName: kube-proxy has no rules for it, and it has no address; the cluster's DNS answers with a CNAME to %s, and the client goes there by itself", v.Key(), v.ExternalName)
	}
	n := 0
	for _, p := range v.Ports {
		n = max(n, len(p.Endpoints))
	}
	return fmt.Sprintf("%s is headless (clusterIP: None): kube-proxy has no rules for it; the cluster's DNS answers with the addresses of its %d endpoints, and the client connects to one of these itself, so that the choice is the client's", v.Key(), n)
}

// HasRules reports whether kube-proxy makes rules for the service at all.
func HasRules(v topology.Service) error {
	if v.Type == topology.ExternalName || v.Headless || !v.ClusterIP.IsValid() {
		return &NoRulesError{Service: v}
	}
	return nil
}
