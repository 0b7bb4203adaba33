package cluster

import (
	"fmt"
	"path"
	"time"

	"slipway/installer"
	"slipway/topology"
)

const slipwayDir = "/etc/slipway"

// agents are the nodes that run the network's agent.
func (p *planner) agents() []topology.NodeState {
	if !p.full() {
		return nil
	}
	return p.datapath()
}

// network connects the pods of all nodes.
func (p *planner) network() (installer.Phase, error) {
	ph := installer.Phase{Title: "The pods' network",
		About: "On each node a plugin, which gives a pod its interface and address, and an agent, which leads packets for other nodes' pods there. The plugin's configuration comes last: it is what makes a node ready."}
	if len(p.agents()) == 0 {
		return ph, nil
	}
	agent, plugin := p.agent, configured
	if p.Cluster.Spec.Network.Implementation == topology.ImplementationUpstream {
		agent, plugin = p.flannel, p.flannelPlugin
	}
	if p.upstreamCalico() {
		agent, plugin = p.calico, p.calicoPlugin
	}
	work, err := on(p.agents(), agent)
	if err != nil {
		return ph, err
	}
	last, err := on(p.agents(), plugin)
	if err == nil && p.upstreamCalico() {
		ph.Steps, err = p.calicoObjects()
	}
	ph.Steps = append(ph.Steps, []installer.Step{
		{Name: "agent", Why: "It follows the nodes in the API, and nobody tells it anything else.", Work: work},
		{Name: "plugin", Why: "The runtime looks for the plugin's configuration, and plugs no pod in before it is there.", Work: last},
	}...)
	return ph, err
}

// configured is that our agent has told the runtime.
func configured(topology.NodeState) ([]installer.Item, error) {
	return []installer.Item{installer.Wait{
		Name:  "the runtime knows the network",
		Check: fmt.Sprintf("ls %s/*.conflist || { echo 'the agent has written no configuration: journalctl -u %s'; exit 1; }", cniConf, agentUnit), Until: time.Minute,
	}}, nil
}

// cleanUp fails if something stays, so that undoing ends there and is begun again
// there. A program or a configuration that somebody has spoilt (2, 126, 127) does not
// hold it up.
const cleanUp = `code=0
timeout 120 %s agent cleanup --local --config %s >/dev/null || code=$?
case $code in 0 | 2 | 126 | 127) ;; *) exit $code ;; esac`

const agentUnit = "slipway-agent.service"

// agent is slipway's own.
func (p *planner) agent(n topology.NodeState) ([]installer.Item, error) {
	cluster, err := p.clusterFile()
	if err != nil {
		return nil, err
	}
	program, err := p.program("slipway", "slipway")
	if err != nil {
		return nil, err
	}
	items := []installer.Item{program}
	plugins, err := p.plugins("slipway", "host-local", "loopback", "portmap")
	if err != nil {
		return nil, err
	}
	items = append(items, plugins...)
	file := installer.File{Path: slipwayDir + "/cluster.yaml", Mode: 0o644, Content: cluster}
	text, err := render("agent.yaml", map[string]any{"Name": n.Name, "Cluster": file.Path, "Etc": etcDir, "CNIConf": cniConf})
	if err != nil {
		return nil, err
	}
	config := installer.File{Path: slipwayDir + "/agent.yaml", Mode: 0o644, Content: text}
	unit, err := service(agentUnit, map[string]any{"Config": config.Path}, program, file, config, installer.File{Path: etcDir + "/agent.conf"})
	return append(items, file, config, installer.Action{
		Name:  "what the agent makes can go",
		Check: "test -e " + config.Path,
		Do:    ":",
		Back:  fmt.Sprintf(cleanUp, program.Path, config.Path),
	}, unit), err
}

// clusterFile is the cluster file as agents read it, which is no matter of
// workloads.
func (p *planner) clusterFile() ([]byte, error) {
	c := *p.Cluster
	c.Spec.Manifests, c.Spec.Programs = nil, nil
	return c.Marshal()
}

// plugins are programs that the runtime calls.
func (p *planner) plugins(names ...string) (out []installer.Item, err error) {
	for _, name := range names {
		it, err := p.program(name, name)
		if err != nil {
			return nil, err
		}
		it.Path = path.Join(cniBin, name)
		out = append(out, it)
	}
	return out, nil
}
