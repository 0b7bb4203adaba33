package services

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"

	"slipway/topology"
)

// TreeOptions of a drawing.
type TreeOptions struct {
	Rules bool // each rule verbatim below what it means
}

// Columns of a drawing: 100 in all.
const (
	treeWidth = 100
	ownWidth  = 7
	effWidth  = 10
	pktWidth  = 9
	byteWidth = 10
	textWidth = treeWidth - ownWidth - effWidth - pktWidth - byteWidth
)

// WriteTree draws a service's rules as a tree: what a packet to it meets, in
// order, with the own and the effective probability of each choice and the
// rules' counters. Lines have at most 100 columns, rules verbatim excepted.
func (v *View) WriteTree(w io.Writer, o TreeOptions) error {
	d := &drawing{opts: o}
	program := v.Program + " -c"
	if v.Mode == string(topology.ProxyNFTables) {
		program = "nft list table ip kube-proxy"
	}
	fmt.Fprintf(&d.b, "%s (%s), as node %s has it, read with %s\n", v.Service, v.Type, v.Node, program)
	for i := range v.Ports {
		d.b.WriteString("\n")
		d.port(&v.Ports[i])
	}
	if v.Others != nil {
		d.others(v)
	}
	_, err := io.WriteString(w, d.b.String())
	return err
}

// drawing is a tree that is being drawn.
type drawing struct {
	b     strings.Builder
	opts  TreeOptions
	drawn map[string]bool // chains
	last  string          // the rule that was last drawn verbatim
}

func (d *drawing) port(p *PortView) {
	d.drawn = map[string]bool{}
	d.row(clip(fmt.Sprintf("%s, port %d/%s", p.Name, p.Port, p.Protocol), textWidth), "OWN", "EFFECTIVE", "PACKETS", "BYTES")
	var kids []func(head, rest string)
	for i := range p.Entries {
		e := &p.Entries[i]
		kids = append(kids, func(head, rest string) {
			d.rule(head, rest, e.In+": "+e.where(), "", &e.Rule)
			if c := p.Chain(e.Rule.Target); c != nil {
				branch(rest, []func(head, rest string){func(head, rest string) {
					d.b.WriteString(head + d.title(c) + "\n")
					d.chain(rest, p, c)
				}})
			}
		})
	}
	for i := range p.Refusals {
		r := &p.Refusals[i]
		kids = append(kids, func(head, rest string) {
			in := "filter " + r.In
			if p.nft {
				in = r.In
			}
			d.rule(head, rest, in+" → "+strings.ToUpper(r.Rule.Does), r.where()+r.Rule.why(), &r.Rule)
		})
	}
	if len(kids) == 0 {
		d.b.WriteString("└─ no rule is about this port\n")
	}
	branch("", kids)
}

// branch draws children below a line that begins with indent.
func branch(indent string, kids []func(head, rest string)) {
	for i, kid := range kids {
		if i == len(kids)-1 {
			kid(indent+"└─ ", indent+"   ")
		} else {
			kid(indent+"├─ ", indent+"│  ")
		}
	}
}

// title names a chain.
func (d *drawing) title(c *ChainView) string {
	out := c.Name
	if c.Role != RoleOther && c.Role != RoleEndpoint {
		out += " (" + string(c.Role) + ")"
	}
	if d.drawn[c.Name] {
		out += ", as above"
	}
	return out
}

// chain draws what is in a chain, once.
func (d *drawing) chain(indent string, p *PortView, c *ChainView) {
	if d.drawn[c.Name] {
		return
	}
	d.drawn[c.Name] = true
	var kids []func(head, rest string)
	for i := range c.Rules {
		r := &c.Rules[i]
		to := p.Chain(r.Target)
		later := r.affinityOnly && d.comesAgain(c, i)
		kids = append(kids, func(head, rest string) {
			brief := r.brief()
			if to != nil && !later && !r.Unknown {
				brief = r.condition() + d.title(to) + r.rest()
			}
			d.rule(head, rest, brief, r.whose(), r)
			if to != nil && !later {
				d.chain(rest, p, to)
			}
		})
	}
	branch(indent, kids)
}

// comesAgain reports whether a later rule leads to the same chain, which is
// then drawn there: affinity's rules come before those that share out.
func (d *drawing) comesAgain(c *ChainView, i int) bool {
	for _, r := range c.Rules[i+1:] {
		if r.Target == c.Rules[i].Target {
			return true
		}
	}
	return false
}

// rule draws a rule with its figures; more is shown behind it if there is room,
// else below.
func (d *drawing) rule(head, rest, brief, more string, r *RuleView) {
	text := head + brief
	if more != "" && utf8.RuneCountInString(text)+2+utf8.RuneCountInString(more) <= textWidth {
		text, more = text+"  "+more, ""
	}
	if utf8.RuneCountInString(text) > textWidth {
		d.b.WriteString(clip(text, treeWidth) + "\n")
		text = strings.TrimRight(rest, " ")
	}
	d.row(text, fraction(r.Own), fraction(r.Effective), count(r.Packets), count(r.Bytes))
	if more != "" {
		d.b.WriteString(clip(rest+"  "+more, treeWidth) + "\n")
	}
	if d.opts.Rules && r.Text != d.last {
		d.b.WriteString(rest + "  " + r.Text + "\n")
		d.last = r.Text // one rule may be several choices
	}
}

