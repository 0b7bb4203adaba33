package cluster

import (
	"fmt"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// Calico's own places.
const (
	calicoDir    = "/etc/calico"
	confdDir     = calicoDir + "/confd"
	confdOut     = confdDir + "/config" // where upstream's confd writes
	birdDir      = calicoDir + "/bird"  // and what BIRD 2 makes of it
	birdSocket   = "/run/calico-bird/bird.ctl"
	translate    = calicoDir + "/bird2"
	calicoLease  = "/var/lib/calico/nodename" // upstream's startup writes it last of all
	calicoConfig = calicoDir + "/calico.env"
	felixUnit    = "calico-felix.service"
	confdUnit    = "calico-confd.service"
	birdUnit     = "calico-bird.service"
)

// upstreamCalico reports whether calico's own programs make the network.
func (p *planner) upstreamCalico() bool {
	n := p.Cluster.Spec.Network
	return n.Implementation == topology.ImplementationUpstream && n.Mode.IsCalico()
}

// calicoObjects are the kinds of calico's objects and those that all nodes need.
func (p *planner) calicoObjects() ([]installer.Step, error) {
	kinds, err := p.program("calico-crds.yaml", "calico-crds.yaml")
	if err != nil {
		return nil, err
	}
	kinds.Path = manifestDir + "/calico-crds.yaml"
	net := p.Snapshot.Network
	text, err := render("calico.yaml", map[string]any{"ASN": net.BGP.ASN, "Peers": net.BGP.Peers})
	return []installer.Step{
		{Name: "kinds", Why: "Calico keeps what it knows in the API, as objects of its own kinds.", Work: []installer.Work{{
			Host: p.masters[0].Name, Items: []installer.Item{kinds, p.appliedFile(kinds.Path)},
		}}},
		{Name: "rights", Why: "Its programs show the certificate of the node's agent, and may do what upstream's manifest lets them.", Work: p.applied("calico.yaml", text)},
	}, err
}

// calico is upstream's felix, confd and BIRD on a node.
func (p *planner) calico(n topology.NodeState) ([]installer.Item, error) {
	var items []installer.Item
	for _, name := range []string{"calico-startup", "calico-felix", "calico-confd"} {
		it, err := p.program(name, "calico-node")
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	plugins, err := p.calicoPlugins()
	if err != nil {
		return nil, err
	}
	items = append(items, plugins...)
	net := p.Snapshot.Network
	values := map[string]any{
		"Name": n.Name, "Address": n.Interface.Prefix, "Etc": etcDir, "PodCIDR": net.PodCIDR, "BlockLength": topology.CalicoBlockLength,
		"Env": calicoConfig, "From": confdOut, "To": birdDir, "Config": birdDir + "/bird.cfg", "Socket": birdSocket,
	}
	text, err := render("calico.env", values)
	if err != nil {
		return nil, err
	}
	env := installer.File{Path: calicoConfig, Mode: 0o644, Content: text}
	templates, err := p.confdTemplates(values)
	if err != nil {
		return nil, err
	}
	items = append(append(items, env), templates...)
	kubeconfig := installer.File{Path: etcDir + "/agent.conf"}
	for _, unit := range []string{felixUnit, confdUnit, birdUnit} {
		reads := append([]installer.Item{env, kubeconfig}, items[:3]...)
		switch unit {
		case confdUnit:
			reads = append(reads, templates...)
		case birdUnit:
			reads = nil // confd tells it
		}
		u, err := service(unit, values, reads...)
		if err != nil {
			return nil, err
		}
		if unit == felixUnit {
			items = append(items, calicoTraces)
		}
		items = append(items, u)
	}
	return items, nil
}

// calicoPlugins are what the runtime calls.
func (p *planner) calicoPlugins() ([]installer.Item, error) {
	out, err := p.plugins("loopback", "portmap")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"calico", "calico-ipam"} {
		it, err := p.program(name, "calico-node")
		if err != nil {
			return nil, err
		}
		it.Path = cniBin + "/" + name
		out = append(out, it)
	}
	return out, nil
}

// confdTemplates are upstream's, what calls for them, and the way to BIRD 2.
func (p *planner) confdTemplates(values map[string]any) ([]installer.Item, error) {
	text, err := render("calico-bird2", values)
	if err != nil {
		return nil, err
	}
	items := []installer.Item{
		installer.Directory{Path: confdOut, Mode: 0o755, Data: true}, installer.Directory{Path: birdDir, Mode: 0o755, Data: true},
		installer.File{Path: translate, Mode: 0o755, Content: text},
	}
	for _, t := range []struct {
		name, prefix string
		keys         []string
	}{
		{"bird", "/calico/", []string{"/bgp/v1/host", "/bgp/v1/global", "/resources/v3/projectcalico.org/bgpfilters"}},
		{"bird_aggr", "/calico/", []string{"/bgp/v1/host", "/bgp/v1/global", "/ipam/v2/host//NODENAME/ipv4/block", "/staticroutes"}},
		{"bird_ipam", "/calico", []string{"/v1/ipam/v4/pool", "/bgp/v1/host//NODENAME", "/bgp/v1/global/svc_loadbalancer_ips", "/staticroutes", "/rejectcidrs"}},
	} {
		it, err := p.program(t.name, t.name+".cfg.template")
		if err != nil {
			return nil, err
		}
		it.Path = confdDir + "/templates/" + t.name + ".cfg.template"
		text, err := render("calico-confd.toml", map[string]any{"File": t.name, "Dest": confdOut, "Prefix": t.prefix, "Keys": t.keys, "Reload": translate})
		if err != nil {
			return nil, err
		}
		items = append(items, it, installer.File{Path: confdDir + "/conf.d/" + t.name + ".toml", Mode: 0o644, Content: text})
	}
	return items, nil
}

// calicoTraces stay when felix and BIRD end: upstream leaves pods connected.
var calicoTraces = installer.Action{
	Name:  "what calico makes can go",
	Check: "test -x " + binDir + "/calico-felix",
	Do:    ":",
	Back: `ip route flush proto bird 2>/dev/null || true
for t in raw mangle nat filter; do
	iptables-save -t $t | grep -q cali- || continue
	iptables-save -t $t | grep -v cali- | iptables-restore -T $t
done
ipset list -n 2>/dev/null | grep '^cali40' | while read -r s; do ipset destroy "$s" || true; done
umount /run/calico/bpffs 2>/dev/null || true # felix mounts one where the machine has none
rm -rf /run/calico /run/calico-bird /var/lib/calico /var/log/calico ` + birdDir + `.new ` + birdDir + `.lock`,
}

// calicoPlugin is the runtime's configuration, which has to wait for felix: the
// plugin wants to know from it which node this is.
func (p *planner) calicoPlugin(n topology.NodeState) ([]installer.Item, error) {
	text, err := render("10-calico.conflist", map[string]any{"Name": n.Name, "MTU": int(p.Snapshot.Network.MTU), "Etc": etcDir})
	return []installer.Item{
		installer.Wait{Name: "calico knows the node", Check: fmt.Sprintf("test -s %s || { echo 'no %[1]s: journalctl -u %s'; exit 1; }", calicoLease, felixUnit), Until: time.Minute},
		installer.Wait{Name: "felix is ready", Check: "curl -sSf http://127.0.0.1:9099/readiness", Until: time.Minute},
		installer.Wait{Name: "BIRD runs", Check: fmt.Sprintf("birdc -s %s show status || { echo 'journalctl -u %s -u %s'; exit 1; }", birdSocket, confdUnit, birdUnit), Until: time.Minute},
		installer.File{Path: cniConf + "/10-calico.conflist", Mode: 0o644, Content: text},
	}, err
}
