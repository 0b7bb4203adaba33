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
	work, err := on(p.members, func(n topology.NodeState) ([]installer.Item, error) {
		server, err := p.program("etcd", "etcd")
		if err != nil {
			return nil, err
		}
		client, err := p.program("etcdctl", "etcdctl")
		if err != nil {
			return nil, err
		}
		unit, err := service("etcd.service", map[string]any{
			"Name": n.Name, "Address": address(n), "ClientPort": etcdClientPort, "PeerPort": etcdPeerPort, "Data": etcdData, "PKI": pkiDir,
			"Members": join(p.members, ",", func(m topology.NodeState) string { return m.Name + "=" + url(address(m), etcdPeerPort) }),
			"Token":   p.Cluster.Metadata.Name,
		}, append(p.files(n, "etcd/"), server)...)
		return []installer.Item{server, client, installer.Directory{Path: etcdData, Mode: 0o700, Data: true}, unit}, err
	})
	if err != nil {
		return ph, err
	}
	healthy, err := on(p.members, func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "the member is healthy", Check: etcdctl + " endpoint health", Until: time.Minute}}, nil
	})
	ph.Steps = []installer.Step{
		{Name: "members", Why: "All members start together: the first election needs more than half of them.", Work: work},
		{Name: "health", Why: "A member is healthy when it can write, which takes the others, too.", Work: healthy},
	}
	return ph, err
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
