package traceview

// arrow is a move of the packet from chip to chip.
type arrow struct {
	from, to       int
	number         int
	reply          bool
	pred, obs      bool
	x1, y1, x2, y2 int
	dip            int // how far down it bends, past chips that stand between
}

// moves finds the arrows of a trace, and for each step of each way the number
// of the arrow that led to it; zero is the start.
func (s *scene) moves(all []way) ([]arrow, [][]int) {
	var out []arrow
	arrived := make([][]int, len(all))
	for w, d := range all {
		last := [2]int{-1, -1} // on the predicted and on the observed side
		for _, st := range d.steps {
			c := s.chipOf(st.Hop)
			on := [2]bool{st.pred != nil, st.obs != nil || st.mark == plain && d.compared && !st.ghost}
			n := s.move(&out, last, on, c, d.reply, d.compared)
			for i := range on {
				if on[i] {
					last[i] = c
				}
			}
			if n == 0 && len(arrived[w]) > 0 {
				n = arrived[w][len(arrived[w])-1]
			}
			arrived[w] = append(arrived[w], n)
		}
	}
	s.route(out)
	return out, arrived
}

// move adds the arrows that lead to chip c: one where both sides came from the
// same place, or where only one side is known at all. It returns the number of the last one added; zero if none was.
func (s *scene) move(out *[]arrow, last [2]int, on [2]bool, c int, reply, both bool) int {
	number := 0
	add := func(from int, pred, obs bool) {
		if from < 0 || from == c {
			return
		}
		number = len(*out) + 1
		*out = append(*out, arrow{from: from, to: c, number: number, reply: reply, pred: pred, obs: obs})
	}
	if on[0] && on[1] && last[0] == last[1] || !both {
		add(max(last[0], last[1]), true, true)
		return number
	}
	if on[0] {
		add(last[0], true, false)
	}
	if on[1] {
		add(last[1], false, true)
	}
	return number
}

// lane is the widest distance between two arrows side by side.
const lane = 20

// route gives arrows between the same two chips lanes beside each other, and
// finds their ends.
func (s *scene) route(list []arrow) {
	pairOf := func(a arrow) [2]int { return [2]int{min(a.from, a.to), max(a.from, a.to)} }
	count, used := map[[2]int]int{}, map[[2]int]int{}
	for _, a := range list {
		count[pairOf(a)]++
	}
	for i := range list {
		a := &list[i]
		n := count[pairOf(*a)]
		s.ends(a, used[pairOf(*a)], n)
		used[pairOf(*a)]++
	}
}

// ends draws straight down or across where two chips overlap, else from edge
// to edge.
func (s *scene) ends(a *arrow, slot, n int) {
	p, q := s.chips[a.from], s.chips[a.to]
	left, right := max(p.x, q.x), min(p.x+p.w, q.x+q.w)
	top, bottom := max(p.y, q.y), min(p.y+p.h, q.y+q.h)
	switch {
	case right-left >= 30:
		left, right = s.beside(p, q, left, right)
		x := (left+right)/2 + offset(slot, n, right-left)
		a.x1, a.x2 = x, x
		a.y1, a.y2 = facing(p.y, p.h, q.y, q.h)
	case p.y == q.y && s.between(p, q):
		a.x1, a.x2 = p.x+p.w/2, q.x+q.w/2
		a.y1, a.y2 = p.y+p.h, q.y+q.h
		a.dip = 44 + 14*slot
	case bottom-top >= 20:
		y := (top+bottom)/2 + offset(slot, n, bottom-top)
		a.y1, a.y2 = y, y
		a.x1, a.x2 = facing(p.x, p.w, q.x, q.w)
	default:
		o := offset(slot, n, 2*chipH)
		a.y1, a.y2 = facing(p.y, p.h, q.y, q.h)
		px, _ := p.centre()
		qx, _ := q.centre()
		a.x1, a.x2 = px+o, qx+o
	}
}

// beside narrows the room for a straight way down to what passes beside the
// chips that stand between the two, if anything does.
func (s *scene) beside(p, q chip, left, right int) (int, int) {
	for _, c := range s.chips {
		if c.y <= min(p.y, q.y) || c.y >= max(p.y, q.y) || c.x >= right || c.x+c.w <= left {
			continue
		}
		switch before, after := c.x-left, right-c.x-c.w; {
		case before >= after && before > lane:
			right = c.x
		case after > lane:
			left = c.x + c.w
		}
	}
	return left, right
}

// between reports whether another chip stands between two of one row.
func (s *scene) between(p, q chip) bool {
	for _, c := range s.chips {
		if c.y == p.y && c.x > min(p.x, q.x) && c.x < max(p.x, q.x) {
			return true
		}
	}
	return false
}

// facing are the edges of two intervals that look at each other.
func facing(p, pw, q, qw int) (int, int) {
	if p < q {
		return p + pw, q
	}
	return p, q + qw
}

func offset(slot, n, room int) int {
	d := min(lane, (room-4)/max(n, 1))
	return slot*d - (n-1)*d/2
}
