package services

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Explanation is a service's rules in sentences.
type Explanation struct {
	Service string            `json:"service"`
	Node    string            `json:"node"`
	Ports   []PortExplanation `json:"ports"`
}

// PortExplanation is what happens at one port.
type PortExplanation struct {
	Name     string    `json:"name"`
	Port     int       `json:"port"`
	Protocol string    `json:"protocol"`
	Parts    []Section `json:"parts"`
}

// Section is a question and its answer, step by step.
type Section struct {
	Title string   `json:"title"`
	Steps []string `json:"steps"`
}

// Explain says a view's rules in sentences.
func Explain(v *View) *Explanation {
	e := &Explanation{Service: v.Service, Node: v.Node, Ports: []PortExplanation{}}
	for i := range v.Ports {
		p := &v.Ports[i]
		e.Ports = append(e.Ports, PortExplanation{Name: p.Name, Port: p.Port, Protocol: p.Protocol, Parts: p.Explain(v.Node)})
	}
	return e
}

// Explain says what happens at the port, as the rules of a node have it.
func (p *PortView) Explain(node string) []Section {
	if p.nft {
		return (&nftExplainer{p: p, node: node}).sections()
	}
	x := &explainer{p: p, node: node}
	parts := []Section{}
	add := func(title string, steps []string) {
		if len(steps) > 0 {
			parts = append(parts, Section{Title: title, Steps: steps})
		}
	}
	add("Where it begins", x.beginning())
	for _, e := range p.Entries {
		add("To "+e.sentence(), x.entry(e))
	}
	add("What is refused", x.refusals())
	add("How an endpoint is chosen", x.choice())
	add("Session affinity", x.affinity())
	add("At the endpoint's chain", x.endpoint())
	add("When the client's address is lost", x.masquerade())
	return parts
}

