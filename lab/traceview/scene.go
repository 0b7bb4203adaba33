package traceview

import (
	"cmp"
	"slices"
	"strings"

	"slipway/datapath/trace"
	"slipway/topology"
)

// Subtitles are what a drawing writes under the names of places: their
// addresses. Nil is fine: a trace knows those of its ends.
type Subtitles map[string]string

// SubtitlesOf takes the addresses of nodes, routers and pods from a snapshot.
func SubtitlesOf(s *topology.Snapshot) Subtitles {
	out := Subtitles{}
	for _, n := range s.Nodes {
		out[n.Name] = n.Interface.Prefix.Addr().String()
	}
	for _, r := range s.Routers {
		var legs []string
		for _, i := range r.Interfaces {
			legs = append(legs, i.Prefix.Addr().String())
		}
		out[r.Name] = strings.Join(legs, " ")
	}
	for _, p := range s.Pods {
		out[p.Key()] = p.Address.String()
	}
	return out
}

// with adds the addresses that the trace itself tells.
func (s Subtitles) with(t *trace.Trace) Subtitles {
	out := Subtitles{}
	for _, e := range []trace.Endpoint{t.Source, t.Destination} {
		if e.Pod != "" {
			out[e.Pod] = addr(e.Address)
		}
	}
	for _, b := range t.Branches {
		if b.Pod != "" && b.Endpoint.IsValid() {
			out[b.Pod] = b.Endpoint.Addr().String()
		}
	}
	for k, v := range s {
		out[k] = v
	}
	return out
}

// The rows of a drawing, from top to bottom.
const (
	rowFacing = iota // devices that face pods
	rowBridge        // the pods' bridge
	rowKernel        // routing and netfilter; in a pod, its own stack
	rowTunnel        // tunnel devices
	rowUplink        // devices that face the underlay
	rowFabric        // ports of the underlay's switch
	rows
)

// chip is a device, a kernel's network stack, or a port of the switch.
type chip struct {
	label      string
	row        int
	kernel     bool
	x, y, w, h int
}

func (c chip) centre() (int, int) { return c.x + c.w/2, c.y + c.h/2 }

// frame is a place's box.
type frame struct {
	label, sub string
	kind       placeKind
	node       string
	chips      []int
	mirrored   bool // right of the middle: the uplink is on the left
	x, y, w, h int
}

// scene is a drawing's geometry: boxes, and what the packet visits in them.
type scene struct {
	w, h   int
	frames []frame
	chips  []chip
	at     map[[2]string]int // place and element to chip
	order  map[string]int    // place to frame
}

// elementOf is what of a place a step happens at: a device, or the kernel.
func elementOf(h trace.Hop) string {
	switch h.Stage {
	case trace.Egress, trace.Ingress, trace.Wire, trace.BridgeStage, trace.Encap, trace.Decap, trace.Userspace:
		if h.Device != "" {
			return h.Device
		}
	}
	return kernelElement
}

// kernelElement stands for a namespace's IP layer: sockets, routing, netfilter.
const kernelElement = "\x00kernel"

// newScene arranges everything that the packet and its answer visit.
func newScene(t *trace.Trace, all []way, sub Subtitles) *scene {
	s := &scene{at: map[[2]string]int{}, order: map[string]int{}}
	sub = sub.with(t)
	for _, d := range all {
		list := groups(d.steps)
		for i, g := range list {
			s.visit(g, list, i, sub)
		}
	}
	s.place()
	return s
}

// visit makes sure that a group's box and elements are there, and finds the rows
// of its devices by what stands next to them on the way.
func (s *scene) visit(g group, list []group, i int, sub Subtitles) {
	f, ok := s.order[g.place]
	if !ok {
		f = len(s.frames)
		s.order[g.place] = f
		s.frames = append(s.frames, frame{label: g.place, sub: sub[g.place], kind: g.kind, node: g.node})
	}
	for j, st := range g.steps {
		e := elementOf(st.Hop)
		key := [2]string{g.place, e}
		c, ok := s.at[key]
		if !ok {
			c = len(s.chips)
			s.at[key] = c
			s.chips = append(s.chips, chip{label: e, row: -1})
			s.frames[f].chips = append(s.frames[f].chips, c)
		}
		var beside placeKind
		if j == 0 && i > 0 {
			beside = list[i-1].kind
		} else if j == len(g.steps)-1 && i+1 < len(list) {
			beside = list[i+1].kind
		}
		if r := rowOf(g.kind, e, st.Stage, beside); s.chips[c].row < 0 || r == rowUplink || r == rowTunnel {
			s.chips[c].row = r
		}
		if e == kernelElement {
			s.chips[c].kernel, s.chips[c].label = true, kernelLabel(g.kind)
		}
	}
}

func kernelLabel(k placeKind) string {
	if k == aPod {
		return "socket · IP"
	}
	return "routing · netfilter"
}

// rowOf finds a device's row: by what is beyond it, by what it does, and by the
// names that flannel and Calico give.
func rowOf(k placeKind, element string, st trace.Stage, beside placeKind) int {
	switch {
	case k == aSwitch:
		return rowFabric
	case element == kernelElement && k == aPod:
		return rowBridge
	case element == kernelElement:
		return rowKernel
	case k == aPod || beside == aPod:
		return rowFacing
	case beside != "":
		return rowUplink
	case strings.HasPrefix(element, "flannel") || strings.HasPrefix(element, "tunl") || strings.HasPrefix(element, "vxlan"):
		return rowTunnel
	case strings.HasPrefix(element, "cni") || st == trace.BridgeStage:
		return rowBridge
	case strings.HasPrefix(element, "veth") || strings.HasPrefix(element, "cali"):
		return rowFacing
	case st == trace.Encap || st == trace.Decap || st == trace.Userspace:
		return rowTunnel
	}
	return rowUplink
}

