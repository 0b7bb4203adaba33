package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"slipway/installer"
	"slipway/topology"
)

const etcdData = "/var/lib/etcd"

// etcdctl is the command line with which a member is asked over TLS.
var etcdctl = fmt.Sprintf("%[1]s/etcdctl --cacert %[2]s/etcd/ca.crt --cert %[2]s/etcd/healthcheck-client.crt --key %[2]s/etcd/healthcheck-client.key --endpoints https://127.0.0.1:%[3]d", binDir, pkiDir, etcdClientPort)

// etcd is the database of the API: an odd number of members, of which more than
// half must live.
func (p *planner) etcd() (installer.Phase, error) {
	ph := installer.Phase{Title: "etcd, the cluster's memory",
		About: "Everything that the API knows is in etcd and nowhere else. Its members agree by Raft: of three one may fail, of five two."}
	before, err := on(p.members, p.membership)
	if err != nil {
		return ph, err
	}
	work, err := on(p.members, p.member)
	if err != nil {
		return ph, err
	}
	healthy, err := on(p.members, func(n topology.NodeState) ([]installer.Item, error) {
		var items []installer.Item
		if len(p.members) > 1 {
			items = append(items, p.votes(n))
		}
		return append(items, installer.Wait{Name: "the member is healthy", Check: etcdctl + p.patience() + " endpoint health", Until: time.Minute}), nil
	})
	ph.Steps = []installer.Step{
		{Name: "membership", Why: "The first members found the cluster together. One that comes later is made known to them before it starts, and has no vote until it has all the data.", Work: before},
		{Name: "members", Why: "All members start together: the first election needs more than half of them.", Work: work},
		{Name: "health", Why: "A member is healthy when it can write, which takes the others, too.", Work: healthy},
	}
	return ph, err
}

// member is the server on one machine.
func (p *planner) member(n topology.NodeState) ([]installer.Item, error) {
	server, err := p.program("etcd", "etcd")
	if err != nil {
		return nil, err
	}
	unit, err := service("etcd.service", map[string]any{
		"Intervals": p.intervals(), "Name": n.Name, "Address": address(n), "ClientPort": etcdClientPort, "PeerPort": etcdPeerPort, "Data": etcdData, "PKI": pkiDir, "First": etcdFirst,
	}, append(p.files(n, "etcd/"), server)...)
	return []installer.Item{server, unit}, err
}

// intervals are the flags of what the cluster file says otherwise than etcd itself.
func (p *planner) intervals() (flags []string) {
	heartbeat, election := p.Cluster.Spec.ControlPlane.Etcd.Intervals()
	if heartbeat != topology.DefaultEtcdHeartbeat {
		flags = append(flags, fmt.Sprintf("--heartbeat-interval=%d", heartbeat.Milliseconds()))
	}
	if election != topology.DefaultEtcdElection {
		flags = append(flags, fmt.Sprintf("--election-timeout=%d", election.Milliseconds()))
	}
	return flags
}

// ctlTimeout is how long etcdctl waits for an answer by itself (go.etcd.io/etcd
// etcdctl/ctlv3, defaultCommandTimeOut).
const ctlTimeout = 5 * time.Second

// patience is a flag of etcdctl where the cluster file says by its intervals that the
// machines are slow.
func (p *planner) patience() string {
	_, election := p.Cluster.Spec.ControlPlane.Etcd.Intervals()
	if most := 4 * time.Duration(election); most > ctlTimeout {
		return fmt.Sprintf(" --command-timeout %s", most)
	}
	return ""
}

// files are the certificates of a machine whose names begin with one of some
// prefixes, as inputs of a unit.
func (p *planner) files(n topology.NodeState, prefixes ...string) (out []installer.Item) {
	for _, name := range p.certificateNames(n) {
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			out = append(out, installer.File{Path: pkiDir + "/" + name})
		}
	}
	return out
}

func sorted(items []installer.Item) []installer.Item {
	slices.SortStableFunc(items, func(a, b installer.Item) int { return strings.Compare(order(a), order(b)) })
	return items
}

// order puts directories before what lies in them.
func order(it installer.Item) string {
	if _, ok := it.(installer.Directory); ok {
		return "0" + it.ID()
	}
	return "1" + it.ID()
}
