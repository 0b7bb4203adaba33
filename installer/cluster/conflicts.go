package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"slipway/installer"
	"slipway/topology"
)

// Listener is a unit and the TCP ports that it takes.
type Listener struct {
	Unit     string
	Ports    []int
	Loopback bool // at 127.0.0.1 alone; else at the machine's addresses too
}

// Listeners are those of a machine, once it is part of the cluster.
func Listeners(in Inputs, n topology.NodeState) []Listener { return newPlanner(in).listeners(n) }

// listeners are those of a machine (kubernetes.io/docs/reference/networking/ports-and-protocols).
func (p *planner) listeners(n topology.NodeState) []Listener {
	var out []Listener
	if p.isMember(n) {
		out = append(out, Listener{"etcd.service", []int{etcdClientPort, etcdPeerPort}, false}, Listener{"etcd.service", []int{2381}, true})
	}
	if n.HasRole(topology.RoleControlPlane) {
		out = append(out, Listener{"kube-apiserver.service", []int{apiPort}, false},
			Listener{"kube-controller-manager.service", []int{10257}, true}, Listener{"kube-scheduler.service", []int{10259}, true})
	}
	if named(p.balancers(), n.Name) {
		if p.external() {
			out = append(out, Listener{"api-balancer.service", []int{apiPort, healthPort}, false}, Listener{"api-balancer.service", []int{adminPort}, true})
		} else {
			out = append(out, Listener{"api-balancer.service", []int{localPort, healthPort, adminPort}, true})
		}
	}
	if len(p.masters) > 0 && n.InDatapath() {
		out = append(out, Listener{"kube-proxy.service", []int{10256}, false}, Listener{"kube-proxy.service", []int{10249}, true})
	}
	if p.runsKubelet(n) {
		out = append(out, Listener{"kubelet.service", []int{10250}, false}, Listener{"kubelet.service", []int{10248}, true})
	}
	return out
}

// require wants the ports to be free, unless it is the unit itself that has them,
// which may be on its way still, as after a power cut.
func (l Listener) require(n topology.NodeState) installer.Require {
	var numbers, filters []string
	for _, port := range l.Ports {
		numbers = append(numbers, fmt.Sprint(port))
		filters = append(filters, fmt.Sprintf("sport = :%d", port))
	}
	at := []string{`\*`, `0\.0\.0\.0`, `\[::\]`, `127\.0\.0\.1`}
	if !l.Loopback {
		at = append(at, strings.ReplaceAll(address(n).String(), ".", `\.`))
	}
	// The fourth column of ss is the address at which somebody listens.
	taken := fmt.Sprintf(`ss -Hltnp '%s' | awk '$4 ~ /^(%s)(%%[^:]*)?:[0-9]+$/'`, strings.Join(filters, " or "), strings.Join(at, "|"))
	return installer.Require{
		Name: fmt.Sprintf("ports of %s: %s", l.Unit, strings.Join(numbers, " ")),
		Check: fmt.Sprintf(`taken=$(%[1]s); test -z "$taken" || systemctl is-active --quiet %[2]s || `+
			`echo "$taken" | grep -q "pid=$(systemctl show -p MainPID --value %[2]s)[,)]"`, taken, l.Unit),
		Why:  taken + ` | sed 's/^[^ ]* *[^ ]* *[^ ]* *\([^ ]*\) *[^ ]* *users:(("\([^"]*\)",pid=\([0-9]*\).*/\1 is in use by \2, process \3/'`,
		Hint: "another program listens where " + l.Unit + " has to: end it, or let it listen elsewhere",
	}
}

// conflicts are what a machine may have that a cluster of ours would run into,
// or worse, take for its own.
func (p *planner) conflicts(n topology.NodeState) ([]installer.Item, error) {
	var out []installer.Item
	for _, l := range p.listeners(n) {
		out = append(out, l.require(n))
	}
	for _, name := range []string{"ca.crt", "etcd/ca.crt"} {
		sum, err := p.sumOf(name)
		if err != nil {
			return nil, err
		}
		if sum == "" {
			continue
		}
		file := pkiDir + "/" + name
		out = append(out, installer.Require{
			Name: "authority " + name, Check: fmt.Sprintf(`test ! -e %[1]s || test "$(sha256sum <%[1]s | cut -c-64)" = %[2]s`, file, sum),
			Hint: fmt.Sprintf("%s is of another cluster, which %s belongs to: undo that installation there first, or install with that cluster's authority", file, n.Name),
		})
	}
	if data := p.dataOfOthers(n); data != nil {
		out = append(out, data)
	}
	return p.asked(out), nil
}

// etcdMark says whose data a member's directory holds: it is the checksum of the
// authority of the cluster's etcd, which no other cluster has.
const etcdMark = manifestDir + "/etcd-cluster"

// etcdOwner is the mark of this cluster's data.
func (p *planner) etcdOwner() (installer.File, error) {
	sum, err := p.sumOf("etcd/ca.crt")
	return installer.File{Path: etcdMark, Mode: 0o644, Content: []byte(sum + "\n")}, err
}

// dataOfOthers refuses to start etcd on data that another cluster wrote: it
// would not say a word, and be that cluster's member.
func (p *planner) dataOfOthers(n topology.NodeState) installer.Item {
	sum, err := p.sumOf("etcd/ca.crt")
	if !p.isMember(n) || err != nil || sum == "" {
		return nil
	}
	return installer.Require{
		Name: "etcd's data", Check: fmt.Sprintf(`test -z "$(ls -A %s/member 2>/dev/null)" || grep -qxF %s %s`, etcdData, sum, etcdMark),
		Hint: fmt.Sprintf("%s holds the data of another cluster: everything that its API knew. Move it away (mv %[1]s %[1]s.old), or remove it if nobody misses it", etcdData),
	}
}

// sumOf is the SHA-256 of a file of the store; empty if it has none yet.
func (p *planner) sumOf(name string) (string, error) {
	if p.PKI == nil {
		return "", nil
	}
	data, err := p.PKI.File(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), err
}
