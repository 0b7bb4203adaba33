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
	rowUplink        // devices that face the underlay, beside the tunnels
	rowFabric        // ports of the underlay's switch
	rowSwitch        // its bridges
	rows
)

// chip is a device, a kernel's network stack, or a port of the switch.
type chip struct {
	label      string
	row        int
	sure       bool // the row is known from what is beside it
	kernel     bool
	beside     []int // of a port, the machine's uplink; of the switch's bridge, its ports
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
	for _, d := range all {
		s.tie(d.steps)
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
		var beside placeKind
		if j == 0 && i > 0 {
			beside = list[i-1].kind
		} else if j == len(g.steps)-1 && i+1 < len(list) {
			beside = list[i+1].kind
		}
		c := s.chipFor(f, [2]string{g.place, elementOf(st.Hop)}, g.kind)
		if r, sure := rowOf(g.kind, elementOf(st.Hop), st.Stage, beside); s.chips[c].row < 0 || !s.chips[c].sure && (sure || r == rowTunnel) {
			s.chips[c].row, s.chips[c].sure = r, sure
		}
	}
}

// chipFor finds or makes an element of a box.
func (s *scene) chipFor(f int, key [2]string, k placeKind) int {
	c, ok := s.at[key]
	if ok {
		return c
	}
	c = len(s.chips)
	s.at[key] = c
	n := chip{label: key[1], row: -1}
	if key[1] == kernelElement {
		n.kernel, n.label = true, kernelLabel(k)
	}
	s.chips = append(s.chips, n)
	s.frames[f].chips = append(s.frames[f].chips, c)
	return c
}

// tie notes what stands next to the switch's ports and bridges on the way.
func (s *scene) tie(steps []step) {
	for i := 1; i < len(steps); i++ {
		a, b := s.chipOf(steps[i-1].Hop), s.chipOf(steps[i].Hop)
		ra, rb := s.chips[a].row, s.chips[b].row
		switch {
		case ra == rowUplink && rb == rowFabric || ra == rowFabric && rb == rowSwitch:
			a, b = b, a
		case ra == rowFabric && rb == rowUplink || ra == rowSwitch && rb == rowFabric:
		default:
			continue
		}
		if !slices.Contains(s.chips[a].beside, b) {
			s.chips[a].beside = append(s.chips[a].beside, b)
		}
	}
}

func kernelLabel(k placeKind) string {
	if k == aPod {
		return "socket · IP"
	}
	return "routing · netfilter"
}

// rowOf finds a device's row: by what is beyond it, which is sure, by what it
// does, and by the names that flannel and Calico give.
func rowOf(k placeKind, element string, st trace.Stage, beside placeKind) (row int, sure bool) {
	switch {
	case k == aSwitch && st == trace.BridgeStage:
		return rowSwitch, true
	case k == aSwitch:
		return rowFabric, true
	case element == kernelElement && k == aPod:
		return rowBridge, true
	case element == kernelElement:
		return rowKernel, true
	case k == aPod || beside == aPod:
		return rowFacing, true
	case beside != "":
		return rowUplink, true
	case strings.HasPrefix(element, "flannel") || strings.HasPrefix(element, "tunl") || strings.HasPrefix(element, "vxlan"):
		return rowTunnel, false
	case strings.HasPrefix(element, "cni") || st == trace.BridgeStage:
		return rowBridge, false
	case strings.HasPrefix(element, "veth") || strings.HasPrefix(element, "cali"):
		return rowFacing, false
	case strings.HasPrefix(element, "eth"):
		return rowUplink, false
	case st == trace.Encap || st == trace.Decap || st == trace.Userspace:
		return rowTunnel, false
	}
	return rowUplink, false
}

