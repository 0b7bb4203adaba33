package trace

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"slipway/datapath"
	"slipway/topology"
)

// Edited is a network with edits made: it reads the one below and changes what
// it read, a namespace at a time and only when it is asked for. The network
// below is left as it is. The snapshot is what the cluster is made of; it too
// is only read.
//
// An edit that names something that the cluster does not have is an [*EditError];
// one that finds nothing to change in a namespace's state makes that state
// unreadable, so that a prediction never passes over it in silence.
func Edited(n Network, s *topology.Snapshot, edits []Edit) (Network, error) {
	if s == nil {
		return nil, &EditError{errors.New("the cluster is not known")}
	}
	v := &editedNetwork{below: n, cluster: s, edits: slices.Clone(edits), known: map[string]*editedState{}}
	after, changed := copyObjects(s), false
	var errs []error
	for i := range v.edits {
		e := &v.edits[i]
		if err := e.find(s); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", e.text, err))
			continue
		}
		if e.objects == nil {
			continue
		}
		changed = true
		if err := e.objects(after); err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", e.text, err))
		}
	}
	if changed {
		v.after = after
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &EditError{err}
	}
	return v, nil
}

// find looks up what an edit names in the cluster.
func (e *Edit) find(s *topology.Snapshot) error {
	if e.place != everyNode && e.place != "" {
		place, err := findPlace(s, e.place)
		if err != nil {
			return err
		}
		e.place = place
	}
	if e.check != nil {
		return e.check(s)
	}
	return nil
}

// Labels of places that every lab has.
const (
	externalPlace = "external" // the client outside the cluster
	fabricPlace   = "fabric"
)

// findPlace finds the label of a node, a router or a pod.
func findPlace(s *topology.Snapshot, name string) (string, error) {
	have := []string{externalPlace, fabricPlace}
	for _, n := range s.Nodes {
		have = append(have, n.Name)
	}
	for _, r := range s.Routers {
		have = append(have, r.Name)
	}
	if slices.Contains(have, name) {
		return name, nil
	}
	if p, err := findPod(s, name); err == nil {
		return p.Key(), nil
	}
	return "", fmt.Errorf("there is no node or pod %q; the machines are %s", name, strings.Join(have, ", "))
}

// editedNetwork is a Network with edits.
type editedNetwork struct {
	below   Network
	cluster *topology.Snapshot
	after   *topology.Snapshot // nil: the cluster's objects are as they were
	edits   []Edit

	mu    sync.Mutex
	known map[string]*editedState // by namespace
}

type editedState struct {
	state *datapath.NetState
	err   error
}

// Place describes a namespace.
func (v *editedNetwork) Place(namespace string) Place { return v.below.Place(namespace) }

// State reads a namespace and makes the edits in a copy, once.
func (v *editedNetwork) State(namespace string) (*datapath.NetState, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	k := v.known[namespace]
	if k == nil {
		k = new(editedState)
		k.state, k.err = v.edit(namespace)
		v.known[namespace] = k
	}
	return k.state, k.err
}

// Sketch implements [Sketcher]: a namespace that no edit changes may be read in
// part. Rules that are planned anew are not in a sketch in any case.
func (v *editedNetwork) Sketch(namespace string) (*datapath.NetState, error) {
	below, ok := v.below.(Sketcher)
	place := v.below.Place(namespace)
	if !ok || v.taken(place) != nil || slices.ContainsFunc(v.edits, func(e Edit) bool { return e.state != nil && e.meets(place, v.isNode(place)) }) {
		return v.State(namespace)
	}
	st, err := below.Sketch(namespace)
	if err != nil {
		return nil, err
	}
	c := v.editing(namespace, st)
	v.cutWires(c)
	return c.NetState, nil
}

// meets reports whether an edit is meant for a place.
func (e Edit) meets(p Place, isNode bool) bool {
	return e.place == "" || e.place == p.Label || (e.place == everyNode && isNode)
}

