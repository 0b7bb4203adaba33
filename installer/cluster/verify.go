package cluster

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"slipway/installer"
	"slipway/topology"
)

// verify looks at the cluster as its users will.
func (p *planner) verify() (installer.Phase, error) {
	ph := installer.Phase{Title: "Does it work?", About: "Nothing is changed here. It waits until the cluster is what its users expect, and says what is missing."}
	first := p.masters[0]
	ctl := kubectl(first)
	var items []installer.Item
	for _, n := range p.kubelets() {
		items = append(items, nodeReady(ctl, n.Name))
	}
	items = append(items, installer.Wait{
		Name: "CoreDNS is available", Until: 2 * time.Minute,
		Check: fmt.Sprintf("said=$(%[1]s --namespace kube-system get deployment coredns -o jsonpath='{.status.availableReplicas}') && [ \"${said:-0}\" -ge %[2]d ] || { echo \"${said:-0} of %[2]d pods\"; %[1]s --namespace kube-system get pods -l k8s-app=kube-dns --no-headers -o wide; %[1]s --namespace kube-system get events --field-selector type=Warning --sort-by=.lastTimestamp -o jsonpath='{range .items[*]}{.involvedObject.name}: {.message}{\"\\n\"}{end}' | tail -n 3; exit 1; }", ctl, p.dnsReplicas()),
	})
	proxies, err := on(p.datapath(), func(topology.NodeState) ([]installer.Item, error) {
		return []installer.Item{installer.Wait{Name: "kube-proxy is healthy", Check: "curl -sSf http://127.0.0.1:10256/healthz", Until: 2 * time.Minute, Unit: "kube-proxy.service"}}, nil
	})
	if err != nil {
		return ph, err
	}
	ph.Steps = []installer.Step{{Name: "proxies", Why: "A proxy is healthy while its rules are as new as what it was told.", Work: proxies}}
	if !p.full() {
		return ph, nil // who plays kubelet in a light lab comes after the installation
	}
	names, err := on(p.kubelets(), func(topology.NodeState) ([]installer.Item, error) { return []installer.Item{p.answersNames()}, nil })
	ph.Steps = append([]installer.Step{{Name: "nodes", Why: "Ready means: kubelet reports, the runtime runs, pods can be plugged in.", Work: []installer.Work{{Host: first.Name, Items: items}}}}, ph.Steps...)
	ph.Steps = append(ph.Steps, installer.Step{Name: "names", Why: "One question goes through all of it: from the node by its rules for services to a pod, perhaps on another node, and back.", Work: names})
	return ph, err
}

// answersNames is that DNS says, at its service's address, what that is.
func (p *planner) answersNames() installer.Wait {
	name := "kube-dns.kube-system.svc." + Domain // no label of ten letters: see below
	return installer.Wait{
		Name: "DNS answers at " + p.clusterDNS().String(), Until: 2 * time.Minute,
		// The shells of most systems cannot send a packet; bash can. It sends what
		// it has at each newline, a byte that must not be in the question.
		Check: fmt.Sprintf(`bash -c 'exec 3<>/dev/udp/%s/53 && printf "%s" >&3 && timeout 2 dd bs=512 count=1 status=none <&3 | od -An -v -tx1 | tr -d " \n"' | grep -q '%s$' || { echo 'no answer, or none with the address of %s'; exit 1; }`,
			p.clusterDNS(), octal(question(name)), answerEnd(p.clusterDNS()), name),
	}
}

// question is a query for a name's IPv4 address (RFC 1035, section 4.1).
func question(name string) []byte {
	q := []byte{0x51, 0x1b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0} // an id; recursion wanted; one question
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1) // type A, class IN
}

// answerEnd is how an answer with one address ends, in hexadecimal: the length
// of the data and the data.
func answerEnd(a netip.Addr) string { return "0004" + hex.EncodeToString(a.AsSlice()) }

// octal writes bytes as printf reads them.
func octal(data []byte) string {
	var b strings.Builder
	for _, c := range data {
		fmt.Fprintf(&b, `\%03o`, c)
	}
	return b.String()
}
