package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/ordered"
	"slipway/lab"
	"slipway/topology"
)

func (a *app) listCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the labs on this machine", Args: cobra.NoArgs,
		Example: "  slipway list\n  slipway list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			labs, err := lab.List(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(labs, func(w io.Writer) error {
				if len(labs) == 0 {
					_, err := fmt.Fprintln(w, "no lab is up")
					return err
				}
				var rows [][]string
				for _, l := range labs {
					rows = append(rows, []string{l.Name, string(l.Mode), strconv.Itoa(l.Nodes), strconv.Itoa(l.Pods), strconv.Itoa(l.Services), l.State, age(l.CreatedAt)})
				}
				return printTable(w, []string{"NAME", "MODE", "NODES", "PODS", "SERVICES", "STATE", "AGE"}, rows)
			})
		},
	}
}

func age(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return time.Since(t).Round(time.Second).String()
}

func (a *app) inspectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "inspect [NAME]", Short: "Show everything about a lab: addresses, placement, namespaces", Args: cobra.MaximumNArgs(1),
		Example: "  slipway inspect\n  slipway inspect demo -o json | jq .snapshot.pods",
		RunE: func(_ *cobra.Command, args []string) error {
			st, err := a.state(args)
			if err != nil {
				return err
			}
			return a.print(st, func(w io.Writer) error { return printInspect(w, st) })
		},
	}
}

// state reads the state of the lab that args or the flags name.
func (a *app) state(args []string) (*lab.State, error) {
	if len(args) == 1 {
		a.lab = args[0]
	}
	name, err := a.labName()
	if err != nil {
		return nil, err
	}
	st, err := lab.ReadState(name)
	if err != nil {
		return nil, err
	}
	if st.Snapshot == nil {
		return nil, &coded{exitPartial, fmt.Errorf("lab %s was never finished: `slipway up` repairs it, `slipway down %s` removes it", name, name)}
	}
	return st, nil
}

