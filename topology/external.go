package topology

// MAC derives the address of a machine's interface as allocation does: locally
// administered, and the same in every run.
func MAC(lab, machine, device string) string { return derivedMAC(lab, machine, device) }

// RoutesFrom are the routes of a machine that stands in one segment of a
// snapshot and has no place in the cluster file: those of a node there.
func RoutesFrom(s *Snapshot, segment string) []UnderlayRoute {
	for _, n := range s.Nodes {
		if n.Segment == segment {
			return n.Routes
		}
	}
	return nil
}