func (d *drawing) row(text, own, effective, packets, bytes string) {
	pad := max(0, textWidth-utf8.RuneCountInString(text))
	if own+effective+packets+bytes == "" && strings.Trim(text, "│ ") == "" {
		return
	}
	line := fmt.Sprintf("%s%s%*s%*s%*s%*s", text, strings.Repeat(" ", pad), ownWidth, own, effWidth, effective, pktWidth, packets, byteWidth, bytes)
	d.b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// others says how other nodes compare.
func (d *drawing) others(v *View) {
	c := v.Others
	d.b.WriteString("\n")
	switch {
	case c.Of == 1:
		d.b.WriteString("It is the only node with services.\n")
	case len(c.Different) == 0 && c.Compared == c.Of:
		fmt.Fprintf(&d.b, "The same on all %d nodes.\n", c.Of)
	case len(c.Different) == 0:
		fmt.Fprintf(&d.b, "The same on the %d nodes looked at, of %d.\n", c.Compared, c.Of)
	default:
		if len(c.Same) > 1 {
			d.b.WriteString(clip("The same on "+strings.Join(c.Same, ", ")+".", treeWidth) + "\n")
		}
		for _, x := range c.Different {
			fmt.Fprintf(&d.b, "Different on %s: lacks %s of these rules and has %s of its own (see it with --node %s).\n", x.Node, number(len(x.Missing)), number(len(x.Extra)), x.Node)
		}
		if c.Compared < c.Of {
			fmt.Fprintf(&d.b, "%d of %d nodes were looked at.\n", c.Compared, c.Of)
		}
	}
}

func number(n int) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprint(n)
}

// where says what an entry is for.
func (e *Entry) where() string { return place(e.Via, e.Address.String(), e.Address.IsValid(), e.Port) }

// where says what a refusal is about.
func (r *Refusal) where() string {
	return place(r.Via, r.Address.String(), r.Address.IsValid(), r.Port)
}

var viaNames = map[Via]string{
	ViaClusterIP: "cluster IP", ViaExternalIP: "external IP", ViaLoadBalancer: "load balancer IP", ViaNodePort: "node port",
}

func place(via Via, addr string, hasAddr bool, port int) string {
	if !hasAddr {
		return fmt.Sprintf("%s %d", viaNames[via], port)
	}
	return fmt.Sprintf("%s %s:%d", viaNames[via], addr, port)
}

// brief says what a rule does, in a few words.
func (r *RuleView) brief() string {
	said := r.condition()
	if r.Unknown {
		return said + "not understood"
	}
	if r.Remembers {
		said += "remember the client, "
	}
	switch r.Does {
	case "mark":
		return said + "masquerade mark"
	case "jump":
		return said + r.Target + r.rest()
	case "dnat":
		if r.Endpoint != nil {
			return said + "DNAT to " + r.Endpoint.Address.String()
		}
		return said + "DNAT"
	case "none":
		return said + "no target, only counts"
	case "remember":
		return strings.TrimSuffix(said, ", ")
	default:
		return said + strings.ToUpper(r.Does)
	}
}

// condition is what comes before what a rule does.
func (r *RuleView) condition() string {
	if len(r.When) == 0 {
		return ""
	}
	return strings.Join(r.When, " ") + ": "
}

func (r *RuleView) rest() string {
	if r.Last {
		return " (the rest)"
	}
	return ""
}

// whose names who is behind a DNAT.
func (r *RuleView) whose() string {
	if r.Does != "dnat" || r.Endpoint == nil {
		return ""
	}
	return r.Endpoint.who()
}

func (e *EndpointView) who() string {
	switch {
	case e.Pod != "":
		return e.Pod + " on " + e.Node
	case e.Node != "":
		return "node " + e.Node
	default:
		return "unknown to the lab"
	}
}

// why is the reason in the comment of a rule of table filter.
func (r *RuleView) why() string {
	if strings.Contains(r.Text, " : goto firewall-") && len(r.When) > 0 {
		return " if " + strings.Join(r.When, " and ")
	}
	for _, s := range []struct{ comment, said string }{
		{"has no local endpoints", " has no local endpoints"}, {"has no endpoints", " has no endpoints"},
		{"health check node port", " for health checks"}, {"traffic not accepted by", " from a source that is not allowed"},
	} {
		if strings.Contains(r.Text, s.comment) {
			return s.said
		}
	}
	return ""
}

// fraction writes a probability as a fraction if it is close to one with a
// small denominator: the kernel keeps 31 bits of it.
func fraction(p *float64) string {
	if p == nil {
		return ""
	}
	return Fraction(*p)
}

// Fraction writes a probability: "1/3", "1", or "0.4142".
func Fraction(p float64) string {
	const near, largest = 2e-9, 999
	if p == 0 || math.Abs(p-1) < near {
		return fmt.Sprint(math.Round(p))
	}
	for d := 2; d <= largest; d++ {
		n := math.Round(p * float64(d))
		if n >= 1 && math.Abs(p-n/float64(d)) < near {
			return fmt.Sprintf("%.0f/%d", n, d)
		}
	}
	return fmt.Sprintf("%.4f", p)
}

func count(n *uint64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return s
}