// The sizes of a drawing, in SVG user units.
const (
	chipW, chipH = 132, 34
	pitch        = 62 // from row to row
	pad          = 14
	frameHead    = 44 // name and address
	frameGap     = 46 // between boxes, where arrows pass
	titleH       = 64
	letterW      = 8 // of the widest labels, about
)

// place gives every box and chip its coordinates.
func (s *scene) place() {
	ys := s.rowPositions()
	x := pad
	hosts := s.hosts()
	for n, f := range hosts {
		fr := &s.frames[f]
		fr.mirrored = 2*n+1 > len(hosts)
		fr.x, fr.y, fr.w = x, titleH, s.frameWidth(*fr)
		last := 0
		for row := range rowFabric {
			s.placeRow(fr, row, ys[row])
			if len(s.inRow(*fr, row)) > 0 {
				last = ys[row]
			}
		}
		fr.h = last + chipH + pad - fr.y
		x += fr.w + frameGap
	}
	s.w = max(x-frameGap+pad, 420)
	s.placeFabric(ys[rowFabric])
}

// hosts are the boxes beside each other: all but the switch.
func (s *scene) hosts() []int {
	var out []int
	for i, f := range s.frames {
		if f.kind != aSwitch {
			out = append(out, i)
		}
	}
	return out
}

// rowPositions leaves out rows that nothing stands in.
func (s *scene) rowPositions() [rows]int {
	var used [rows]bool
	for _, c := range s.chips {
		used[c.row] = true
	}
	var ys [rows]int
	y := titleH + frameHead
	for r := range rows {
		if r == rowFabric {
			y += pad + 4
		}
		ys[r] = y
		if used[r] {
			y += pitch
		}
	}
	s.h = y
	return ys
}

func (s *scene) inRow(f frame, row int) []int {
	var out []int
	for _, c := range f.chips {
		if s.chips[c].row == row {
			out = append(out, c)
		}
	}
	return out
}

func (s *scene) frameWidth(f frame) int {
	n := 1
	for row := range rowFabric {
		n = max(n, len(s.inRow(f, row)))
	}
	if len(s.inRow(f, rowTunnel)) > 0 && len(s.inRow(f, rowUplink)) > 0 {
		n = max(n, 2)
	}
	label := max(len([]rune(f.label))*letterW, len([]rune(f.sub))*(letterW-1))
	return max(n*(chipW+pad)+pad, min(label, 2*chipW)+2*pad)
}

// placeRow spreads the chips of a row. Tunnels stand on the outer side and the
// uplink on the inner one, so that the way from the kernel down to the uplink
// passes beside the tunnel.
func (s *scene) placeRow(f *frame, row, y int) {
	list := s.inRow(*f, row)
	inner := f.w - 2*pad
	for i, c := range list {
		ch := &s.chips[c]
		ch.y, ch.h, ch.w = y, chipH, min(chipW, inner)
		ch.x = f.x + pad + (inner-len(list)*(chipW+pad)+pad)/2 + i*(chipW+pad)
		left := f.x + pad
		right := f.x + f.w - pad - ch.w
		switch {
		case ch.kernel:
			ch.x, ch.w = f.x+pad, inner
		case len(list) > 1 || inner < 2*chipW:
		case row == rowTunnel && f.mirrored || row == rowUplink && !f.mirrored:
			ch.x = right
		case row == rowTunnel || row == rowUplink:
			ch.x = left
		}
	}
}

// placeFabric draws the switch as a bar below, each port under the uplink that
// it belongs to, and its bridges between them.
func (s *scene) placeFabric(y int) {
	for i := range s.frames {
		f := &s.frames[i]
		if f.kind != aSwitch {
			continue
		}
		var free []int
		taken := []int{}
		for _, c := range f.chips {
			ch := &s.chips[c]
			ch.y, ch.w, ch.h = y+frameHead-22, chipW, chipH
			if x, ok := s.uplinkOf(ch.label); ok {
				ch.x = x
				taken = append(taken, x)
			} else {
				free = append(free, c)
			}
		}
		s.placeFree(free, taken)
		f.x, f.y, f.w, f.h = pad, y, s.w-2*pad, frameHead-22+chipH+pad
		s.h = f.y + f.h + pad
		y += f.h + pad
	}
	if !slices.ContainsFunc(s.frames, func(f frame) bool { return f.kind == aSwitch }) {
		s.h += pad
	}
}

// uplinkOf finds where the uplink of the machine stands that a port is named
// after.
func (s *scene) uplinkOf(port string) (int, bool) {
	f, ok := s.order[port]
	if !ok {
		return 0, false
	}
	up := s.inRow(s.frames[f], rowUplink)
	if len(up) == 0 {
		return 0, false
	}
	return s.chips[up[0]].x, true
}

// placeFree puts chips into the widest gaps between those that have their place.
func (s *scene) placeFree(free, taken []int) {
	for _, c := range free {
		edges := append([]int{pad - chipW, s.w - pad}, taken...)
		slices.Sort(edges)
		best, room := pad, -1
		for i := 1; i < len(edges); i++ {
			gap := edges[i] - edges[i-1]
			inside := edges[i-1] != pad-chipW && edges[i] != s.w-pad // between two ports is best
			if inside && gap >= 2*chipW+2*pad {
				gap += s.w
			}
			if gap > room {
				room, best = gap, (edges[i]+edges[i-1])/2
			}
		}
		s.chips[c].x = best
		taken = append(taken, best)
		slices.SortFunc(taken, cmp.Compare)
	}
}

// chipOf is where a step happens.
func (s *scene) chipOf(h trace.Hop) int { return s.at[[2]string{placeOf(h), elementOf(h)}] }
