package main

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"slipway/lab"
	"slipway/lab/services"
)

func (a *app) proxyCmd() *cobra.Command {
	c := &cobra.Command{
		Use: "proxy", Short: "Show, explain and test what kube-proxy's rules make of a service",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, sub := range []*cobra.Command{a.proxyShowCmd(), a.proxyExplainCmd(), a.proxyCheckCmd()} {
		wrapArgs(sub)
		c.AddCommand(sub)
	}
	return c
}

func (a *app) proxyShowCmd() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use: "show SERVICE[:PORT]", Short: "Draw a service's rules as a tree, with probabilities and counters",
		Long: `Read a node's rules from its kernel and draw those of a service as a tree: the
rules that lead in, the chains that they lead to, the endpoints behind them, and
what table filter refuses. OWN is the probability that a rule itself has,
EFFECTIVE that of a new connection to end there: the last of three rules with
1/3, 1/2 and 1 gets 1/3 of the connections like the others. With -v, or -o wide,
each rule is shown verbatim. The same rules on other nodes are compared.

A service is NAME, NAMESPACE/NAME, NAME.NAMESPACE or its cluster IP, a port its
number or name.`,
		Example: `  slipway proxy show nginx-svc
  slipway proxy show kube-system/kube-dns:dns --node node02 -v
  slipway proxy show 10.96.0.10 -o json`,
		Annotations: map[string]string{formatsOf: "table,text,wide,json,yaml"},
		Args:        cobra.ExactArgs(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, v, err := a.proxyView(cmd.Context(), args[0], node)
			if err != nil {
				return err
			}
			wide := a.verbose || a.output == "wide"
			if a.output == "wide" {
				a.output = "table"
			}
			return a.print(v, func(w io.Writer) error { return v.WriteTree(w, services.TreeOptions{Rules: wide}) })
		},
	}
	a.nodeFlag(c, &node)
	return c
}

func (a *app) proxyExplainCmd() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use: "explain SERVICE[:PORT]", Short: "Say in sentences what happens to a connection to a service",
		Long: `Read a node's rules from its kernel and say step by step what they make of a
connection to a service: by its cluster IP, its node port and other addresses,
from a pod, from a node and from outside; how an endpoint is chosen; when the
client's address is lost. What is said comes from the rules as they are loaded.`,
		Example: `  slipway proxy explain nginx-svc
  slipway proxy explain nginx-svc:8080 --node node02`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			_, v, err := a.proxyView(cmd.Context(), args[0], node)
			if err != nil {
				return err
			}
			e := services.Explain(v)
			return a.print(e, func(w io.Writer) error { return e.Write(w) })
		},
	}
	a.nodeFlag(c, &node)
	return c
}

// defaultConnections are as many as `proxy check` opens unless told otherwise.
const defaultConnections = 1000

