package graph

import (
	"fmt"
	"html/template"
	"strings"

	"slipway/topology"
)

// Sizes of the drawing, in SVG user units.
const (
	podW, podH     = 248, 40
	gap            = 12
	headH          = 46 // of a node: name, address, pod range
	nodeW          = podW + 2*gap
	rackHeadH      = 30
	routerH        = 44
	serviceH       = 40
	serviceGap     = 16
	lineH          = 16
	maxPodsPerNode = 12 // more are summed up in a line
)

// column is a rack as it is drawn.
type column struct {
	rack
	x, w, h int
}

// svg draws services on top, racks side by side below, each node with its
// pods, and routers at the foot with a line to each rack.
func svg(s *topology.Snapshot) string {
	var b strings.Builder
	cols, width, rackH := layout(s)
	top := 40
	if len(s.Services) > 0 {
		top += serviceH + 50
	}
	height := top + rackH + gap
	if len(s.Routers) > 0 {
		height += 60 + routerH
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="system-ui, sans-serif" font-size="12">`+"\n", width, height, width, height)
	b.WriteString(style)
	text(&b, gap, 24, "title", fmt.Sprintf("%s — %s", s.Lab, s.Network.Mode))
	pods := map[string][2]int{}
	var boxes strings.Builder
	for _, c := range cols {
		drawRack(&boxes, s, c, top, rackH, pods)
	}
	b.WriteString(boxes.String())
	drawServices(&b, s, 40, pods)
	drawRouters(&b, s, cols, top+rackH, width)
	b.WriteString("</svg>\n")
	return b.String()
}

const style = `<style>
  .rack{fill:#f4f6f8;stroke:#8a97a5} .node{fill:#fff;stroke:#3b6ea5} .pod{fill:#e3f1e5;stroke:#4b8b57}
  .svc{fill:#fdf1d8;stroke:#b9892f} .router{fill:#ece4f5;stroke:#7d5ba6} .line{stroke:#8a97a5;fill:none}
  .use{stroke:#b9892f;stroke-dasharray:4 3;fill:none;opacity:.65} text{fill:#1d2730} .small{font-size:11px;fill:#4a5966}
  .title{font-size:16px;font-weight:600} .name{font-weight:600}
</style>
`

func layout(s *topology.Snapshot) (cols []column, width, rackH int) {
	x := gap
	for _, r := range racks(s) {
		c := column{rack: r, x: x, w: max(1, len(r.nodes))*(nodeW+gap) + gap, h: rackHeadH + headH + gap}
		for _, n := range r.nodes {
			c.h = max(c.h, rackHeadH+nodeHeight(len(s.PodsOn(n.Name)))+2*gap)
		}
		cols = append(cols, c)
		x += c.w + gap
		rackH = max(rackH, c.h)
	}
	return cols, max(x, 480, len(s.Services)*(podW+serviceGap)+2*gap), rackH
}

func nodeHeight(pods int) int { return headH + min(pods, maxPodsPerNode+1)*(podH+gap) + gap }

func drawRack(b *strings.Builder, s *topology.Snapshot, c column, y, h int, pods map[string][2]int) {
	box(b, "rack", c.x, y, c.w, h)
	text(b, c.x+gap, y+20, "name", fmt.Sprintf("%s · %s · mtu %d", c.Name, c.Subnet, c.MTU))
	for i, n := range c.nodes {
		x, top := c.x+gap+i*(nodeW+gap), y+rackHeadH+gap
		list := s.PodsOn(n.Name)
		box(b, "node", x, top, nodeW, nodeHeight(len(list)))
		text(b, x+gap, top+18, "name", n.Name+" · "+n.Address.String())
		text(b, x+gap, top+18+lineH, "small", "pods "+podRange(n))
		for j, p := range list {
			py := top + headH + j*(podH+gap)
			if j == maxPodsPerNode {
				text(b, x+gap, py+20, "small", fmt.Sprintf("and %d more", len(list)-j))
				break
			}
			box(b, "pod", x+gap, py, podW, podH)
			text(b, x+gap+8, py+16, "", p.Name)
			text(b, x+gap+8, py+16+lineH, "small", p.Address.String())
			pods[p.Key()] = [2]int{x + gap + podW/2, py}
		}
	}
}

func drawServices(b *strings.Builder, s *topology.Snapshot, y int, pods map[string][2]int) {
	for i, v := range s.Services {
		x := gap + i*(podW+serviceGap)
		for _, key := range serving(v) {
			if p, ok := pods[key]; ok {
				fmt.Fprintf(b, `<path class="use" d="M%d %d C %d %d, %d %d, %d %d"/>`+"\n", x+podW/2, y+serviceH, x+podW/2, y+serviceH+60, p[0], p[1]-60, p[0], p[1])
			}
		}
		fmt.Fprintf(b, `<rect class="svc" x="%d" y="%d" width="%d" height="%d" rx="20"/>`+"\n", x, y, podW, serviceH)
		text(b, x+18, y+17, "name", v.Name)
		text(b, x+18, y+17+lineH, "small", clusterIP(v)+" · "+string(v.Type))
	}
}

func drawRouters(b *strings.Builder, s *topology.Snapshot, cols []column, y, width int) {
	for i, r := range s.Routers {
		x := (width*(2*i+1))/(2*len(s.Routers)) - nodeW/2
		for _, leg := range r.Interfaces {
			for _, c := range cols {
				if c.Name == leg.Segment {
					fmt.Fprintf(b, `<path class="line" d="M%d %d L%d %d"/>`+"\n", x+nodeW/2, y+60, c.x+c.w/2, y)
				}
			}
		}
		box(b, "router", x, y+60, nodeW, routerH)
		text(b, x+gap, y+78, "name", r.Name)
		var legs []string
		for _, leg := range r.Interfaces {
			legs = append(legs, leg.Prefix.Addr().String())
		}
		text(b, x+gap, y+78+lineH, "small", strings.Join(legs, " · "))
	}
}

func box(b *strings.Builder, class string, x, y, w, h int) {
	fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`+"\n", class, x, y, w, h)
}

func text(b *strings.Builder, x, y int, class, s string) {
	fmt.Fprintf(b, `<text x="%d" y="%d" class="%s">%s</text>`+"\n", x, y, class, template.HTMLEscapeString(clip(s)))
}

// clip keeps a label inside its box.
func clip(s string) string {
	const most = 36
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func html(s *topology.Snapshot) string {
	return "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>" + template.HTMLEscapeString(s.Lab) +
		"</title>\n<body style=\"margin:1rem;background:#fff\">\n" + svg(s) + "</body></html>\n"
}