// Peer finds the other end of a veth, which is none if an edit took it away.
func (v *editedNetwork) Peer(namespace, device string) (peerNamespace, peerDevice string, err error) {
	if e := v.taken(v.below.Place(namespace)); e != nil {
		return "", "", fmt.Errorf("%w: what-if %q", ErrNoPeer, e.text)
	}
	peerNamespace, peerDevice, err = v.below.Peer(namespace, device)
	if err != nil {
		return "", "", err
	}
	if e := v.taken(v.below.Place(peerNamespace)); e != nil {
		return "", "", fmt.Errorf("%w: what-if %q", ErrNoPeer, e.text)
	}
	return peerNamespace, peerDevice, nil
}

// taken finds the edit that takes a place away.
func (v *editedNetwork) taken(p Place) *Edit {
	for i, e := range v.edits {
		if e.gone != nil && e.gone(p) {
			return &v.edits[i]
		}
	}
	return nil
}

// edit reads a namespace and changes a copy.
func (v *editedNetwork) edit(namespace string) (*datapath.NetState, error) {
	place := v.below.Place(namespace)
	if e := v.taken(place); e != nil {
		return nil, fmt.Errorf("what-if %q: there is no %s any more", e.text, place.Label)
	}
	st, err := v.below.State(namespace)
	if err != nil {
		return nil, err
	}
	c := v.editing(namespace, st)
	isNode := v.isNode(place)
	if v.after != nil && isNode {
		if err := replan(c.NetState, *v.after, place.Label); err != nil {
			return nil, fmt.Errorf("what-if: services of %s: %w", place.Label, err)
		}
	}
	for _, e := range v.edits {
		c.named = e.place == place.Label
		if e.state == nil || !e.meets(place, isNode) {
			continue
		}
		if err := e.state(c); err != nil {
			return nil, fmt.Errorf("what-if %q: %w", e.text, err)
		}
	}
	v.cutWires(c)
	return c.NetState, nil
}

// editing is a copy of a state to make edits in.
func (v *editedNetwork) editing(namespace string, st *datapath.NetState) *editing {
	return &editing{NetState: copyState(st), place: v.below.Place(namespace), cluster: v.cluster, far: func(device string) (Place, string, bool) {
		ns, far, err := v.below.Peer(namespace, device)
		if err != nil {
			return Place{}, "", false
		}
		return v.below.Place(ns), far, true
	}}
}

// isNode reports whether a place is a node that carries pods and services.
func (v *editedNetwork) isNode(p Place) bool {
	n, ok := v.cluster.NodeByName(p.Label)
	return ok && !p.Pod && !p.Wire && n.InDatapath()
}

// cutWires takes the carrier from devices whose other end an edit makes dead.
func (v *editedNetwork) cutWires(c *editing) {
	for _, e := range v.edits {
		if e.cut == nil {
			continue
		}
		for i := range c.Devices {
			d := &c.Devices[i]
			if d.Kind != "veth" || !d.Carrier {
				continue
			}
			if far, device, ok := c.far(d.Name); ok && e.cut(far, device) {
				c.loseCarrier(d)
			}
		}
	}
}

// copyState copies as much of a state as edits change.
func copyState(s *datapath.NetState) *datapath.NetState {
	c := *s
	c.Devices = slices.Clone(s.Devices)
	for i := range c.Devices {
		if p := c.Devices[i].Port; p != nil {
			port := *p
			c.Devices[i].Port = &port
		}
	}
	c.Routes = slices.Clone(s.Routes)
	for i := range c.Routes {
		c.Routes[i].NextHops = slices.Clone(c.Routes[i].NextHops)
	}
	c.Neighbors = slices.Clone(s.Neighbors)
	c.FDB = slices.Clone(s.FDB)
	c.Sysctls = maps.Clone(s.Sysctls)
	c.RuleSave = maps.Clone(s.RuleSave)
	if s.UDPTunnel != nil {
		t := *s.UDPTunnel
		c.UDPTunnel = &t
	}
	if s.IPIP != nil {
		t := *s.IPIP
		c.IPIP = &t
	}
	return &c
}
