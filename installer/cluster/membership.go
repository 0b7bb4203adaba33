package cluster

import (
	"fmt"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// etcdFirst says with whom a member starts for the first time. It is no input of
// the unit: who comes and goes later is in the data, and starts nobody again.
const etcdFirst = etcDir + "/etcd.env"

// etcdTLS is what a client shows, for curl and by the names that etcdctl has.
var (
	etcdTLS  = fmt.Sprintf("--cacert %[1]s/etcd/ca.crt --cert %[1]s/etcd/healthcheck-client.crt --key %[1]s/etcd/healthcheck-client.key", pkiDir)
	etcdAsks = binDir + "/etcdctl " + etcdTLS + " --command-timeout 10s"
)

// others are the client URLs of all members but one.
func (p *planner) others(n topology.NodeState) (out []string) {
	for _, m := range p.members {
		if m.Name != n.Name {
			out = append(out, url(address(m), etcdClientPort))
		}
	}
	return out
}

func peerURL(n topology.NodeState) string { return url(address(n), etcdPeerPort) }

// membership is what a member needs before it starts for the first time.
func (p *planner) membership(n topology.NodeState) ([]installer.Item, error) {
	var items []installer.Item
	if data := p.dataOfOthers(n); data != nil { // this phase may run alone
		items = append(items, data)
	}
	for _, name := range []string{"etcdctl", "etcdutl"} {
		it, err := p.program(name, name)
		if err != nil {
			return nil, err
		}
		items = append(items, it)
	}
	owner, err := p.etcdOwner()
	return append(items, owner, installer.Directory{Path: etcdData, Mode: 0o700, Data: true}, p.founds(n)), err
}

// founds writes down with whom a member starts: with those of the cluster file
// if nobody is there yet. Where others are, it is made known to them as a
// learner. If they had a member at its address, as on a machine that was set up
// anew, that one goes first: Raft must not see a member forget (etcd's operations
// guide, "Replace a failed machine").
func (p *planner) founds(n topology.NodeState) installer.Action {
	all := join(p.members, ",", func(m topology.NodeState) string { return m.Name + "=" + peerURL(m) })
	script := fmt.Sprintf(`first() {
	printf 'ETCD_INITIAL_CLUSTER=%%s\nETCD_INITIAL_CLUSTER_STATE=%%s\nETCD_INITIAL_CLUSTER_TOKEN=%%s\n' "$1" "$2" %[1]s | put_file %[2]s 644 root:root
}
`, p.Cluster.Metadata.Name, etcdFirst)
	if others := p.others(n); len(others) > 0 {
		script += fmt.Sprintf(`there= list=
for e in %[1]s; do
	curl -s -m 3 -o /dev/null %[2]s "$e/version" || continue
	there=$e
	if list=$(%[3]s --endpoints "$e" member list); then break; fi
done
if [ -n "$there" ]; then
	[ -n "$list" ] || { echo "the members of the cluster answer, but fewer than half of them live: nobody can join" >&2; exit 1; }
	mine=$(printf '%%s\n' "$list" | awk -F', ' '$4 == "%[4]s" {print $1 ($5 == "" ? "" : " started")}')
	case $mine in *' started') %[3]s --endpoints "$there" member remove "${mine%% *}"; mine= ;; esac
	# For some seconds after an election or a change it takes none.
	tries=0
	until [ -n "$mine" ] || said=$(%[3]s --endpoints "$there" member add %[5]s --peer-urls %[4]s --learner 2>&1); do
		tries=$((tries + 1))
		[ $tries -lt 30 ] || { printf '%%s\n' "$said" >&2; exit 1; }
		sleep 1
	done
	list=$(%[3]s --endpoints "$there" member list)
	first "$(printf '%%s\n' "$list" | awk -F', ' '{print ($4 == "%[4]s" ? "%[5]s" : $3 == "" ? $1 : $3) "=" $4}' | paste -sd,)" existing
	exit 0
fi
`, strings.Join(others, " "), etcdTLS, etcdAsks, peerURL(n), n.Name)
	}
	return installer.Action{
		Name:  "the member knows with whom it starts",
		Check: fmt.Sprintf("test -e %s/member || test -s %s", etcdData, etcdFirst),
		Do:    script + "first " + all + " new", Back: "rm -f " + etcdFirst,
	}
}

// votes is that a member that came later counts like the first ones. Until then
// it does not say who the members are, and the others are asked.
func (p *planner) votes(n topology.NodeState) installer.Action {
	others := etcdAsks + " --endpoints " + strings.Join(p.others(n), ",")
	list := fmt.Sprintf(`{ %s --command-timeout 10s member list 2>/dev/null || %s member list; }`, etcdctl, others)
	mine := fmt.Sprintf(`awk -F', ' '$4 == "%s" {print $1, $6}'`, peerURL(n))
	return installer.Action{
		Name: "the member has a vote", Check: fmt.Sprintf(`%s | %s | grep -q ' false$'`, list, mine),
		Do: fmt.Sprintf(`end=$(($(date +%%s) + 120))
while [ "$(date +%%s)" -lt "$end" ]; do
	if said=$(%[1]s 2>&1); then
		mine=$(printf '%%s\n' "$said" | %[2]s)
		case $mine in
		*' false') exit 0 ;;
		*' true') said=$(%[3]s member promote "${mine%% *}" 2>&1) || true ;;
		esac
	fi
	sleep 0.5
done
printf 'it has no vote after two minutes: %%s\n' "$said" >&2
exit 1`, list, mine, others),
	}
}
