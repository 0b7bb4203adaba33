package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// BlocksAnnotation is a node's blocks of pod addresses in the calico modes, with
// commas between them: what spec.podCIDR is in the others.
const BlocksAnnotation = "slipway/blocks"

const (
	manifestDir = etcDir + "/slipway"
	nodesDir    = manifestDir + "/nodes"
	rolePrefix  = "node-role.kubernetes.io/"
)

// nodes makes machines into nodes of the cluster.
func (p *planner) nodes() (installer.Phase, error) {
	ph := installer.Phase{Title: "Nodes and their rules for services",
		About: "The API gets to know each node, with the range that its pods have their addresses from. kube-proxy watches services and endpoints and writes the rules by which the kernel balances: no packet passes through it."}
	if p.full() {
		ph.About += " kubelet has the containers run that the API wants on its node, and tells the API how they are."
	}
	leases, err := p.leases()
	if err != nil {
		return ph, err
	}
	kubelets, err := on(p.kubelets(), p.kubelet)
	if err != nil {
		return ph, err
	}
	proxies, err := on(p.datapath(), p.proxy)
	if err != nil {
		return ph, err
	}
	joined, err := on(p.kubelets(), func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{
			installer.Wait{Name: "kubelet has a certificate from the API", Check: "test -s " + etcDir + "/kubelet.conf || { echo 'nobody has approved or signed its request: kubectl get csr'; exit 1; }", Until: 2 * time.Minute, Unit: "kubelet.service"},
			installer.Wait{Name: "kubelet is healthy", Check: "curl -sSf http://127.0.0.1:10248/healthz", Until: 2 * time.Minute, Unit: "kubelet.service"},
		}, nil
	})
	if err != nil {
		return ph, err
	}
	ready, err := on(p.datapath(), func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "kube-proxy has written its rules", Check: "curl -sSf http://127.0.0.1:10256/healthz", Until: 2 * time.Minute, Unit: "kube-proxy.service"}}, nil
	})
	if err != nil {
		return ph, err
	}
	ph.Steps = []installer.Step{{Name: "leases", Why: "Written down once, from one master: a node keeps the range that it was given.", Work: leases}}
	if p.full() {
		ph.Steps = append(ph.Steps, installer.Step{Name: "kubelet", Why: "It joins with a token that all nodes share, and gets a certificate that is its own.", Work: kubelets})
	}
	ph.Steps = append(ph.Steps, installer.Step{Name: "kube-proxy", Why: "On every machine that pods or services are reached through.", Work: proxies})
	if p.full() {
		ph.Steps = append(ph.Steps, installer.Step{Name: "joined", Why: "The controller manager approves what a node may ask for, and signs it.", Work: joined})
	}
	ph.Steps = append(ph.Steps, installer.Step{Name: "rules", Why: "Healthy means that the rules are in the kernel.", Work: ready})
	return ph, nil
}

// leases registers the nodes. One that the API knows with a lease already stays
// as it is.
func (p *planner) leases() ([]installer.Work, error) {
	first := p.masters[0]
	work := installer.Work{Host: first.Name}
	var names []string
	for _, n := range p.datapath() {
		text, err := p.nodeManifest(n)
		if err != nil {
			return nil, err
		}
		work.Items = append(work.Items, installer.File{Path: nodesDir + "/" + n.Name + ".yaml", Mode: 0o644, Content: text})
		names = append(names, n.Name)
	}
	lease := "[0-9]" // the second word of a line below: a subnet
	if p.Snapshot.Network.Mode.IsCalico() {
		lease = "[^ ]* [0-9]" // the third: blocks
	}
	list := fmt.Sprintf("list=$(%s get nodes -o jsonpath='{range .items[*]}{.metadata.name} {.spec.podCIDR} {.metadata.annotations.%s}{\"\\n\"}{end}')", kubectl(first), BlocksAnnotation)
	each := "for n in " + strings.Join(names, " ") + "; do"
	work.Items = append(work.Items, installer.Action{
		Name:  "the API knows the nodes and their pod addresses",
		Check: fmt.Sprintf("%s && %s printf '%%s\\n' \"$list\" | grep -q \"^$n %s\" || exit 1; done", list, each, lease),
		Do: fmt.Sprintf(`%[1]s
new=
%[2]s
	if ! printf '%%s\n' "$list" | grep -q "^$n "; then
		new="$new -f %[3]s/$n.yaml"
	elif ! printf '%%s\n' "$list" | grep -q "^$n %[4]s"; then
		%[5]s patch node "$n" --type merge --patch-file "%[3]s/$n.yaml"
	fi
done
[ -z "$new" ] || %[5]s create $new`, list, each, nodesDir, lease, kubectl(first)),
	})
	return []installer.Work{work}, nil
}

// nodeManifest is a node as it is registered.
func (p *planner) nodeManifest(n topology.NodeState) ([]byte, error) {
	var blocks, taints []string
	for _, b := range n.Blocks {
		blocks = append(blocks, b.String())
	}
	// Where nobody is there to run pods, all do.
	if !n.RunsPods() && slices.ContainsFunc(p.Snapshot.Nodes, func(o topology.NodeState) bool { return o.RunsPods() }) {
		for _, r := range n.Roles {
			taints = append(taints, rolePrefix+string(r))
		}
	}
	net := p.Cluster.Spec.Network
	return render("node.yaml", map[string]any{
		"Name": n.Name, "Address": address(n), "Labels": n.Labels, "Taints": taints, "PodCIDR": n.PodCIDR,
		"Annotation": BlocksAnnotation, "Blocks": strings.Join(blocks, ","),
		"Flanneld": net.Implementation == topology.ImplementationUpstream && net.Mode.IsFlannel(),
	})
}

// proxy is kube-proxy on a node.
func (p *planner) proxy(n topology.NodeState) ([]installer.Item, error) {
	program, err := p.program("kube-proxy", "kubernetes")
	if err != nil {
		return nil, err
	}
	text, err := render("kube-proxy.yaml", map[string]any{
		"Name": n.Name, "Mode": p.Snapshot.Proxy.Mode, "PodCIDR": p.Snapshot.Network.PodCIDR, "Etc": etcDir, "Shared": p.Facts[n.Name].Shared,
	})
	if err != nil {
		return nil, err
	}
	config := installer.File{Path: etcDir + "/kube-proxy.yaml", Mode: 0o644, Content: text}
	unit, err := service("kube-proxy.service", map[string]any{"Etc": etcDir}, program, config, installer.File{Path: etcDir + "/kube-proxy.conf"})
	return []installer.Item{program, config, unit}, err
}
