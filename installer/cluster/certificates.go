package cluster

import (
	"path"
	"slices"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// certificates puts on each machine what its own components need, and no key
// that they do not.
func (p *planner) certificates() (installer.Phase, error) {
	ph := installer.Phase{Title: "Certificates and kubeconfigs",
		About: "Three authorities: what the API signs means nothing to etcd. Each component has a key of its own; kubeconfigs say who a component is and where the API is."}
	work, err := on(p.allNodes(), func(n topology.NodeState) ([]installer.Item, error) {
		items := []installer.Item{installer.Directory{Path: etcDir, Mode: 0o755}, installer.Directory{Path: pkiDir, Mode: 0o700}}
		for _, name := range p.certificateNames(n) {
			f, err := p.certificateFile(n, name)
			if err != nil {
				return nil, err
			}
			items = append(items, f)
		}
		for file, who := range p.kubeconfigs(n) {
			f, err := p.kubeconfigFile(n, file, who)
			if err != nil {
				return nil, err
			}
			items = append(items, f)
		}
		if n.HasRole(topology.RoleControlPlane) {
			f, err := p.encryption()
			if err != nil {
				return nil, err
			}
			items = append(items, f)
		}
		if p.runsKubelet(n) {
			f, err := p.bootstrapKubeconfig()
			if err != nil {
				return nil, err
			}
			items = append(items, f)
		}
		return sorted(items), nil
	})
	ph.Steps = []installer.Step{{Name: "files", Why: "Keys can be read by root alone.", Work: work}}
	return ph, err
}

// certificateNames are the files that a machine needs, by their names in the store.
func (p *planner) certificateNames(n topology.NodeState) []string {
	out := []string{"ca.crt"}
	if p.isMember(n) {
		out = append(out, "etcd/ca.crt", "etcd/server.crt", "etcd/server.key", "etcd/peer.crt", "etcd/peer.key", "etcd/healthcheck-client.crt", "etcd/healthcheck-client.key")
	}
	if n.HasRole(topology.RoleControlPlane) {
		out = append(out, "ca.key", "etcd/ca.crt", "apiserver.crt", "apiserver.key", "apiserver-etcd-client.crt", "apiserver-etcd-client.key",
			"apiserver-kubelet-client.crt", "apiserver-kubelet-client.key", "front-proxy-ca.crt", "front-proxy-client.crt", "front-proxy-client.key", "sa.key", "sa.pub")
	}
	if p.runsKubelet(n) {
		out = append(out, "kubelet.crt", "kubelet.key")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (p *planner) runsKubelet(n topology.NodeState) bool { return named(p.kubelets(), n.Name) }

func (p *planner) runsAgent(n topology.NodeState) bool { return named(p.agents(), n.Name) }

func named(nodes []topology.NodeState, name string) bool {
	return slices.ContainsFunc(nodes, func(n topology.NodeState) bool { return n.Name == name })
}

func (p *planner) isMember(n topology.NodeState) bool { return named(p.members, n.Name) }

// ownFiles are those of which every machine has its own.
var ownFiles = []string{"apiserver.", "etcd/server.", "etcd/peer.", "kubelet."}

func (p *planner) certificateFile(n topology.NodeState, name string) (installer.File, error) {
	stored := name
	for _, own := range ownFiles {
		if strings.HasPrefix(name, own) {
			stored = n.Name + "/" + name
		}
	}
	data, err := p.PKI.File(stored)
	f := installer.File{Path: path.Join(pkiDir, name), Mode: 0o644, Content: data}
	if strings.HasSuffix(name, ".key") {
		f.Mode, f.Secret = 0o600, true
	}
	return f, err
}

// identity is who a kubeconfig makes its reader, and where it finds the API.
type identity struct{ user, certificate, server string }

// kubeconfigs are a machine's, by file name.
func (p *planner) kubeconfigs(n topology.NodeState) map[string]identity {
	out := map[string]identity{}
	if len(p.masters) == 0 { // etcd alone: nobody has an API to speak to
		return out
	}
	server := Endpoint(p.Inputs)
	if n.HasRole(topology.RoleControlPlane) {
		own := url(address(n), apiPort) // a master's components speak to the API beside them
		out["admin.conf"] = identity{"kubernetes-admin", "admin", own}
		out["controller-manager.conf"] = identity{"system:kube-controller-manager", "controller-manager", own}
		out["scheduler.conf"] = identity{"system:kube-scheduler", "scheduler", own}
	}
	if n.InDatapath() {
		out["kube-proxy.conf"] = identity{"system:kube-proxy", "kube-proxy", server}
	}
	if p.runsAgent(n) {
		out["agent.conf"] = identity{"slipway:agent:" + n.Name, n.Name + "/agent", server}
	}
	return out
}

func (p *planner) full() bool { return p.Cluster.Spec.Components == topology.ComponentsFull }

func (p *planner) kubeconfigFile(_ topology.NodeState, file string, who identity) (installer.File, error) {
	data, err := p.PKI.Kubeconfig(p.Cluster.Metadata.Name, who.server, who.user, who.certificate)
	return installer.File{Path: etcDir + "/" + file, Mode: 0o600, Content: data, Secret: true}, err
}

// encryptionConfig tells API servers with which key secrets lie in etcd.
const encryptionConfig = etcDir + "/encryption.yaml"

// encryption is the key with which API servers encrypt secrets.
func (p *planner) encryption() (installer.File, error) {
	key, err := p.PKI.EncryptionKey()
	if err != nil {
		return installer.File{}, err
	}
	text, err := render("encryption.yaml", map[string]any{"Key": key})
	return installer.File{Path: encryptionConfig, Mode: 0o600, Content: text, Secret: true}, err
}

// bootstrapKubeconfig is with what a node asks for its certificate.
func (p *planner) bootstrapKubeconfig() (installer.File, error) {
	t, err := p.PKI.BootstrapToken()
	if err != nil {
		return installer.File{}, err
	}
	data, err := p.PKI.TokenKubeconfig(p.Cluster.Metadata.Name, Endpoint(p.Inputs), "tls-bootstrap-token-user", t)
	return installer.File{Path: etcDir + "/bootstrap-kubelet.conf", Mode: 0o600, Content: data, Secret: true}, err
}
