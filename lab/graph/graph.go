// Package graph draws a lab's topology: segments as racks, routers between
// them, nodes with their pods, services with their endpoints. Pure: a snapshot
// in, text out.
package graph

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"slipway/topology"
)

// Format names a way of drawing.
type Format string

// The formats.
const (
	Mermaid Format = "mermaid"
	DOT     Format = "dot"
	SVG     Format = "svg"
	HTML    Format = "html"
)

// Formats lists what [Write] knows.
func Formats() []Format { return []Format{Mermaid, DOT, SVG, HTML} }

// Write draws s to w.
func Write(w io.Writer, f Format, s *topology.Snapshot) error {
	var out string
	switch f {
	case Mermaid:
		out = mermaid(s)
	case DOT:
		out = dot(s)
	case SVG:
		out = svg(s)
	case HTML:
		out = html(s)
	default:
		return fmt.Errorf("draw graph: format %q is not one of %v", f, Formats())
	}
	_, err := io.WriteString(w, out)
	return err
}

// rack is a segment with the nodes plugged into it.
type rack struct {
	topology.Segment
	nodes []topology.NodeState
}

func racks(s *topology.Snapshot) []rack {
	var out []rack
	for _, g := range s.Segments {
		r := rack{Segment: g}
		for _, n := range s.Nodes {
			if n.Segment == g.Name {
				r.nodes = append(r.nodes, n)
			}
		}
		out = append(out, r)
	}
	return out
}

// podRange is what a node hands out to its pods.
func podRange(n topology.NodeState) string {
	if n.PodCIDR.IsValid() {
		return n.PodCIDR.String()
	}
	var out []string
	for _, b := range n.Blocks {
		out = append(out, b.String())
	}
	return strings.Join(out, " ")
}

// id makes a name safe as an identifier of Mermaid and DOT.
func id(kind string, parts ...string) string {
	clean := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}
	return kind + "_" + strings.Map(clean, strings.Join(parts, "__"))
}

// serving lists the pods behind a service, each once.
func serving(v topology.Service) []string {
	var out []string
	for _, p := range v.Ports {
		for _, e := range p.Endpoints {
			if e.Pod != "" && !slices.Contains(out, e.Pod) {
				out = append(out, e.Pod)
			}
		}
	}
	return out
}

func mermaid(s *topology.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%%%% lab %s, %s\nflowchart TB\n", s.Lab, s.Network.Mode)
	for _, r := range racks(s) {
		fmt.Fprintf(&b, "  subgraph %s[\"%s %s\"]\n", id("seg", r.Name), r.Name, r.Subnet)
		for _, n := range r.nodes {
			fmt.Fprintf(&b, "    subgraph %s[\"%s %s<br>%s\"]\n", id("node", n.Name), n.Name, n.Address, podRange(n))
			for _, p := range s.PodsOn(n.Name) {
				fmt.Fprintf(&b, "      %s[\"%s<br>%s\"]\n", id("pod", p.Key()), p.Name, p.Address)
			}
			b.WriteString("    end\n")
		}
		b.WriteString("  end\n")
	}
	for _, r := range s.Routers {
		fmt.Fprintf(&b, "  %s{{\"%s\"}}\n", id("router", r.Name), r.Name)
		for _, i := range r.Interfaces {
			fmt.Fprintf(&b, "  %s ---|%s| %s\n", id("router", r.Name), i.Prefix.Addr(), id("seg", i.Segment))
		}
	}
	for _, v := range s.Services {
		fmt.Fprintf(&b, "  %s([\"%s<br>%s\"])\n", id("svc", v.Key()), v.Name, clusterIP(v))
		for _, p := range serving(v) {
			fmt.Fprintf(&b, "  %s -.-> %s\n", id("svc", v.Key()), id("pod", p))
		}
	}
	return b.String()
}

func clusterIP(v topology.Service) string {
	if v.ClusterIP.IsValid() {
		return v.ClusterIP.String()
	}
	return "headless"
}

func dot(s *topology.Snapshot) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// lab %s, %s\ndigraph %s {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\"]; compound=true;\n", s.Lab, s.Network.Mode, id("lab", s.Lab))
	for _, r := range racks(s) {
		fmt.Fprintf(&b, "  subgraph cluster_%s {\n    label=\"%s %s\";\n    %s [label=\"%s\", shape=underline];\n", id("seg", r.Name), r.Name, r.Subnet, id("seg", r.Name), r.Name)
		for _, n := range r.nodes {
			fmt.Fprintf(&b, "    subgraph cluster_%s {\n      label=\"%s %s\\n%s\";\n      %s [label=\"eth0\", shape=plain];\n", id("node", n.Name), n.Name, n.Address, podRange(n), id("eth", n.Name))
			for _, p := range s.PodsOn(n.Name) {
				fmt.Fprintf(&b, "      %s [label=\"%s\\n%s\"];\n      %s -> %s [dir=none];\n", id("pod", p.Key()), p.Name, p.Address, id("eth", n.Name), id("pod", p.Key()))
			}
			fmt.Fprintf(&b, "    }\n    %s -> %s [dir=none];\n", id("seg", r.Name), id("eth", n.Name))
		}
		b.WriteString("  }\n")
	}
	for _, r := range s.Routers {
		fmt.Fprintf(&b, "  %s [label=\"%s\", shape=hexagon];\n", id("router", r.Name), r.Name)
		for _, i := range r.Interfaces {
			fmt.Fprintf(&b, "  %s -> %s [dir=none, label=\"%s\"];\n", id("router", r.Name), id("seg", i.Segment), i.Prefix.Addr())
		}
	}
	for _, v := range s.Services {
		fmt.Fprintf(&b, "  %s [label=\"%s\\n%s\", shape=ellipse];\n", id("svc", v.Key()), v.Name, clusterIP(v))
		for _, p := range serving(v) {
			fmt.Fprintf(&b, "  %s -> %s [style=dashed];\n", id("svc", v.Key()), id("pod", p))
		}
	}
	b.WriteString("}\n")
	return b.String()
}
