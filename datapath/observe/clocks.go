package observe

import (
	"fmt"
	"math"

	"slipway/datapath/trace"
)

// Crossing is a packet that left a host by a wire, or came to one.
type Crossing struct {
	Host   string
	TimeNs int64 // by the host's clock
	Sent   bool
	Packet Decoded
}

// wireKey is what a packet's frame is known by on both ends of a wire, between
// which nothing but a router's TTL changes. Checksums may be left to devices.
type wireKey struct {
	outer, inner string
	ttl          uint8 // of the packet that routers see; zero for any
}

func (d Decoded) wireKey(withTTL bool) wireKey {
	route, k := d.IP, wireKey{}
	if d.Encap != NoEncap {
		route = d.Outer
		k.inner = fmt.Sprint(d.Encap, d.VNI, d.IP.known(), d.IP.TTL)
	}
	k.outer = route.known()
	if withTTL {
		k.ttl = route.TTL
	}
	return k
}

// known is what no router changes.
func (p IPv4) known() string {
	s := fmt.Sprint(p.Source(), p.Destination(), p.Protocol, p.ID, p.FragmentOffset)
	if p.TCP != nil {
		s += fmt.Sprint(*p.TCP)
	}
	if p.ICMP != nil {
		s += fmt.Sprint(p.ICMP.Type, p.ICMP.Code, p.ICMP.ID, p.ICMP.Seq)
	}
	return s
}

// Align finds how far hosts' clocks are ahead of the first one's. It begins with
// what was measured and narrows that by the packet's own way: nothing arrives
// before it was sent. By the clocks that it returns, every crossing is in order,
// and each is right to its WithinNs, unless what was measured contradicts the way,
// which then counts alone.
func Align(measured []trace.Clock, crossings []Crossing) []trace.Clock {
	out := append([]trace.Clock{}, measured...)
	if len(out) < 2 {
		return out
	}
	a := newAligner(measured, true)
	a.learn(crossings)
	if !a.solve() {
		a = newAligner(measured, false)
		a.learn(crossings)
		if !a.solve() {
			return out
		}
	}
	for i := 1; i < len(out); i++ {
		high, low := a.most[0][i], -a.most[i][0]
		out[i].AheadNs, out[i].WithinNs = low+(high-low)/2, (high-low+1)/2
	}
	return out
}

// aligner holds differences of clocks: that of j is ahead of that of i by no more
// than most[i][j].
type aligner struct {
	index map[string]int
	most  [][]int64
}

// never is more than clocks differ by: there is no bound.
const never = math.MaxInt64 / 8

func newAligner(measured []trace.Clock, believe bool) *aligner {
	a := &aligner{index: map[string]int{}}
	for i, m := range measured {
		a.index[m.Host] = i
		row := make([]int64, len(measured))
		for j := range row {
			row[j] = never
		}
		row[i] = 0
		a.most = append(a.most, row)
	}
	slack := int64(0)
	if !believe {
		slack = int64(1e12) // what was measured then only says of which century it is
	}
	for i, m := range measured[1:] {
		a.most[0][i+1] = m.AheadNs + m.WithinNs + slack
		a.most[i+1][0] = -(m.AheadNs - m.WithinNs - slack)
	}
	return a
}

// learn takes in what was sent by one host and came to another: the first time of
// each, as a packet that is sent again arrives again.
func (a *aligner) learn(crossings []Crossing) {
	for _, withTTL := range []bool{true, false} {
		sent, came := map[wireKey]map[int]int64{}, map[wireKey]map[int]int64{}
		for _, c := range crossings {
			host, known := a.index[c.Host]
			if !known || !c.Packet.IP.Valid() {
				continue
			}
			of, k := came, c.Packet.wireKey(withTTL)
			if c.Sent {
				of = sent
			}
			if of[k] == nil {
				of[k] = map[int]int64{}
			}
			if at, there := of[k][host]; !there || c.TimeNs < at {
				of[k][host] = c.TimeNs
			}
		}
		for k, from := range sent {
			for i, left := range from {
				for j, arrived := range came[k] {
					if i != j {
						a.most[i][j] = min(a.most[i][j], arrived-left-1)
					}
				}
			}
		}
	}
}

// solve draws all conclusions (Floyd and Warshall's algorithm); false says that
// they contradict each other.
func (a *aligner) solve() bool {
	n := len(a.most)
	for k := range n {
		for i := range n {
			for j := range n {
				if via := a.most[i][k] + a.most[k][j]; a.most[i][k] < never && a.most[k][j] < never && via < a.most[i][j] {
					a.most[i][j] = via
				}
			}
		}
	}
	for i := range n {
		if a.most[i][i] < 0 {
			return false
		}
	}
	return true
}
