package topology

import "net/netip"

// hop is a way out of a segment: the router to use and the number of routers
// to pass.
type hop struct {
	router string
	count  int
}

// segmentHops computes, for a segment as the goal, the best router out of every
// other segment: breadth first from the goal. Of ways of one length that one
// wins whose last router comes first in the file.
func segmentHops(routers []Router, goal string) map[string]hop {
	best := map[string]hop{goal: {}}
	for frontier := []string{goal}; len(frontier) > 0; {
		var next []string
		for _, seg := range frontier {
			for _, r := range routers {
				if !contains(r.Segments, seg) {
					continue
				}
				for _, other := range r.Segments {
					if _, seen := best[other]; !seen {
						best[other] = hop{router: r.Name, count: best[seg].count + 1}
						next = append(next, other)
					}
				}
			}
		}
		frontier = next
	}
	return best
}

func contains[T comparable](list []T, x T) bool {
	for _, y := range list {
		if x == y {
			return true
		}
	}
	return false
}

// underlayRoutes gives every node and router its static routes to the segments
// that it is not in.
func underlayRoutes(c *Cluster, snap *Snapshot) {
	legs := map[string]map[string]netip.Addr{} // router → segment → address
	for _, r := range snap.Routers {
		legs[r.Name] = map[string]netip.Addr{}
		for _, i := range r.Interfaces {
			legs[r.Name][i.Segment] = i.Prefix.Addr()
		}
	}
	for _, goal := range c.Spec.Underlay.Segments {
		hops := segmentHops(c.Spec.Underlay.Routers, goal.Name)
		for i := range snap.Nodes {
			n := &snap.Nodes[i]
			if r, ok := routeFrom([]Interface{n.Interface}, goal, hops, legs); ok {
				n.Routes = append(n.Routes, r)
			}
		}
		for i := range snap.Routers {
			r := &snap.Routers[i]
			if route, ok := routeFrom(r.Interfaces, goal, hops, legs); ok {
				r.Routes = append(r.Routes, route)
			}
		}
	}
}

// routeFrom is the route of a machine with the given interfaces to a segment,
// by the interface from which it is nearest; none if it is in the segment.
func routeFrom(from []Interface, goal Segment, hops map[string]hop, legs map[string]map[string]netip.Addr) (UnderlayRoute, bool) {
	best, found := UnderlayRoute{}, 0
	for _, i := range from {
		h, ok := hops[i.Segment]
		if i.Segment == goal.Name {
			return UnderlayRoute{}, false
		}
		if !ok || found != 0 && h.count >= found {
			continue
		}
		found = h.count
		best = UnderlayRoute{Dst: goal.Subnet, Via: legs[h.router][i.Segment], Dev: i.Name}
	}
	return best, found != 0
}
