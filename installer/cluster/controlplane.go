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
			installer.Wait{Name: "the API server is ready", Check: kubectl(n) + " get --raw /readyz", Until: 2 * time.Minute},
			installer.Wait{Name: "the controller manager is healthy", Check: "curl -skf https://127.0.0.1:10257/healthz", Until: time.Minute},
			installer.Wait{Name: "the scheduler is healthy", Check: "curl -skf https://127.0.0.1:10259/healthz", Until: time.Minute},
		}, nil
	})
	ph.Steps = []installer.Step{
		{Name: "units", Why: "One program, kubernetes, under the names of its parts: they share its pages in memory.", Work: work},
		{Name: "health", Why: "Ready means: etcd answers, and the API has read what it needs at its start.", Work: ready},
	}
	return ph, err
}

func kubectl(topology.NodeState) string {
	return fmt.Sprintf("%s/kubectl --kubeconfig %s/admin.conf", binDir, etcDir)
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
		"NodePrefix": p.Snapshot.Network.NodePrefixLength, "Cluster": p.Cluster.Metadata.Name, "LeaderElect": len(p.masters) > 1,
	}
	config := func(name string) installer.Item { return installer.File{Path: etcDir + "/" + name} }
	reads := map[string][]installer.Item{
		"kube-apiserver.service":          append(p.files(n, "ca.", "apiserver", "front-proxy", "sa.", "etcd/ca"), items[0]),
		"kube-controller-manager.service": append(p.files(n, "ca.", "front-proxy", "sa.key"), items[1], config("controller-manager.conf")),
		"kube-scheduler.service":          {items[2], config("scheduler.conf")},
	}
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

// bootstrap gives the cluster's parts the rights that they need beyond the
// built-in ones.
func (p *planner) bootstrap() (installer.Phase, error) {
	ph := installer.Phase{Title: "Rights of nodes and components",
		About: "RBAC: nodes may ask for certificates and get them approved, the API may reach kubelets."}
	manifest, err := render("rbac.yaml", map[string]any{})
	if err != nil {
		return ph, err
	}
	first := p.masters[0]
	file := installer.File{Path: etcDir + "/slipway/rbac.yaml", Mode: 0o644, Content: manifest}
	ph.Steps = []installer.Step{{Name: "rbac", Why: "Applied once, through the API, from one master.", Work: []installer.Work{{Host: first.Name, Items: []installer.Item{
		file,
		installer.Action{
			Name:  "rights are as in " + file.Path,
			Check: fmt.Sprintf("%s diff -f %s", kubectl(first), file.Path),
			Do:    fmt.Sprintf("%s apply -f %s", kubectl(first), file.Path),
		},
	}}}}}
	return ph, nil
}

// proxy is kube-proxy on every node.
func (p *planner) proxy() (installer.Phase, error) {
	ph := installer.Phase{Title: "kube-proxy",
		About: "Watches services and endpoints and writes the rules by which the kernel balances: no packet passes through it."}
	work, err := on(p.workers, func(n topology.NodeState) ([]installer.Item, error) {
		program, err := p.program("kube-proxy", "kubernetes")
		if err != nil {
			return nil, err
		}
		text, err := render("kube-proxy.yaml", map[string]any{"Name": n.Name, "Mode": p.Snapshot.Proxy.Mode, "PodCIDR": p.Snapshot.Network.PodCIDR, "Etc": etcDir})
		if err != nil {
			return nil, err
		}
		config := installer.File{Path: etcDir + "/kube-proxy.yaml", Mode: 0o644, Content: text}
		unit, err := service("kube-proxy.service", map[string]any{"Etc": etcDir}, program, config, installer.File{Path: etcDir + "/kube-proxy.conf"})
		return []installer.Item{program, config, unit}, err
	})
	if err != nil {
		return ph, err
	}
	ready, err := on(p.workers, func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "kube-proxy has written its rules", Check: "curl -sf http://127.0.0.1:10256/healthz", Until: time.Minute}}, nil
	})
	ph.Steps = []installer.Step{
		{Name: "units", Why: "On every node that has pods.", Work: work},
		{Name: "health", Why: "Healthy means that the rules are in the kernel.", Work: ready},
	}
	return ph, err
}
