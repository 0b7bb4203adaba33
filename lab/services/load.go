package services

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/datapath/netfilter"
	"slipway/internal/netns"
	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/topology"
)

// Loaded are the rules that a node's kernel has.
type Loaded struct {
	Node    string
	Program string // that read them
	Rules   kubeproxy.Ruleset
	// NFT is kube-proxy's nftables table; nil if there is none.
	NFT *datapath.NFTable
	// State is the rest of the node's kernel, as far as it decides what rules
	// match.
	State *datapath.NetState
}

// NodeError says that a node is none, or none with kube-proxy's rules.
type NodeError struct {
	Node   string
	Reason string
}

// Error names the node.
func (e *NodeError) Error() string { return fmt.Sprintf("node %s: %s", e.Node, e.Reason) }

// Nodes are the nodes that carry services, in the order of the cluster file.
func Nodes(s *topology.Snapshot) []string {
	var out []string
	for _, n := range s.Nodes {
		if n.InDatapath() {
			out = append(out, n.Name)
		}
	}
	return out
}

// CheckNode returns a [NodeError] unless the node carries services.
func CheckNode(s *topology.Snapshot, node string) error {
	if _, ok := s.NodeByName(node); !ok {
		return &NodeError{Node: node, Reason: "no such node (`slipway get nodes` lists them)"}
	}
	if !slices.Contains(Nodes(s), node) {
		return &NodeError{Node: node, Reason: "it is only a load balancer in front of the apiservers and runs no kube-proxy"}
	}
	return nil
}

// Load reads a node's rules with their counters.
func Load(ctx context.Context, st *lab.State, node string) (*Loaded, error) {
	if err := CheckNode(st.Snapshot, node); err != nil {
		return nil, err
	}
	ns, err := netns.Open(lab.NSOfMachine(st.Lab, node))
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	h, err := linux.Open(ns, linux.Options{})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	state, err := h.Collect(ctx, linux.CollectOptions{Counters: true, SkipSockets: true, SkipConntrack: true})
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", node, err)
	}
	l := &Loaded{Node: node, Program: filepath.Base(h.IPTables()), State: state}
	var text strings.Builder
	for _, table := range ordered.Keys(state.RuleSave) {
		text.WriteString(state.RuleSave[table])
	}
	if l.Rules, err = kubeproxy.ParseSave(text.String()); err != nil {
		return nil, fmt.Errorf("read rules of node %s: %w", node, err)
	}
	if l.NFT, err = proxyTable(state); err != nil {
		return nil, fmt.Errorf("read rules of node %s: %w", node, err)
	}
	if st.Snapshot.Proxy.Mode == topology.ProxyNFTables {
		l.Program = "nft"
	}
	return l, nil
}

// evaluator has all of the node's rules, ready to be asked as for a client that
// nothing remembers.
func (l *Loaded) evaluator() *netfilter.Rules {
	rules := netfilter.Compile(&l.Rules)
	if l.NFT != nil {
		t := *l.NFT
		t.Sets = slices.Clone(t.Sets)
		for i := range t.Sets {
			if t.Sets[i].Dynamic {
				t.Sets[i].Elements = nil
			}
		}
		rules.AddNFT([]datapath.NFTable{t})
	}
	return rules
}

// LoadAll reads several nodes, some at a time.
func LoadAll(ctx context.Context, st *lab.State, nodes []string) ([]*Loaded, error) {
	const atOnce = 4
	out := make([]*Loaded, len(nodes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, n := range nodes {
		g.Go(func() (err error) {
			out[i], err = Load(ctx, st, n)
			return err
		})
	}
	return out, g.Wait()
}