func printInspect(w io.Writer, st *lab.State) error {
	s := st.Snapshot
	fmt.Fprintf(w, "lab %s  mode %s  pods %s  services %s  mtu %d\n\n", st.Lab, s.Network.Mode, s.Network.PodCIDR, s.Network.ServiceCIDR, s.Network.MTU)
	var rows [][]string
	for _, g := range s.Segments {
		rows = append(rows, []string{g.Name, g.Subnet.String(), strconv.Itoa(g.MTU), st.Implementations["segment "+g.Name]})
	}
	if err := printTable(w, []string{"SEGMENT", "SUBNET", "MTU", "SHAPING"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printNodes(w, st, false); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := printPods(w, st, "", false); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return printServices(w, st, "", false)
}

func (a *app) getCmd() *cobra.Command {
	var namespace string
	kinds := []string{"nodes", "pods", "services", "endpoints", "routes", "leases"}
	c := &cobra.Command{
		Use: "get " + strings.Join(kinds, "|"), Short: "List what is in a lab, as kubectl would",
		Long: `List what is in a lab. Routes are read from the nodes' kernels at this moment;
leases are the pod subnets (flannel) or address blocks (calico) of the nodes. -o wide
shows more of nodes, pods and services.`,
		Example:     "  slipway get pods\n  slipway get nodes -o wide\n  slipway get services -n default -o yaml\n  slipway get routes",
		Annotations: map[string]string{formatsOf: "table,text,wide,json,yaml"},
		Args:        cobra.ExactArgs(1), ValidArgs: kinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.state(nil)
			if err != nil {
				return err
			}
			s, wide := st.Snapshot, a.output == "wide"
			if wide {
				a.output = "table"
			}
			switch args[0] {
			case "nodes", "node", "no":
				return a.print(s.Nodes, func(w io.Writer) error { return printNodes(w, st, wide) })
			case "pods", "pod", "po":
				return a.print(inNamespace(s.Pods, namespace, func(p topology.Pod) string { return p.Namespace }), func(w io.Writer) error { return printPods(w, st, namespace, wide) })
			case "services", "service", "svc":
				return a.print(inNamespace(s.Services, namespace, func(v topology.Service) string { return v.Namespace }), func(w io.Writer) error { return printServices(w, st, namespace, wide) })
			case "endpoints", "endpoint", "ep":
				return a.print(inNamespace(s.Services, namespace, func(v topology.Service) string { return v.Namespace }), func(w io.Writer) error { return printEndpoints(w, st, namespace) })
			case "routes", "route":
				routes, err := lab.Routes(cmd.Context(), st)
				if err != nil {
					return err
				}
				return a.print(routes, func(w io.Writer) error { return printRoutes(w, routes) })
			case "leases", "lease":
				leases := lab.Leases(st.Snapshot)
				return a.print(leases, func(w io.Writer) error { return printLeases(w, leases) })
			default:
				return usageError("%q is not one of %s", args[0], strings.Join(kinds, ", "))
			}
		},
	}
	c.Flags().StringVarP(&namespace, "namespace", "n", "", "only this Kubernetes namespace (default: all)")
	return c
}

func inNamespace[T any](list []T, ns string, of func(T) string) []T {
	out := []T{}
	for _, x := range list {
		if ns == "" || of(x) == ns {
			out = append(out, x)
		}
	}
	return out
}

func printNodes(w io.Writer, st *lab.State, wide bool) error {
	var rows, more [][]string
	for _, n := range st.Snapshot.Nodes {
		var roles []string
		for _, r := range n.Roles {
			roles = append(roles, string(r))
		}
		rows = append(rows, []string{n.Name, strings.Join(roles, ","), n.Segment, n.Address.String(), podsOf(n), lab.NSOfMachine(st.Lab, n.Name)})
		more = append(more, []string{n.Interface.Name, n.Interface.MAC, dash(n.VTEPMAC), tunnelOf(n), labels(n.Labels)})
	}
	return printWide(w, wide, []string{"NODE", "ROLES", "SEGMENT", "ADDRESS", "PODS", "NAMESPACE"}, rows, []string{"DEVICE", "MAC", "VTEP-MAC", "TUNNEL", "LABELS"}, more)
}

// printWide prints a table with more columns, if they are wanted.
func printWide(w io.Writer, wide bool, head []string, rows [][]string, moreHead []string, more [][]string) error {
	if wide {
		head = append(head, moreHead...)
		for i := range rows {
			rows[i] = append(rows[i], more[i]...)
		}
	}
	return printTable(w, head, rows)
}

func tunnelOf(n topology.NodeState) string {
	if n.TunnelAddress.IsValid() {
		return n.TunnelAddress.String()
	}
	return "-"
}

func labels(of map[string]string) string {
	var out []string
	for _, k := range ordered.Keys(of) {
		out = append(out, k+"="+of[k])
	}
	return dash(strings.Join(out, ","))
}

func podsOf(n topology.NodeState) string {
	if n.PodCIDR.IsValid() {
		return n.PodCIDR.String()
	}
	var blocks []string
	for _, b := range n.Blocks {
		blocks = append(blocks, b.String())
	}
	if len(blocks) == 0 {
		return "-"
	}
	return strings.Join(blocks, ",")
}

func printPods(w io.Writer, st *lab.State, namespace string, wide bool) error {
	var rows, more [][]string
	for _, p := range inNamespace(st.Snapshot.Pods, namespace, func(p topology.Pod) string { return p.Namespace }) {
		var ports []string
		for _, c := range p.Ports {
			ports = append(ports, fmt.Sprintf("%d/%s", c.Port, c.Protocol))
		}
		rows = append(rows, []string{p.Namespace, p.Name, p.Address.String(), p.Node, dash(strings.Join(ports, ","))})
		more = append(more, []string{p.MAC, dash(p.Owner), labels(p.Labels)})
	}
	return printWide(w, wide, []string{"NAMESPACE", "POD", "ADDRESS", "NODE", "PORTS"}, rows, []string{"MAC", "OWNER", "LABELS"}, more)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func printServices(w io.Writer, st *lab.State, namespace string, wide bool) error {
	var rows, more [][]string
	for _, s := range inNamespace(st.Snapshot.Services, namespace, func(v topology.Service) string { return v.Namespace }) {
		var ports []string
		for _, p := range s.Ports {
			port := fmt.Sprintf("%d", p.Port)
			if p.NodePort != 0 {
				port += fmt.Sprintf(":%d", p.NodePort)
			}
			ports = append(ports, port+"/"+string(p.Protocol))
		}
		ip := "None"
		if s.ClusterIP.IsValid() {
			ip = s.ClusterIP.String()
		}
		rows = append(rows, []string{s.Namespace, s.Name, string(s.Type), ip, dash(strings.Join(ports, ",")), strconv.Itoa(endpointsOf(s))})
		var outside []string
		for _, a := range append(slices.Clone(s.ExternalIPs), s.LoadBalancerIPs...) {
			outside = append(outside, a.String())
		}
		more = append(more, []string{dash(strings.Join(outside, ",")), labels(s.Selector)})
	}
	return printWide(w, wide, []string{"NAMESPACE", "SERVICE", "TYPE", "CLUSTER-IP", "PORTS", "ENDPOINTS"}, rows, []string{"EXTERNAL-IP", "SELECTOR"}, more)
}

func endpointsOf(s topology.Service) int {
	n := 0
	for _, p := range s.Ports {
		n = max(n, len(p.Endpoints))
	}
	return n
}

func printEndpoints(w io.Writer, st *lab.State, namespace string) error {
	var rows [][]string
	for _, s := range inNamespace(st.Snapshot.Services, namespace, func(v topology.Service) string { return v.Namespace }) {
		for _, p := range s.Ports {
			for _, e := range p.Endpoints {
				rows = append(rows, []string{s.Namespace, s.Name, dash(p.Name), fmt.Sprintf("%s:%d/%s", e.Address, e.Port, p.Protocol), dash(e.Pod), dash(e.Node)})
			}
		}
	}
	return printTable(w, []string{"NAMESPACE", "SERVICE", "PORT", "ENDPOINT", "POD", "NODE"}, rows)
}

func printRoutes(w io.Writer, routes []lab.NodeRoute) error {
	var rows [][]string
	for _, r := range routes {
		rows = append(rows, []string{r.Node, r.Text})
	}
	return printTable(w, []string{"NODE", "ROUTE"}, rows)
}

func printLeases(w io.Writer, leases []lab.LeaseLine) error {
	var rows [][]string
	for _, l := range leases {
		rows = append(rows, []string{l.Node, l.Subnet.String(), l.PublicIP.String(), l.Backend, dash(l.VTEPMAC)})
	}
	return printTable(w, []string{"NODE", "SUBNET", "PUBLIC-IP", "BACKEND", "VTEP-MAC"}, rows)
}

func (a *app) statusCmd() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Read the lab back and say what is not as it should be",
		Long: `Read every node's kernel back, compare it with what the cluster file asks for,
and ask the daemon what it runs. Exit code 1 when anything differs; nothing is changed.`,
		Example: "  slipway status\n  slipway status -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name, err := a.labName()
			if err != nil {
				return err
			}
			h, err := lab.Status(cmd.Context(), name)
			if err != nil {
				return err
			}
			if err := a.print(h, func(w io.Writer) error { return printHealth(w, h) }); err != nil {
				return err
			}
			if !h.OK() {
				return &silentError{exitNo}
			}
			return nil
		},
	}
}

