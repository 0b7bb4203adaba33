package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/installer"
	"slipway/installer/facts"
	"slipway/installer/mesh"
	"slipway/installer/preflight"
	"slipway/installer/site"
	"slipway/lab"
	"slipway/topology"
)

func (a *app) preflightCmd() *cobra.Command {
	var o struct {
		file, site string
		ssh        sshFlags
		check      preflightFlags
		noMesh     bool
		timeout    time.Duration
	}
	c := &cobra.Command{
		Use: "preflight -f FILE", Short: "Look whether machines can become a cluster, and change nothing",
		Long: `Connect to the hosts of a cluster file, look at them, and say what is in the way of an
installation: each finding with its check, its host, and what to do. Then the ports that
the cluster needs between its machines are tried for real, by listeners that stand for a
few seconds. Nothing is changed. With -L the nodes of a lab with real components are
looked at instead.`,
		Example: `  slipway install preflight -f cluster.yaml
  slipway install preflight -f cluster.yaml --ignore memory --ignore swap
  slipway install preflight -f cluster.yaml --no-mesh -o json
  slipway install preflight -L demo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := knownChecks(o.check.ignore); err != nil {
				return err
			}
			if o.timeout <= 0 || o.timeout > mesh.MostTimeout {
				return usageError("--timeout %s is not within 0 and %s", o.timeout, mesh.MostTimeout)
			}
			c, s, err := a.preflightCluster(o.file, o.site)
			if err != nil {
				return err
			}
			hosts, end, err := a.preflightHosts(cmd.Context(), c, o.file+o.site != "", o.ssh)
			if err != nil {
				return err
			}
			defer end()
			return a.preflight(cmd.Context(), c, s, hosts, preflightOptions{ignore: o.check.ignore, mesh: !o.noMesh, timeout: o.timeout})
		},
	}
	f := c.Flags()
	f.StringVarP(&o.file, "file", "f", "", "cluster file; - reads stdin")
	f.StringVar(&o.site, "site", "", "a cluster that was applied before, as it was then, instead of a file")
	o.ssh.add(f)
	o.check.add(f)
	f.BoolVar(&o.noMesh, "no-mesh", false, "do not try the ports between the machines")
	f.DurationVar(&o.timeout, "timeout", mesh.DefaultTimeout, "how long a port is waited for")
	return c
}

// knownChecks is a usage error where a name is no check's.
func knownChecks(names []string) error {
	if err := preflight.Known(names); err != nil {
		return &coded{exitUsage, err}
	}
	return nil
}

// preflightCluster is the cluster of a file, of a site, or of a lab that is up.
func (a *app) preflightCluster(file, name string) (*topology.Cluster, *topology.Snapshot, error) {
	if file == "" && name == "" {
		name, err := a.realLab()
		if errors.Is(err, errNoneUp) {
			return nil, nil, usageError("whose machines? -f FILE, --site NAME, or -L LAB")
		}
		if err != nil {
			return nil, nil, err
		}
		st, err := lab.ReadState(name)
		if err != nil {
			return nil, nil, err
		}
		return st.Cluster, st.Snapshot, nil
	}
	var c *topology.Cluster
	if file != "" {
		var err error
		if c, err = a.readCluster(file); err != nil {
			return nil, nil, err
		}
	} else {
		s, err := site.Load(name)
		if err != nil {
			return nil, nil, &coded{exitUsage, err}
		}
		c = s.Cluster
	}
	if err := onHosts(c); err != nil {
		return nil, nil, err
	}
	if !isReal(c) {
		c.Spec.Components = topology.ComponentsFull
	}
	s, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	return c, s, err
}

// preflightHosts connects to a cluster's machines, or finds a lab's nodes.
func (a *app) preflightHosts(ctx context.Context, c *topology.Cluster, real bool, o sshFlags) (map[string]installer.Host, func(), error) {
	if real {
		hosts, end, err := a.connect(ctx, c, o)
		if err != nil {
			err = &coded{exitMissing, err}
		}
		return hosts, end, err
	}
	hosts := map[string]installer.Host{}
	for _, n := range c.Spec.Nodes {
		hosts[n.Name] = lab.OpenMachine(c.Metadata.Name, n.Name)
	}
	return hosts, func() {}, nil
}

type preflightOptions struct {
	ignore  []string
	mesh    bool
	timeout time.Duration // of a port
	facts   map[string]facts.Facts
}

// preflightReport is what is printed.
type preflightReport struct {
	APIVersion string                 `json:"apiVersion"`
	Kind       string                 `json:"kind"`
	Cluster    string                 `json:"cluster"`
	OK         bool                   `json:"ok"`
	Findings   []preflight.Finding    `json:"findings"`
	Mesh       *mesh.Matrix           `json:"mesh,omitempty"`
	Facts      map[string]facts.Facts `json:"facts"`

	order []string // of the hosts
}

// preflight looks at hosts and prints what it finds.
func (a *app) preflight(ctx context.Context, c *topology.Cluster, s *topology.Snapshot, hosts map[string]installer.Host, o preflightOptions) error {
	known, err := facts.Gather(ctx, hosts)
	if err != nil {
		return &coded{exitMissing, err}
	}
	o.facts = known
	found, matrix, err := judgeHosts(ctx, c, s, hosts, o)
	if found == nil {
		return err
	}
	r := preflightReport{
		APIVersion: topology.APIVersion, Kind: "Preflight", Cluster: c.Metadata.Name, OK: !preflight.Failed(found), Findings: found, Mesh: matrix, Facts: known,
	}
	for _, n := range s.Nodes {
		r.order = append(r.order, n.Name)
	}
	if e := a.print(r, func(w io.Writer) error { return printPreflight(w, &r, a.verbose) }); e != nil {
		return e
	}
	switch {
	case err != nil:
		return &coded{exitMissing, err}
	case !r.OK:
		return &silentError{exitNo}
	}
	return nil
}

// judgeHosts are all findings of hosts whose facts are known, those of the ports
// between them among them. With an error there are findings still, if any were
// made.
func judgeHosts(ctx context.Context, c *topology.Cluster, s *topology.Snapshot, hosts map[string]installer.Host, o preflightOptions) ([]preflight.Finding, *mesh.Matrix, error) {
	found, err := preflight.Check(c, s, o.facts, o.ignore)
	if err != nil || !o.mesh {
		return found, nil, err
	}
	own, err := installer.Own()
	if err != nil {
		return found, nil, err
	}
	m, err := mesh.Try(ctx, hosts, mesh.Wanted(c, s), mesh.Options{Program: own, Timeout: o.timeout, Facts: o.facts})
	if m == nil {
		return found, nil, err
	}
	return append(found, meshFindings(m, slices.Contains(o.ignore, preflight.Mesh))...), m, err
}

// meshHints say what to do about a way that is not there.
var meshHints = map[mesh.State]string{
	mesh.Refused:  "the firewall of the machine that is asked says no: let it pass there",
	mesh.Timeout:  "a firewall on the way, or of one of the machines, drops it: let it pass",
	mesh.NoRoute:  "look at `ip route get` on the machine that asks; firewalld says the same of what it does not let in",
	mesh.Blocked:  "the machine that asks does not let it out: look at its firewall and its routes",
	mesh.Diverted: "something on the way, or rules of the machine that is asked, lead the port elsewhere",
	mesh.Unknown:  "end the program that has the port and look again, or look by other means",
}

// meshFindings are the ways that are not there, one finding for those of a host to
// another that have the same state.
func meshFindings(m *mesh.Matrix, ignored bool) []preflight.Finding {
	type key struct {
		from, to string
		state    mesh.State
		reason   string
	}
	var order []key
	names := map[key][]string{}
	for _, c := range m.Closed() {
		k := key{c.From, c.To, c.State, c.Reason}
		if names[k] == nil {
			order = append(order, k)
		}
		names[k] = append(names[k], fmt.Sprintf("%s (%s)", c.Name(), c.For))
	}
	var out []preflight.Finding
	for _, k := range order {
		f := preflight.Finding{Check: preflight.Mesh, Host: k.from, Severity: preflight.Error, Hint: meshHints[k.state]}
		f.Text = fmt.Sprintf("to %s: %s: %s", k.to, k.state, strings.Join(names[k], ", "))
		if k.reason != "" && k.reason != string(k.state) {
			f.Text += ": " + k.reason
		}
		if k.state == mesh.Unknown {
			f.Severity = preflight.Warning
		} else if ignored {
			f.Severity, f.Ignored = preflight.Warning, true
		}
		out = append(out, f)
	}
	return out
}

func printPreflight(w io.Writer, r *preflightReport, all bool) error {
	var b strings.Builder
	counts := map[preflight.Severity]int{}
	for _, g := range grouped(r.Findings) {
		counts[g.Severity]++
		if g.Severity == preflight.OK && !all {
			continue
		}
		fmt.Fprintf(&b, "%-8s %-15s %s", g.Severity, g.Check, g.Host)
		if g.Text != "" {
			fmt.Fprintf(&b, ": %s", g.Text)
		}
		if g.Ignored {
			b.WriteString(" (ignored)")
		}
		b.WriteString("\n")
		if g.Hint != "" {
			fmt.Fprintf(&b, "%-24s > %s\n", "", g.Hint)
		}
	}
	if r.Mesh != nil {
		b.WriteString("\n")
		if err := printMesh(&b, r.Mesh, r.order); err != nil {
			return err
		}
	}
	fmt.Fprintf(&b, "\n%s: %s, %s on %s", r.Cluster, plural(counts[preflight.Error], "error"), plural(counts[preflight.Warning], "warning"), plural(len(r.Facts), "host"))
	if r.Mesh != nil {
		fmt.Fprintf(&b, "; %d of %d ways between them are there", len(r.Mesh.Cells)-len(r.Mesh.Closed()), len(r.Mesh.Cells))
		if held := r.Mesh.Held(); len(held) > 0 {
			fmt.Fprintf(&b, ", %d of them to ports that services have already (as %s of %s: %s)", len(held), held[0].Name(), held[0].To, held[0].By)
		}
	}
	b.WriteString("\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// grouped puts findings together that differ by their host alone.
func grouped(all []preflight.Finding) (out []preflight.Finding) {
	for _, f := range all {
		i := slices.IndexFunc(out, func(o preflight.Finding) bool {
			return o.Check == f.Check && o.Severity == f.Severity && o.Text == f.Text && o.Hint == f.Hint
		})
		if i < 0 {
			out = append(out, f)
			continue
		}
		out[i].Host += ", " + f.Host
	}
	return out
}

// widest is how many hosts a matrix has columns for.
const widest = 12

// printMesh draws who reaches whom: how many of the ways are there, and the names
// of those that are not.
func printMesh(w io.Writer, m *mesh.Matrix, hosts []string) error {
	if len(hosts) > widest {
		return nil // what is not there is among the findings
	}
	rows := make([][]string, 0, len(hosts))
	for _, from := range hosts {
		row := []string{from}
		for _, to := range hosts {
			row = append(row, between(m.Between(from, to)))
		}
		rows = append(rows, row)
	}
	return printTable(w, append([]string{"FROM \\ TO"}, hosts...), rows)
}

func between(cells []mesh.Cell) string {
	if len(cells) == 0 {
		return "-"
	}
	var closed []string
	for _, c := range cells {
		if !c.State.Reached() {
			closed = append(closed, c.Name())
		}
	}
	there := fmt.Sprintf("%d of %d", len(cells)-len(closed), len(cells))
	switch {
	case len(closed) == 0:
		return fmt.Sprintf("all %d", len(cells))
	case len(closed) > 3:
		return fmt.Sprintf("%s, not %s, …", there, strings.Join(closed[:3], " "))
	}
	return fmt.Sprintf("%s, not %s", there, strings.Join(closed, " "))
}
