package kubeproxy

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab/bench/realproxy"
	"slipway/topology"
)

var none netip.Prefix

// bed is a real kube-proxy and a host of ours, as one node of the corpus'
// cluster, and what they were last given.
type bed struct {
	mode, node string
	configure  func(*kubeproxy.Options)

	real, own *netns.NS
	api       *realproxy.API
	proxy     *realproxy.Proxy
	host      *linux.Host
	counters  bool
	numbers   *topology.Allocation // as they were given out last
	changes   int
}

func newBed(t *testing.T, mode, node, configuration string) *bed {
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.NFT)
	program := program(t)
	b := &bed{mode: mode, node: node, configure: configurations[configuration], real: testnet.NewNS(t)}
	b.own, b.host = ours(t)
	b.counters = makeCounters(b.own) == nil // as kube-proxy finds out
	objs, s := b.decide(t, "")
	have(t, b.real, one{Node: node, Snapshot: s})
	bare := s
	bare.Services = nil
	api, err := realproxy.Serve(b.real, append(realproxy.Objects(bare), apiObjects(objs, s)...))
	if err != nil {
		t.Fatal(err)
	}
	b.api = api
	t.Cleanup(func() { _ = b.api.Close() })
	b.proxy = started(t, realproxy.Config{Program: program, NS: b.real, Node: node, Mode: mode, Options: b.options(s), MinSync: time.Millisecond}, b.api)
	if mode == "iptables" {
		same(t, b.real, b.real) // the canaries are there
	}
	return b
}

func (b *bed) options(s topology.Snapshot) kubeproxy.Options {
	o := kubeproxy.DefaultOptions(s)
	o.Mode, o.NFAcct = topology.ProxyMode(b.mode), b.counters
	b.configure(&o)
	return o
}

// decide parses a step's manifests, with the pods that all shapes share and the
// mark of this change, and gives out what they leave open.
func (b *bed) decide(t *testing.T, manifests string) (*topology.Objects, topology.Snapshot) {
	t.Helper()
	c, diags := topology.Parse("cluster.yaml", read(t, "testdata/shapes/cluster.yaml"))
	if err := diags.Err(); err != nil {
		t.Fatal(err)
	}
	b.changes++
	text := string(read(t, "testdata/shapes/base.yaml")) + "\n---\n" + manifests + "\n---\n" + b.mark()
	objs, _, err := topology.LoadManifests("shape", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	s, numbers, err := topology.Allocate(c, objs, b.numbers)
	if err != nil {
		t.Fatal(err)
	}
	b.numbers = numbers
	return objs, *s
}

// mark is a service whose port and endpoint change every time. It is last of
// all: once a node's rules have both, they have everything.
func (b *bed) mark() string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: mark, namespace: zz}, spec: {clusterIP: 10.96.255.254, ports: [{port: %d}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: mark, namespace: zz, labels: {kubernetes.io/service-name: mark}}, addressType: IPv4, ports: [{port: %d}], endpoints: [{addresses: [198.18.255.254]}]}
`, 40000+b.changes, 50000+b.changes)
}

// markLast moves the mark behind what controllers make of other services: watchers
// hear of objects in their order.
func markLast(objects []realproxy.Object) []realproxy.Object {
	slices.SortStableFunc(objects, func(a, b realproxy.Object) int { return strings.Compare(a.GetNamespace(), b.GetNamespace()) })
	return objects
}

// walk takes both through a shape's steps.
func (b *bed) walk(t *testing.T, s shape) {
	for i, step := range s.steps {
		if diff := cmp.Diff(b.change(t, step, true), b.rules(t, b.own, true)); diff != "" {
			t.Errorf("%s: step %d: our rules are not kube-proxy's (-kube-proxy +slipway):\n%s", s.shows, i+1, diff)
		}
	}
}

// change gives both new objects, and returns kube-proxy's rules once it has taken
// them in.
func (b *bed) change(t *testing.T, manifests string, soon bool) []string {
	t.Helper()
	objs, s := b.decide(t, manifests)
	if err := b.api.Replace(markLast(apiObjects(objs, s))); err != nil {
		t.Fatal(err)
	}
	apply(t, b.host, b.config(t, s))
	for !b.marked(t) {
		next(t, b.proxy)
	}
	return b.rules(t, b.real, soon)
}

// marked reports whether kube-proxy has written the newest mark: in iptables
// mode into table nat, which it writes last.
func (b *bed) marked(t *testing.T) bool {
	t.Helper()
	list := []string{"nft", "list", "table", "ip", kubeproxy.NFTTable}
	if b.mode == "iptables" {
		list = []string{saveProgram, "-t", "nat"}
	}
	text := output(t, b.real, list[0], list[1:]...)
	return strings.Contains(text, fmt.Sprint(40000+b.changes)) && strings.Contains(text, fmt.Sprint(50000+b.changes))
}

func (b *bed) config(t *testing.T, s topology.Snapshot) datapath.NodeConfig {
	t.Helper()
	out := datapath.NodeConfig{Node: b.node}
	if b.mode == "nftables" {
		table, err := kubeproxy.PlanNFT(s, b.node, b.options(s))
		if err != nil {
			t.Fatal(err)
		}
		out.RuleSets = []datapath.RuleSet{{Owner: kubeproxy.Owner, NFT: &table}}
		return out
	}
	rules, err := kubeproxy.Plan(s, b.node, b.options(s))
	if err != nil {
		t.Fatal(err)
	}
	out.RuleSets = []datapath.RuleSet{rules}
	return out
}

// rules are the namespace's rules in canonical form. kube-proxy's nftables mode
// empties a chain that is no longer used at once and removes it later, and leaves
// the comment of an element as it is where only that changes: soon leaves out
// such chains and comments.
func (b *bed) rules(t *testing.T, ns *netns.NS, soon bool) []string {
	t.Helper()
	if b.mode == "iptables" {
		return tables(t, ns)
	}
	var out []string
	all := nftables(t, ns)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines := all[name]
		if soon && strings.HasPrefix(name, "chain ") && strings.Contains(name, "/") && len(lines) == 1 {
			continue
		}
		for _, l := range lines {
			if soon {
				l = elementComment.ReplaceAllString(l, "")
			}
			out = append(out, name+": "+l)
		}
	}
	return out
}

var elementComment = regexp.MustCompile(`, "comment": "[^"]*"`)

// staleness is for how long kube-proxy's nftables mode keeps a chain after the
// last time that it wrote anything (pkg/proxy/nftables/proxier.go, syncProxyRules).
const staleness = time.Second

// settles: a while after the last shape nothing is left of any.
func (b *bed) settles(t *testing.T) {
	b.change(t, "", true)
	if b.mode == "nftables" {
		<-time.After(staleness + 100*time.Millisecond) // it looks only when something else changes
	}
	if diff := cmp.Diff(b.change(t, "", false), b.rules(t, b.own, false)); diff != "" {
		t.Errorf("after all shapes our rules are not kube-proxy's (-kube-proxy +slipway):\n%s", diff)
	}
}
