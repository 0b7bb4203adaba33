package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/installer/pki"
	"slipway/topology"
)

// Where things lie on hosts; kubeadm's places.
const (
	etcDir = "/etc/kubernetes"
	pkiDir = etcDir + "/pki"
	binDir = "/usr/local/bin"
)

// Ports (https://kubernetes.io/docs/reference/networking/ports-and-protocols/).
const (
	apiPort        = 6443
	etcdClientPort = 2379
	etcdPeerPort   = 2380
)

// Domain is the cluster's, of service names.
const Domain = "cluster.local"

// Inputs is what a plan follows from.
type Inputs struct {
	Cluster  *topology.Cluster
	Snapshot *topology.Snapshot
	// PKI holds the certificates that [Certificates] asks for.
	PKI *pki.Store
	// Programs are the component binaries by name: "kubernetes", "etcd", "etcdctl".
	// One under the name that it has on the hosts, as "kubelet", goes before the one
	// that does what it is called.
	Programs map[string]installer.Blob
	// Images are archives for the container runtime, by the image's name.
	Images map[string]installer.Blob
	// Facts say what is special about machines, by name.
	Facts map[string]Facts
	// Manifests are applied in their order, last of all.
	Manifests []Manifest
	// PackageVersions are those of the system's packages, by Debian's names, that
	// are known to do.
	PackageVersions map[string]string
	// Ignore names checks that the first phase leaves out; see [CheckName].
	Ignore []string
}

// Facts are what a plan has to know of a machine beyond the cluster file.
type Facts struct {
	// Shared: the machine shares its kernel with others, as a lab's node and a
	// container do. Its components leave alone what belongs to all of the kernel.
	Shared bool
	// Lab: the machine is a lab's node, which reaches nothing outside.
	Lab      bool
	CgroupV1 bool
	// CgroupRoot is the group, from the hierarchies' top, below which pods have
	// theirs; empty is the top.
	CgroupRoot string
	// ResolvConf is the file with name servers that pods reach as well; empty is
	// /etc/resolv.conf. NoDNS: there are none.
	ResolvConf string
	NoDNS      bool
	// Managers of a machine's network that run there.
	NetworkManager, Networkd bool
}

// resolvConf is what kubelet makes pods' own of. An empty name is nothing to kubelet
// (KubeletConfiguration's resolvConf).
func (f Facts) resolvConf() string {
	switch {
	case f.NoDNS:
		return `""`
	case f.ResolvConf == "":
		return "/etc/resolv.conf"
	}
	return f.ResolvConf
}

// planner is one plan on its way.
type planner struct {
	Inputs
	masters, members, workers []topology.NodeState
}

// phases are an installation's parts, in order. One that has no steps is not
// a part of it.
var phases = []struct {
	id   string
	plan func(*planner) (installer.Phase, error)
}{
	{"00-preflight", (*planner).preflight},
	{"01-base", (*planner).base},
	{"02-runtime", (*planner).runtime},
	{"03-certificates", (*planner).certificates},
	{"04-etcd", (*planner).etcd},
	{"05-load-balancer", (*planner).loadBalancer},
	{"06-control-plane", (*planner).controlPlane},
	{"07-bootstrap", (*planner).bootstrap},
	{"08-nodes", (*planner).nodes},
	{"09-network", (*planner).network},
	{"10-dns", (*planner).dns},
	{"11-verify", (*planner).verify},
	{"20-addons", (*planner).addons},
}

// Plan is the whole installation, or those of its phases that are named, as
// "04-etcd" or "04". What only other phases need need not be there.
func Plan(in Inputs, only ...string) (installer.Plan, error) {
	p := newPlanner(in)
	var plan installer.Plan
	for _, ph := range phases {
		if len(only) > 0 && !slices.ContainsFunc(only, func(name string) bool { return name == ph.id || strings.HasPrefix(ph.id, name+"-") }) {
			continue
		}
		if len(p.masters) == 0 && ph.id >= "06" {
			return plan, fmt.Errorf("phase %s: no node has the role control-plane", ph.id)
		}
		phase, err := ph.plan(p)
		if err != nil {
			return plan, fmt.Errorf("phase %s: %w", ph.id, err)
		}
		if len(phase.Steps) == 0 { // this cluster has no use for it
			continue
		}
		if len(phase.Steps) == 0 {
			continue
		}
		phase.ID = ph.id
		plan.Phases = append(plan.Phases, phase)
	}
	return plan, nil
}

