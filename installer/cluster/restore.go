package cluster

import (
	"fmt"

	"slipway/installer"
	"slipway/topology"
)

// Members are the nodes that run etcd.
func Members(in Inputs) []topology.NodeState { return newPlanner(in).members }

// Masters are the nodes that run the control plane.
func Masters(in Inputs) []topology.NodeState { return newPlanner(in).masters }

// SaveSnapshot is the command by which a member writes its data into a file.
func SaveSnapshot(file string) string {
	return fmt.Sprintf("%s snapshot save %s >/dev/null", etcdctl, file)
}

// SnapshotStatus is the command that prints, as JSON, what a snapshot has.
func SnapshotStatus(file string) string {
	return fmt.Sprintf("%s/etcdutl snapshot status %s --write-out json", binDir, file)
}

// revisionBump is added to a restored cluster's revision: clients that saw newer
// ones than the snapshot has must not take what comes now for older (etcd's
// operations guide, "Restoring with revision bump").
const revisionBump = 1_000_000_000

// Restoration is a snapshot that becomes the data of all members.
type Restoration struct {
	ID   string // of this time: what was done for it is not done again
	File string // the snapshot, on the members
}

// before is where the members keep the data that they had.
const before = etcdData + "/before-restore"

// Restore puts a snapshot in the place of etcd's data on hosts that have what the
// phases up to 03 bring, as a new cluster of the same members. The phases from 04
// on start everything again. Nothing that runs is touched before all members
// have the new data beside the old.
func Restore(in Inputs, r Restoration) (installer.Plan, error) {
	p := newPlanner(in)
	fresh, marker := etcdData+"/restoring", etcdData+"/restored"
	swapped := fmt.Sprintf("grep -qxF %s %s", r.ID, marker)
	all := join(p.members, ",", func(m topology.NodeState) string { return m.Name + "=" + peerURL(m) })
	unpack, err := on(p.members, func(n topology.NodeState) ([]installer.Item, error) {
		items, err := p.membership(n)
		if err != nil {
			return nil, err
		}
		// With data there is no first start.
		items = items[:len(items)-1]
		return append(items, installer.Action{
			Name: "the snapshot is unpacked", Check: fmt.Sprintf("%s || grep -qxF %s %s/id", swapped, r.ID, fresh),
			Do: fmt.Sprintf(`rm -rf %[1]s
%[2]s/etcdutl snapshot restore %[3]s --data-dir %[1]s --name %[4]s --initial-cluster %[5]s --initial-advertise-peer-urls %[6]s --initial-cluster-token %[7]s-%[8]s --bump-revision %[9]d --mark-compacted >/dev/null
printf '%%s\n' %[8]s >%[1]s/id`, fresh, binDir, r.File, n.Name, all, peerURL(n), p.Cluster.Metadata.Name, r.ID, revisionBump),
		}), nil
	})
	if err != nil {
		return installer.Plan{}, err
	}
	api, err := on(p.masters, func(topology.NodeState) ([]installer.Item, error) {
		return stopped("kube-scheduler.service", "kube-controller-manager.service", "kube-apiserver.service"), nil
	})
	if err != nil {
		return installer.Plan{}, err
	}
	data, err := on(p.members, func(topology.NodeState) ([]installer.Item, error) {
		return append(stopped("etcd.service"), installer.Action{
			Name: "the data are the snapshot's", Check: swapped,
			Do: fmt.Sprintf(`rm -rf %[1]s
if [ -e %[2]s/member ]; then mv -T %[2]s/member %[1]s; fi
mv -T %[3]s/member %[2]s/member
mv %[3]s/id %[4]s
rm -rf %[3]s`, before, etcdData, fresh, marker),
		}), nil
	})
	return installer.Plan{Phases: []installer.Phase{{
		ID: "04-restore", Title: "etcd's data from a backup",
		About: "The members become a new cluster with the old content: a member of the old one that comes back late is nobody to them. Revisions go on far above those that anybody has seen.",
		Steps: []installer.Step{
			{Name: "unpack", Why: "Beside the data that is there: until now everything runs.", Work: unpack},
			{Name: "stop", Why: "What the API servers have in memory is no longer what etcd has.", Work: api},
			{Name: "exchange", Why: "The old data is kept in " + before + ".", Work: data},
		},
	}}}, err
}

// stopped are units that do not run, and do not try to.
func stopped(units ...string) (items []installer.Item) {
	for _, u := range units {
		items = append(items, installer.Action{
			Name: u + " does not run", Check: fmt.Sprintf("case $(systemctl is-active %s) in *activating | active | reloading) exit 1 ;; esac", u), Do: "systemctl stop " + u,
		})
	}
	return items
}

// JoinAgain lets nodes join that the API knows already: machines that were set up
// anew under their old names.
func JoinAgain(in Inputs) (installer.Phase, error) {
	p := newPlanner(in)
	t, err := p.PKI.BootstrapToken()
	if err != nil {
		return installer.Phase{}, err
	}
	item := p.token(t)
	item.Name, item.Check = "nodes can join again", kubectl(p.masters[0])+" --namespace kube-system get secret bootstrap-token-"+t.ID
	return installer.Phase{
		ID: "07-bootstrap", Title: "Rights of nodes and components",
		Steps: []installer.Step{{Name: "token", Why: "What a node shows before it has a certificate.", Work: []installer.Work{{Host: p.masters[0].Name, Items: []installer.Item{item}}}}},
	}, nil
}