// The sizes of a drawing, in SVG user units.
const (
	chipW, chipH = 124, 36
	pitch        = 62 // from row to row
	pad          = 12
	frameHead    = 44 // name and address
	frameGap     = 40 // between boxes, where arrows pass
	halves       = 48 // between uplink and tunnel
	titleH       = 62
	letterW      = 8 // of the widest labels, about
	smallW       = 6.6
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
		for row := range rowTunnel {
			s.spread(fr, s.inRow(*fr, row), ys[row])
		}
		s.halve(fr, ys[rowTunnel])
		last := 0
		for _, c := range fr.chips {
			last = max(last, s.chips[c].y)
		}
		fr.h = last + chipH + pad - fr.y
		x += fr.w + frameGap
	}
	s.w = max(x-frameGap+pad, 420)
	if len(hosts) == len(s.frames) {
		s.h = titleH + frameHead
		for _, f := range s.frames {
			s.h = max(s.h, f.y+f.h+pad)
		}
	}
	s.placeFabric(ys[rowFabric], ys[rowSwitch])
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
	used[rowTunnel] = used[rowTunnel] || used[rowUplink]
	var ys [rows]int
	y := titleH + frameHead
	for r := range rows {
		switch r {
		case rowUplink: // beside the tunnels
			ys[r] = ys[rowTunnel]
			continue
		case rowFabric:
			y += pad + 6
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
	for row := range rowTunnel {
		n = max(n, len(s.inRow(f, row)))
	}
	low := len(s.inRow(f, rowTunnel)) + len(s.inRow(f, rowUplink))
	if f.kind == aNode {
		low = max(low, 2) // so that uplinks are far enough apart for the switch between them
	}
	label := max(len([]rune(f.label))*letterW, int(float64(len([]rune(f.subtitle())))*smallW))
	return max(n*(chipW+pad)+pad, low*(chipW+halves)-halves+2*pad, min(label, 2*chipW)+2*pad)
}

// spread centres the chips of a row. The kernel is as wide as its box.
func (s *scene) spread(f *frame, list []int, y int) {
	inner := f.w - 2*pad
	for i, c := range list {
		ch := &s.chips[c]
		ch.y, ch.h, ch.w = y, chipH, chipW
		ch.x = f.x + pad + (inner-len(list)*(chipW+pad)+pad)/2 + i*(chipW+pad)
		if ch.kernel {
			ch.x, ch.w = f.x+pad, inner
		}
	}
}

// halve puts uplinks on the outer side of a box and tunnels on the inner one,
// so that the way from the kernel to the uplink passes no tunnel, and the
// switch finds room between two uplinks.
func (s *scene) halve(f *frame, y int) {
	list := append(s.inRow(*f, rowUplink), s.inRow(*f, rowTunnel)...)
	if f.mirrored {
		slices.Reverse(list)
	}
	step := f.w - 2*pad - chipW
	if len(list) > 1 {
		step /= len(list) - 1
	}
	for i, c := range list {
		ch := &s.chips[c]
		ch.y, ch.h, ch.w, ch.x = y, chipH, chipW, f.x+pad+i*step
		if len(list) == 1 && f.mirrored {
			ch.x += step
		}
	}
}

// placeFabric draws the switch as a bar below: each port under the uplink that
// it belongs to, and each bridge between its ports or, where others are there,
// below them, as wide as they are apart.
func (s *scene) placeFabric(port, bridge int) {
	for i := range s.frames {
		f := &s.frames[i]
		if f.kind != aSwitch {
			continue
		}
		var free, taken []int
		for _, c := range s.inRow(*f, rowFabric) {
			ch := &s.chips[c]
			ch.y, ch.w, ch.h = port, chipW, chipH // under the uplink, if one is known
			if len(ch.beside) == 0 {
				free = append(free, c)
				continue
			}
			ch.x = s.chips[ch.beside[0]].x
			taken = append(taken, ch.x)
		}
		s.placeFree(free, taken)
		f.x, f.y, f.w = pad, port-24, s.w-2*pad
		f.h = port + chipH + pad - f.y
		if list := s.inRow(*f, rowSwitch); len(list) > 0 && !s.between2(list, s.inRow(*f, rowFabric)) {
			s.placeSwitch(list, bridge)
			f.h += bridge - port
		}
		s.h = f.y + f.h + pad
	}
}

// between2 puts a lone bridge between its only two ports.
func (s *scene) between2(bridges, ports []int) bool {
	if len(bridges) != 1 || len(ports) != 2 {
		return false
	}
	p, q := s.chips[ports[0]], s.chips[ports[1]]
	if p.x > q.x {
		p, q = q, p
	}
	room := q.x - p.x - p.w - 2*halves
	if room < chipW {
		return false
	}
	b := &s.chips[bridges[0]]
	b.x, b.y, b.w, b.h = p.x+p.w+halves, p.y, room, p.h
	return true
}

// placeSwitch stretches bridges below their ports. Where they would touch, each
// gets a share of the room.
func (s *scene) placeSwitch(list []int, y int) {
	for i, c := range list {
		ch := &s.chips[c]
		ch.y, ch.h = y, chipH
		ch.x, ch.w = 2*pad, s.w-4*pad
		if len(ch.beside) > 0 {
			left, right := s.w, 0
			for _, p := range ch.beside {
				left, right = min(left, s.chips[p].x), max(right, s.chips[p].x+s.chips[p].w)
			}
			ch.x, ch.w = left, right-left
		}
		for _, o := range list[:i] {
			if s.chips[o].x < ch.x+ch.w && ch.x < s.chips[o].x+s.chips[o].w {
				s.share(list)
				return
			}
		}
	}
}

// share gives chips of one row equal room.
func (s *scene) share(list []int) {
	w := (s.w - 4*pad) / len(list)
	for i, c := range list {
		s.chips[c].x, s.chips[c].w = 2*pad+i*w, w-pad
		s.chips[c].y, s.chips[c].h = s.chips[list[0]].y, chipH
	}
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
