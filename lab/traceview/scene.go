package traceview

import (
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

// chipOf is where a step happens.
func (s *scene) chipOf(h trace.Hop) int { return s.at[[2]string{placeOf(h), elementOf(h)}] }
