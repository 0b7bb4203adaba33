package pki

import (
	"fmt"
	"net/netip"
	"slices"
)

// The authorities. Each signs for one trust: an etcd client is nobody to the
// API server.
const (
	KubernetesCA = "ca"
	EtcdCA       = "etcd/ca"
	FrontProxyCA = "front-proxy-ca"
)

// AdminGroup may do everything (k8s.io/apiserver pkg/authentication/user, SystemPrivilegedGroup).
const AdminGroup = "system:masters"

// Usage is what a certificate may be used for.
type Usage int

// The usages.
const (
	Client Usage = 1 << iota
	Server
)

// Request is a certificate that somebody needs.
type Request struct {
	// Name is the path of its files without suffix, "etcd/server". Host is the
	// machine that it belongs to; empty for one that all who need it share.
	Name, Host    string
	Authority     string
	CommonName    string
	Organizations []string
	DNSNames      []string
	Addresses     []netip.Addr
	Usage         Usage
}

// Machine is a name and an address.
type Machine struct {
	Name    string
	Address netip.Addr
}

// Cluster is what certificates have to name.
type Cluster struct {
	Domain string // of services: "cluster.local"
	// APIServices are the addresses of the service kubernetes.default: the first
	// of each service range.
	APIServices []netip.Addr
	Masters     []Machine
	Etcd        []Machine
	Nodes       []Machine // that run kubelet
	Agents      []Machine // that run the network's agent
	// Endpoints are further names and addresses of the API: a load balancer's.
	EndpointNames     []string
	EndpointAddresses []netip.Addr
}

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// Requests are all certificates of a cluster.
func (c Cluster) Requests() []Request {
	out := []Request{
		{Name: "apiserver-kubelet-client", Authority: KubernetesCA, CommonName: "kube-apiserver-kubelet-client", Organizations: []string{AdminGroup}, Usage: Client},
		{Name: "apiserver-etcd-client", Authority: EtcdCA, CommonName: "kube-apiserver-etcd-client", Usage: Client},
		{Name: "front-proxy-client", Authority: FrontProxyCA, CommonName: "front-proxy-client", Usage: Client},
		{Name: "etcd/healthcheck-client", Authority: EtcdCA, CommonName: "kube-etcd-healthcheck-client", Usage: Client},
		{Name: "admin", Authority: KubernetesCA, CommonName: "kubernetes-admin", Organizations: []string{AdminGroup}, Usage: Client},
		{Name: "controller-manager", Authority: KubernetesCA, CommonName: "system:kube-controller-manager", Usage: Client},
		{Name: "scheduler", Authority: KubernetesCA, CommonName: "system:kube-scheduler", Usage: Client},
		{Name: "kube-proxy", Authority: KubernetesCA, CommonName: "system:kube-proxy", Usage: Client},
	}
	for _, m := range c.Masters {
		out = append(out, c.apiserver(m))
	}
	for _, m := range c.Etcd {
		out = append(out, etcdMember("etcd/server", m), etcdMember("etcd/peer", m))
	}
	for _, n := range c.Nodes {
		out = append(out, kubelet(n))
	}
	for _, n := range c.Agents {
		out = append(out, agent(n))
	}
	return out
}

// apiserver is the serving certificate of one API server: by every name that a
// client may have dialled.
func (c Cluster) apiserver(m Machine) Request {
	names := []string{m.Name, "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.Domain}
	addresses := append([]netip.Addr{m.Address, loopback}, c.APIServices...)
	return Request{
		Name: "apiserver", Host: m.Name, Authority: KubernetesCA, CommonName: "kube-apiserver", Usage: Server,
		DNSNames: unique(append(names, c.EndpointNames...)), Addresses: unique(append(addresses, c.EndpointAddresses...)),
	}
}

// etcdMember serves and connects with the same certificate: peers do both, and
// the server's gateway dials itself.
func etcdMember(name string, m Machine) Request {
	return Request{
		Name: name, Host: m.Name, Authority: EtcdCA, CommonName: m.Name, Usage: Client | Server,
		DNSNames: unique([]string{m.Name, "localhost"}), Addresses: unique([]netip.Addr{m.Address, loopback}),
	}
}

// kubelet is what a node serves with: logs and exec go there. As a client it
// has another, which it asks for itself. (Name and group as for those that
// kubelets ask for: k8s.io/kubernetes pkg/apis/certificates, ValidateKubeletServingCSR.)
func kubelet(n Machine) Request {
	return Request{
		Name: "kubelet", Host: n.Name, Authority: KubernetesCA, CommonName: "system:node:" + n.Name, Organizations: []string{"system:nodes"},
		Usage: Server, DNSNames: []string{n.Name}, Addresses: []netip.Addr{n.Address},
	}
}

// AgentGroup are the agents that look after nodes' networks.
const AgentGroup = "slipway:agents"

// agent is a node's network agent towards the API.
func agent(n Machine) Request {
	return Request{Name: "agent", Host: n.Name, Authority: KubernetesCA, CommonName: "slipway:agent:" + n.Name, Organizations: []string{AgentGroup}, Usage: Client}
}

func unique[T comparable](in []T) (out []T) {
	for _, v := range in {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// Key identifies a request within a cluster: it is the path of its files in the store.
func (r Request) Key() string {
	if r.Host == "" {
		return r.Name
	}
	return r.Host + "/" + r.Name
}

func (r Request) check() error {
	switch {
	case r.Name == "" || r.CommonName == "":
		return fmt.Errorf("certificate %q of %q lacks a name", r.Name, r.CommonName)
	case r.Usage == 0:
		return fmt.Errorf("certificate %s is for nothing: neither client nor server", r.Key())
	case r.Usage&Server != 0 && len(r.DNSNames)+len(r.Addresses) == 0:
		return fmt.Errorf("certificate %s of a server has no name to be reached by", r.Key())
	}
	return nil
}