func newPlanner(in Inputs) *planner {
	p := &planner{Inputs: in}
	for _, n := range in.Snapshot.Nodes {
		if n.HasRole(topology.RoleControlPlane) {
			p.masters = append(p.masters, n)
		}
		if n.HasRole(topology.RoleEtcd) {
			p.members = append(p.members, n)
		}
		if n.HasRole(topology.RoleWorker) {
			p.workers = append(p.workers, n)
		}
	}
	if len(p.members) == 0 { // stacked: where nobody says otherwise, masters have it
		p.members = p.masters
	}
	return p
}

func address(n topology.NodeState) netip.Addr { return n.Interface.Prefix.Addr() }

func machine(n topology.NodeState) pki.Machine { return pki.Machine{Name: n.Name, Address: address(n)} }

func machines(nodes []topology.NodeState) (out []pki.Machine) {
	for _, n := range nodes {
		out = append(out, machine(n))
	}
	return out
}

// Certificates are what the cluster needs of the store.
func Certificates(in Inputs) []pki.Request {
	p := newPlanner(in)
	c := pki.Cluster{
		Domain: Domain, APIServices: []netip.Addr{in.Snapshot.Network.ServiceCIDR.Masked().Addr().Next()},
		Masters: machines(p.masters), Etcd: machines(p.members), Nodes: machines(p.kubelets()), Agents: machines(p.agents()),
	}
	if vip := in.Cluster.Spec.ControlPlane.LoadBalancer.VIP; vip.IsValid() {
		c.EndpointAddresses = append(c.EndpointAddresses, vip)
	}
	return c.Requests()
}

func url(a netip.Addr, port int) string {
	return "https://" + netip.AddrPortFrom(a, uint16(port)).String()
}

// program is the item of a program from the catalogue, under a name of its own; or
// of the one that was given under that name.
func (p *planner) program(name, from string) (installer.Program, error) {
	b, ok := p.Programs[name]
	if !ok {
		b, ok = p.Programs[from]
	}
	if !ok {
		return installer.Program{}, fmt.Errorf("program %s is not in the catalogue's cache (slipway components build)", from)
	}
	return installer.Program{Path: binDir + "/" + name, Blob: b}, nil
}

// on makes the work of several hosts.
func on(nodes []topology.NodeState, items func(n topology.NodeState) ([]installer.Item, error)) ([]installer.Work, error) {
	var out []installer.Work
	for _, n := range nodes {
		list, err := items(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", n.Name, err)
		}
		out = append(out, installer.Work{Host: n.Name, Items: list})
	}
	return out, nil
}

// allNodes are those that have any role.
func (p *planner) allNodes() []topology.NodeState {
	return slices.DeleteFunc(slices.Clone(p.Snapshot.Nodes), func(n topology.NodeState) bool { return len(n.Roles) == 0 })
}

// datapath are the nodes that carry pods and services.
func (p *planner) datapath() []topology.NodeState {
	return slices.DeleteFunc(slices.Clone(p.Snapshot.Nodes), func(n topology.NodeState) bool { return !n.InDatapath() })
}

// paths are where items lie, for a unit that reads them.
func paths(items []installer.Item) (out []string) {
	for _, it := range items {
		switch v := it.(type) {
		case installer.File:
			out = append(out, v.Path)
		case installer.Program:
			out = append(out, v.Path)
		}
	}
	return out
}

func join(nodes []topology.NodeState, sep string, f func(n topology.NodeState) string) string {
	var out []string
	for _, n := range nodes {
		out = append(out, f(n))
	}
	return strings.Join(out, sep)
}
