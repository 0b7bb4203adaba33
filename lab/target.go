package lab

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/topology"
)

// Target is a place in a lab where a command can run or a capture can listen.
type Target struct {
	Label    string // "node01", "default/client", "fabric"
	NetNS    string
	Node     string // the node it belongs to; itself for a node
	Hostname string
	Address  netip.Addr
	Pod      *topology.Pod // nil for machines
}

// TargetError says that a name fits nothing, or several things.
type TargetError struct {
	Name       string
	Candidates []string // what it may have meant
}

// Error lists the candidates.
func (e *TargetError) Error() string {
	if len(e.Candidates) == 0 {
		return fmt.Sprintf("no node or pod %q (`slipway get pods` and `slipway get nodes` list them)", e.Name)
	}
	return fmt.Sprintf("%q may be any of %s", e.Name, strings.Join(e.Candidates, ", "))
}

// Resolve finds what a name means: a node, router, "external" or "fabric"; a
// pod as NAME (in namespace default, else wherever it is alone) or
// NAMESPACE/NAME; "deploy/NAME", "sts/NAME", "ds/NAME" or "rs/NAME" for the
// first pod of a workload; or a pod's unambiguous prefix.
func Resolve(st *State, name string) (*Target, error) {
	if t := machineTarget(st, name); t != nil {
		return t, nil
	}
	pods := st.Snapshot.Pods
	if owner, ok := ownerOf(name); ok {
		if i := slices.IndexFunc(pods, func(p topology.Pod) bool { return p.Owner == owner }); i >= 0 {
			return podTarget(st, &pods[i]), nil
		}
		return nil, &TargetError{Name: name}
	}
	for _, match := range []func(topology.Pod) bool{
		func(p topology.Pod) bool { return p.Key() == name || (p.Namespace == "default" && p.Name == name) },
		func(p topology.Pod) bool { return p.Name == name },
		func(p topology.Pod) bool { return strings.HasPrefix(p.Name, name) || strings.HasPrefix(p.Key(), name) },
	} {
		found := indexes(pods, match)
		if len(found) == 1 {
			return podTarget(st, &pods[found[0]]), nil
		}
		if len(found) > 1 {
			e := &TargetError{Name: name}
			for _, i := range found {
				e.Candidates = append(e.Candidates, pods[i].Key())
			}
			return nil, e
		}
	}
	return nil, &TargetError{Name: name}
}

func indexes(pods []topology.Pod, match func(topology.Pod) bool) []int {
	var out []int
	for i, p := range pods {
		if match(p) {
			out = append(out, i)
		}
	}
	return out
}

// ownerOf translates kubectl's TYPE/NAME into a pod's owner.
func ownerOf(name string) (string, bool) {
	kind, rest, ok := strings.Cut(name, "/")
	if !ok {
		return "", false
	}
	long := map[string]string{
		"deploy": "Deployment", "deployment": "Deployment", "sts": "StatefulSet", "statefulset": "StatefulSet",
		"ds": "DaemonSet", "daemonset": "DaemonSet", "rs": "ReplicaSet", "replicaset": "ReplicaSet",
	}[kind]
	return long + "/" + rest, long != ""
}

func machineTarget(st *State, name string) *Target {
	t := &Target{Label: name, NetNS: NSOfMachine(st.Lab, name), Node: name, Hostname: name}
	if name == fabricName {
		return t
	}
	machines, err := machinesOf(st.Snapshot)
	if err != nil {
		return nil
	}
	for _, m := range machines {
		if m.name == name {
			t.Address = m.legs[0].Prefix.Addr()
			return t
		}
	}
	return nil
}

func podTarget(st *State, p *topology.Pod) *Target {
	host := p.Hostname
	if host == "" {
		host = p.Name
	}
	return &Target{Label: p.Key(), NetNS: NSOfPod(st.Lab, p.Key()), Node: p.Node, Hostname: host, Address: p.Address, Pod: p}
}

// Targets lists every place of a lab: machines first, then pods.
func Targets(st *State) ([]Target, error) {
	machines, err := machinesOf(st.Snapshot)
	if err != nil {
		return nil, err
	}
	var out []Target
	for _, m := range machines {
		out = append(out, *machineTarget(st, m.name))
	}
	out = append(out, *machineTarget(st, fabricName))
	for i := range st.Snapshot.Pods {
		out = append(out, *podTarget(st, &st.Snapshot.Pods[i]))
	}
	return out, nil
}

// ResolvConf is a target's /etc/resolv.conf: for pods what kubelet writes with
// dnsPolicy ClusterFirst (kubelet network/dns), for machines an empty one, as a
// lab has no other DNS.
func ResolvConf(st *State, t *Target) []byte {
	dns := st.Snapshot.ClusterDNS
	if !dns.IsValid() || t.Node == ExternalName || t.Node == fabricName {
		return []byte("# no DNS outside the cluster\n")
	}
	ns := "default"
	if t.Pod != nil {
		ns = t.Pod.Namespace
	}
	return fmt.Appendf(nil, "search %s.svc.cluster.local svc.cluster.local cluster.local\nnameserver %s\noptions ndots:5\n", ns, dns)
}

// Hosts is a target's /etc/hosts: for pods what kubelet writes
// (kubelet_pods.go, managedHostsFileContent), for machines all machines.
func Hosts(st *State, t *Target) []byte {
	out := []byte("# written by slipway\n127.0.0.1\tlocalhost\n")
	if t.Pod != nil {
		names := t.Hostname
		if s := t.Pod.Subdomain; s != "" {
			names = fmt.Sprintf("%s.%s.%s.svc.cluster.local\t%s", t.Hostname, s, t.Pod.Namespace, t.Hostname)
		}
		return fmt.Appendf(out, "%s\t%s\n", t.Address, names)
	}
	machines, err := machinesOf(st.Snapshot)
	if err != nil {
		return out
	}
	for _, m := range machines {
		out = fmt.Appendf(out, "%s\t%s\n", m.legs[0].Prefix.Addr(), m.name)
	}
	return out
}

// Fabric reports whether the target only switches frames.
func (t *Target) Fabric() bool {
	return t.Hostname == fabricName && t.Pod == nil && !t.Address.IsValid()
}
