package cluster

import (
	"fmt"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// controlPlane is the API and who works for it.
func (p *planner) controlPlane() (installer.Phase, error) {
	ph := installer.Phase{Title: "API server, controllers, scheduler",
		About: "The API server is the only one that speaks to etcd; all others watch the API and write what they decided. Of several controller managers and schedulers one leads, by a lease."}
	work, err := on(p.masters, p.master)
	if err != nil {
		return ph, err
	}
	ready, err := on(p.masters, func(n topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{
			installer.Wait{Name: "the API server is ready", Check: kubectl(n) + " get --raw /readyz", Until: 2 * time.Minute, Unit: "kube-apiserver.service"},
			installer.Wait{Name: "the controller manager is healthy", Check: "curl -skf https://127.0.0.1:10257/healthz", Until: time.Minute, Unit: "kube-controller-manager.service"},
			installer.Wait{Name: "the scheduler is healthy", Check: "curl -skf https://127.0.0.1:10259/healthz", Until: time.Minute, Unit: "kube-scheduler.service"},
		}, nil
	})
	if err != nil {
		return ph, err
	}
	endpoint, err := p.reachable()
	ph.Steps = []installer.Step{
		{Name: "units", Why: "One program, kubernetes, under the names of its parts: they share its pages in memory.", Work: work},
		{Name: "health", Why: "Ready means: etcd answers, and the API has read what it needs at its start.", Work: ready},
		endpoint,
	}
	return ph, err
}

func kubectl(topology.NodeState) string {
	// What it learns of the API is not for root's home, and an API that takes a
	// question and does not answer it is to be asked again.
	return fmt.Sprintf("%s/kubectl --cache-dir %s --kubeconfig %s/admin.conf --request-timeout 30s", binDir, installer.CacheDir, etcDir)
}

func (p *planner) master(n topology.NodeState) ([]installer.Item, error) {
	var items []installer.Item
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"} {
		it, err := p.program(name, "kubernetes")
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	values := map[string]any{
		"Address": address(n), "Port": apiPort, "PKI": pkiDir, "Etc": etcDir, "Domain": Domain,
		"Etcd":        p.etcdServers(n),
		"ServiceCIDR": p.Snapshot.Network.ServiceCIDR, "PodCIDR": p.Snapshot.Network.PodCIDR, "NodePorts": p.Snapshot.Proxy.NodePorts,
		"Subnets": p.Snapshot.Network.Mode.IsFlannel(), "NodePrefix": p.Snapshot.Network.NodePrefixLength, "Cluster": p.Cluster.Metadata.Name, "LeaderElect": len(p.masters) > 1,
		"Plugins": pluginDir.Path,
	}
	text, err := render("authentication.yaml", values)
	if err != nil {
		return nil, err
	}
	who := installer.File{Path: etcDir + "/authentication.yaml", Mode: 0o644, Content: text}
	config := func(name string) installer.Item { return installer.File{Path: etcDir + "/" + name} }
	reads := map[string][]installer.Item{
		"kube-apiserver.service":          append(p.files(n, "ca.", "apiserver", "front-proxy", "sa.", "etcd/ca"), items[0], who, config("encryption.yaml")),
		"kube-controller-manager.service": append(p.files(n, "ca.", "front-proxy", "sa.key"), items[1], config("controller-manager.conf")),
		"kube-scheduler.service":          {items[2], config("scheduler.conf")},
	}
	items = append(items, who, pluginDir)
	for _, name := range []string{"kube-apiserver.service", "kube-controller-manager.service", "kube-scheduler.service"} {
		u, err := service(name, values, reads[name]...)
		if err != nil {
			return nil, err
		}
		items = append(items, u)
	}
	return items, nil
}

// etcdServers puts a master's own member first.
func (p *planner) etcdServers(n topology.NodeState) string {
	members := p.members
	if p.isMember(n) {
		members = append([]topology.NodeState{n}, members...)
	}
	seen := map[string]bool{}
	var out []topology.NodeState
	for _, m := range members {
		if !seen[m.Name] {
			seen[m.Name] = true
			out = append(out, m)
		}
	}
	return join(out, ",", func(m topology.NodeState) string { return url(address(m), etcdClientPort) })
}