// Write writes an explanation for reading, in lines of at most 100 columns.
func (e *Explanation) Write(w io.Writer) error {
	var b strings.Builder
	for i, p := range e.Ports {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%s, port %d/%s, as node %s has it\n", p.Name, p.Port, p.Protocol, e.Node)
		for _, part := range p.Parts {
			b.WriteString("\n" + part.Title + "\n")
			for i, s := range part.Steps {
				for n, line := range wrap(s, treeWidth-5) {
					head := fmt.Sprintf("  %d. ", i+1)
					if n > 0 {
						head = "     "
					}
					b.WriteString(head + line + "\n")
				}
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap breaks a text at blanks into lines of at most width columns.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(s) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

func (e *Entry) sentence() string {
	if e.Via == ViaNodePort {
		return fmt.Sprintf("node port %d of any node", e.Port)
	}
	return "the " + e.where()
}

// explainer says one port's rules.
type explainer struct {
	p    *PortView
	node string
}

func (x *explainer) beginning() []string {
	if len(x.p.Entries) == 0 {
		return nil
	}
	return []string{
		fmt.Sprintf("No device and no process has the service's address: it exists only in rules like these, on every node. A packet meets them in table nat of the node that it comes to first: hook PREROUTING if it comes from a pod of %s or from outside, hook OUTPUT if a process of the node itself sends it.", x.node),
		"Only the first packet of a connection goes through them. Connection tracking (conntrack) writes down what they decided, does the same to every later packet, and puts the service's address back into the answers.",
	}
}

// entry says what a way in leads to.
func (x *explainer) entry(e Entry) []string {
	var out []string
	target := e.Rule.Target
	switch {
	case e.Rule.Does != "jump":
		return []string{fmt.Sprintf("%s: %s.", e.In, e.Rule.brief())}
	case e.Via == ViaNodePort:
		out = append(out, fmt.Sprintf("The last rule of KUBE-SERVICES sends what goes to any address of the node itself (addrtype LOCAL) to KUBE-NODEPORTS, where port %d leads to %s.", e.Port, target))
	default:
		out = append(out, fmt.Sprintf("In KUBE-SERVICES the rule for %s:%d leads to %s.", e.Address, e.Port, target))
	}
	c := x.p.Chain(target)
	if c == nil {
		return append(out, fmt.Sprintf("There is no chain %s: nothing is translated.", target))
	}
	return append(out, x.way(c, e)...)
}

// way says what a chain does before an endpoint is chosen.
func (x *explainer) way(c *ChainView, e Entry) []string {
	var out []string
	for _, r := range c.Rules {
		if roleOf(r.Target) == RoleEndpoint || r.onlyTo != "" && r.onlyTo != e.Address.String() {
			continue
		}
		switch s := x.step(c, r); {
		case s == "":
		case r.Does == "jump":
			out = append(out, s)
			if next := x.p.Chain(r.Target); next != nil && len(r.When) == 0 { // everything that comes here goes there
				out = append(out, x.way(next, e)...)
			}
		default:
			out = append(out, s)
		}
	}
	if c.Role == RoleCluster || c.Role == RoleLocal {
		out = append(out, c.spread())
	}
	return out
}

// spread says which endpoints a chain shares connections out to.
func (c *ChainView) spread() string {
	n := len(c.endpoints())
	whose := "all endpoints"
	if c.Role == RoleLocal {
		whose = "the endpoints on this node only (policy Local)"
	}
	switch n {
	case 0:
		return fmt.Sprintf("%s, for %s, leads to none.", c.Name, whose)
	case 1:
		return fmt.Sprintf("%s, for %s, has a single one: %s.", c.Name, whose, c.endpoints()[0].Endpoint.said())
	default:
		return fmt.Sprintf("%s, for %s, chooses one of %d.", c.Name, whose, n)
	}
}

// endpoints are the rules that chance chooses between.
func (c *ChainView) endpoints() []RuleView {
	var out []RuleView
	for _, r := range c.Rules {
		if roleOf(r.Target) == RoleEndpoint && !r.affinityOnly && r.Endpoint != nil {
			out = append(out, r)
		}
	}
	return out
}

func (e *EndpointView) said() string { return e.Address.String() + " (" + e.who() + ")" }

// step says one rule that comes before the choice.
func (x *explainer) step(c *ChainView, r RuleView) string {
	when := r.sentence(c)
	switch r.Does {
	case "mark":
		return begin(when, "the packet is marked for masquerade ("+chainMark+")"+x.whyMarked(c, r)+".")
	case "jump":
		it := "it goes to "
		if when == "" && slices.ContainsFunc(c.Rules, func(other RuleView) bool { return other.Does == "jump" && len(other.When) > 0 }) {
			it = "everything else goes to "
		}
		return begin(when, it+x.destination(c, r)+".")
	case "none":
		if c.Role == RoleSources {
			return "What comes to the end of " + c.Name + " is translated by nothing, and " + chainFirewall + " in table filter drops it."
		}
		return ""
	default:
		return begin(when, r.brief()+" ("+r.Text+").")
	}
}

// destination says what is special about a chain that a rule leads to.
func (x *explainer) destination(c *ChainView, r RuleView) string {
	switch roleOf(r.Target) {
	case RoleCluster:
		if c.Role == RoleExternal && len(r.When) > 0 {
			return r.Target + ", which knows all endpoints: it is not held to the policy Local"
		}
		return r.Target + ", which knows all endpoints"
	case RoleLocal:
		return r.Target + ", which knows the endpoints on this node only (externalTrafficPolicy: Local). It was not marked, so the endpoint sees the client's own address"
	case RoleExternal:
		if c.Role == RoleSources {
			return r.Target + ": the source is allowed (loadBalancerSourceRanges)"
		}
	}
	return r.Target
}

// begin makes a sentence of a condition, which may be empty, and the rest.
func begin(when, rest string) string {
	if when == "" {
		return strings.ToUpper(rest[:1]) + rest[1:]
	}
	return when + ", " + rest
}

// sentence is the condition of a rule; kube-proxy tells pods by their network.
func (r *RuleView) sentence(c *ChainView) string {
	when := r.others()
	pods := c.Role != RoleSources && strings.Contains(r.onlySource, "/")
	switch {
	case len(when) == 0:
		return ""
	case len(when) > 1:
		return "If it is " + strings.Join(when, " and ")
	case r.fromNode:
		return "If a process of the node itself sent it"
	case r.notSource && pods:
		return "If it does not come from a pod (" + r.onlySource + ")"
	case r.onlySource != "" && !r.notSource && pods:
		return "If it comes from a pod (" + r.onlySource + ")"
	case r.onlySource != "":
		return "If it comes " + when[0]
	default:
		return "If it is " + when[0]
	}
}

func (x *explainer) whyMarked(c *ChainView, r RuleView) string {
	switch {
	case c.Role == RoleExternal && len(r.When) == 0:
		return ": the endpoint may be on another node, and its answer has to come back through this one, which alone can put the service's address back"
	case r.notSource:
		return ": the answer to a sender outside the pod network has to come back through this node"
	default:
		return ""
	}
}