func printHealth(w io.Writer, h *lab.Health) error {
	fmt.Fprintf(w, "lab %s: %s\n", h.Lab, h.State)
	if h.Problem != "" {
		fmt.Fprintf(w, "  daemon: %s\n", h.Problem)
	}
	if d := h.Daemon; d != nil {
		fmt.Fprintf(w, "  daemon: pid %d, up %s, %s, %.1f MB\n", d.PID, age(d.Since), plural(d.Listeners, "listener"), float64(d.RSSBytes)/1e6)
		for _, t := range d.Tunnels {
			fmt.Fprintf(w, "  tunnel: %s %s\n", t.Node, t.Device)
		}
		for _, n := range ordered.Keys(d.Speakers) {
			s := d.Speakers[n]
			fmt.Fprintf(w, "  bgp: %-12s %d of %d peers established, %s learnt\n", n, s.Established, s.Peers, plural(s.Routes, "route"))
			switch {
			case s.PID == 0:
				fmt.Fprintf(w, "  bgp: %-12s has no speaker, it is started again: %s\n", n, s.LastEnd)
			case s.Restarts > 0:
				fmt.Fprintf(w, "  bgp: %-12s was started again %s: %s\n", n, plural(s.Restarts, "time"), s.LastEnd)
			}
			for _, peer := range s.Down {
				fmt.Fprintf(w, "  bgp: %-12s has no session with %s\n", n, peer)
			}
		}
		for _, e := range d.Errors {
			fmt.Fprintf(w, "  error: %s\n", e)
		}
	}
	for _, m := range h.Missing {
		fmt.Fprintf(w, "  missing: %s\n", m)
	}
	for _, n := range h.Off {
		fmt.Fprintf(w, "  off: %s (its first process does not answer)\n", n)
	}
	for _, c := range h.Drift {
		fmt.Fprintf(w, "  drift: %-7s %-12s %s\n", c.Action, c.Node, c.Command)
	}
	if h.OK() {
		fmt.Fprintln(w, "  every node's kernel is what the cluster file asks for")
	} else {
		fmt.Fprintln(w, "  `slipway up` repairs it")
	}
	return nil
}