func (a *app) proxyCheckCmd() *cobra.Command {
	o := services.CheckOptions{}
	var via string
	c := &cobra.Command{
		Use: "check SERVICE[:PORT]", Short: "Open real connections to a service and test who answers against the rules",
		Long: `Open real connections to a service, find out which endpoint answered each and
which source address it saw, and hold that against the rules of the node that
decided: with a chi-square test at 1 %, for session affinity that all reach one
endpoint, for policies Local that only that node's endpoints answer and the source
is kept. The rules themselves are held against the service: equal shares for its
endpoints, and no others. Exit code 1 if anything is not as it should be. A run
that follows the rules fails the test once in a hundred times.

Connections come from a pod that is no endpoint, for node ports from "external".`,
		Example: `  slipway proxy check nginx-svc
  slipway proxy check nginx-svc --via nodeport --node node02 --count 5000
  slipway proxy check echo:7007 --from node01 -o json`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: a.completeServices,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Via = services.Via(via)
			return a.proxyCheck(cmd.Context(), args[0], o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.From, "from", "", "the node, pod or machine that connects")
	f.StringVar(&via, "via", string(services.ViaClusterIP), "which address of the service: clusterip, nodeport, external")
	f.StringVar(&o.Node, "node", "", "with --via nodeport, the node whose port is used")
	f.IntVar(&o.Count, "count", defaultConnections, "how many connections")
	return c
}

func (a *app) proxyCheck(ctx context.Context, name string, o services.CheckOptions) error {
	if o.Count < 1 || o.Count > services.MaxConnections {
		return usageError("count is between 1 and %d", services.MaxConnections)
	}
	if o.Node != "" && o.Via != services.ViaNodePort {
		return usageError("--node is for --via nodeport; what decides otherwise is the node that --from is on")
	}
	st, found, err := a.proxyService(name)
	if err != nil {
		return err
	}
	o.Service = found
	p := a.progress()
	p.Phase("connecting to "+found.Service.Key(), o.Count)
	o.Step = p.Step
	r, err := services.Check(ctx, st, o)
	p.clear()
	if err != nil {
		return proxyError(err)
	}
	if err := a.print(r, r.Write); err != nil {
		return err
	}
	if !r.OK {
		return &silentError{exitNo}
	}
	return nil
}

// proxyError turns what was asked wrongly into a usage error.
func proxyError(err error) error {
	var name *services.NameError
	var way *services.WayError
	var node *services.NodeError
	var target *lab.TargetError
	if errors.As(err, &name) || errors.As(err, &way) || errors.As(err, &node) || errors.As(err, &target) {
		return &coded{exitUsage, err}
	}
	return err
}

func (a *app) nodeFlag(c *cobra.Command, node *string) {
	c.Flags().StringVar(node, "node", "", "the node whose rules are read; default the first")
	_ = c.RegisterFlagCompletionFunc("node", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		st, err := a.state(nil)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return services.Nodes(st.Snapshot), cobra.ShellCompDirectiveNoFileComp
	})
}

// comparedNodes bounds how many nodes are read to compare their rules.
const comparedNodes = 16

// proxyView reads a service's rules on a node, and compares other nodes'.
func (a *app) proxyView(ctx context.Context, name, node string) (*lab.State, *services.View, error) {
	st, found, err := a.proxyService(name)
	if err != nil {
		return nil, nil, err
	}
	nodes := services.Nodes(st.Snapshot)
	if node == "" && len(nodes) > 0 {
		node = nodes[0]
	}
	if err := services.CheckNode(st.Snapshot, node); err != nil {
		return nil, nil, &coded{exitUsage, err}
	}
	nodes = slices.DeleteFunc(nodes, func(n string) bool { return n == node })
	nodes = append([]string{node}, nodes[:min(len(nodes), comparedNodes-1)]...)
	loaded, err := services.LoadAll(ctx, st, nodes)
	if err != nil {
		return nil, nil, err
	}
	v, err := services.Look(st.Snapshot, found, loaded[0])
	if err != nil {
		return nil, nil, err
	}
	v.Others, err = services.Compare(st.Snapshot, found, v, loaded[1:])
	return st, v, err
}

// proxyService finds the service of a name that has rules.
func (a *app) proxyService(name string) (*lab.State, services.Found, error) {
	st, err := a.state(nil)
	if err != nil {
		return nil, services.Found{}, err
	}
	found, err := services.Find(st.Snapshot, name)
	if err == nil {
		err = services.HasRules(found.Service)
	}
	var none *services.NoRulesError
	if errors.As(err, &none) {
		return nil, services.Found{}, &coded{exitNo, err}
	}
	if err != nil {
		return nil, services.Found{}, &coded{exitUsage, err}
	}
	if os.Geteuid() != 0 {
		return nil, services.Found{}, &lab.PrivilegeError{}
	}
	return st, found, nil
}

// completeServices completes the services of the lab.
func (a *app) completeServices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	st, err := a.state(nil)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, s := range st.Snapshot.Services {
		if s.Namespace == "default" {
			names = append(names, s.Name)
		} else {
			names = append(names, s.Key())
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
