package traceview

import (
	"cmp"
	"slices"
)

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

// spread places the chips of a row: those that face pods from the outer side
// on, others in the middle, so that a packet can pass beside a bridge, as it
// does where netfilter sees bridged packets. The kernel is as wide as its box.
func (s *scene) spread(f *frame, list []int, y int) {
	inner := f.w - 2*pad
	for i, c := range list {
		ch := &s.chips[c]
		ch.y, ch.h, ch.w = y, chipH, chipW
		ch.x = f.x + pad + (inner-len(list)*(chipW+pad)+pad)/2 + i*(chipW+pad)
		switch {
		case ch.kernel:
			ch.x, ch.w = f.x+pad, inner
		case ch.row != rowFacing || f.kind != aNode:
		case len(list) > 1:
			ch.x = f.x + pad + i*(inner-chipW)/(len(list)-1)
		case f.mirrored:
			ch.x = f.x + f.w - pad - chipW
		default:
			ch.x = f.x + pad
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
