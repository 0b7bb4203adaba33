package facts

import (
	"net/netip"
	"slices"
	"strings"
)

// Resolver is a file as resolv.conf(5).
type Resolver struct {
	Path    string       `json:"path"`
	Servers []netip.Addr `json:"servers,omitempty"`
}

// ResolvConf is the first file with a name server that a pod reaches as well, as
// programs on the machine do: what listens on the machine's own loopback, as
// systemd-resolved's stub 127.0.0.53, a pod does not reach, and CoreDNS that asked
// there would ask itself. It is empty where there is none. Facts that say nothing of
// name servers know no better than /etc/resolv.conf.
func (f Facts) ResolvConf() string {
	if len(f.Resolvers) == 0 {
		return "/etc/resolv.conf"
	}
	for _, r := range f.Resolvers {
		if slices.ContainsFunc(r.Servers, func(a netip.Addr) bool { return !a.IsLoopback() && !a.IsUnspecified() }) {
			return r.Path
		}
	}
	return ""
}

// readResolver reads a file of name servers, and which those are.
func readResolver(r *reading, v []string) error {
	found := Resolver{Path: v[0]}
	for _, s := range strings.Fields(v[1]) {
		if a, err := netip.ParseAddr(s); err == nil {
			found.Servers = append(found.Servers, a)
		}
	}
	r.f.Resolvers = append(r.f.Resolvers, found)
	return nil
}
