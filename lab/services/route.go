package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/netfilter"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab"
	"slipway/topology"
)

// Routed is how a place sends packets to an address.
type routed struct {
	src netip.Addr
	via netip.Addr // invalid: it is a neighbour
	dev string
}

// routeOf asks a namespace's kernel for its route to an address.
func routeOf(h *nl.Handle, to netip.Addr) (routed, error) {
	routes, err := h.RouteGet(net.IP(to.AsSlice()))
	if err != nil || len(routes) == 0 {
		return routed{}, fmt.Errorf("route to %s in %s: %w", to, h.NSName(), err)
	}
	r := routed{}
	r.src, _ = netip.AddrFromSlice(routes[0].Src.To4())
	r.via, _ = netip.AddrFromSlice(routes[0].Gw.To4())
	l, err := h.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return routed{}, fmt.Errorf("route to %s in %s: %w", to, h.NSName(), err)
	}
	r.dev = l.Attrs().Name
	return r, nil
}

// way follows a connection to the node whose rules translate it.
type way struct {
	ctx     context.Context
	st      *lab.State
	handles map[string]*nl.Handle // by namespace
	loaded  map[string]*Loaded    // by node
}

func newWay(ctx context.Context, st *lab.State) *way {
	return &way{ctx: ctx, st: st, handles: map[string]*nl.Handle{}, loaded: map[string]*Loaded{}}
}

func (w *way) close() {
	for _, h := range w.handles {
		h.Close()
	}
}

func (w *way) handle(name string) (*nl.Handle, error) {
	if h := w.handles[name]; h != nil {
		return h, nil
	}
	ns, err := netns.Open(name)
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the handle's sockets stay in it
	h, err := nl.At(ns)
	if err == nil {
		w.handles[name] = h
	}
	return h, err
}

func (w *way) node(name string) (*Loaded, error) {
	if l := w.loaded[name]; l != nil {
		return l, nil
	}
	l, err := Load(w.ctx, w.st, name)
	if err == nil {
		w.loaded[name] = l
	}
	return l, err
}

// step is a node that a connection comes to.
type step struct {
	*arrival
	expected Expected
}

// follow says which node translates a connection from a place to an address,
// and what its rules make of it: the client's own node if that knows the
// address, else the node that the packet goes to.
func (w *way) follow(from *lab.Target, to netip.AddrPort, proto topology.Protocol) (step, error) {
	h, err := w.handle(from.NetNS)
	if err != nil {
		return step{}, err
	}
	r, err := routeOf(h, to.Addr())
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return step{}, &WayError{From: from.Label, To: to, Reason: fmt.Sprintf("it has no route there (`slipway exec %s -- ip route add %s via ADDRESS-OF-A-NODE` makes one)", from.Label, to.Addr())}
	}
	if err != nil {
		return step{}, err
	}
	p := datapath.Packet{Src: r.src, Dst: to.Addr(), SPort: anyPort, DPort: to.Port(), Proto: protoName(proto), TTL: 64, Length: 60, Flags: "SYN"}
	node, inside := from.Node, false
	if from.Pod == nil {
		inside = true // a process of the machine itself
	}
	if !slices.Contains(Nodes(w.st.Snapshot), node) { // external, a router: the next machine is what counts
		if node, inside = w.nodeAt(r, to.Addr()), false; node == "" {
			return step{}, &WayError{From: from.Label, To: to, Reason: "no node has the address, and the route to it leads to none"}
		}
	}
	s, err := w.arrive(node, p, inside)
	if err != nil || !nearly(s.expected.Passed, 1) {
		return s, err
	}
	next := w.nodeAt(routed{}, to.Addr())
	if next == "" || next == node {
		return s, nil
	}
	// The client's own node does not know the address: the node that has it does.
	if p.Src, err = w.sourceAfter(s); err != nil {
		return step{}, err
	}
	return w.arrive(next, p, false)
}

// anyPort is a client's port: rules for services do not ask for it.
const anyPort = 40000

func protoName(p topology.Protocol) string {
	switch p {
	case topology.UDPProtocol:
		return "udp"
	case topology.SCTPProtocol:
		return "sctp"
	default:
		return "tcp"
	}
}

// nodeAt is the node that has an address, or else the one that a route leads to.
func (w *way) nodeAt(r routed, to netip.Addr) string {
	for _, n := range w.st.Snapshot.Nodes {
		if n.Address == to || r.via.IsValid() && n.Address == r.via {
			return n.Name
		}
	}
	return ""
}

// arrive evaluates a node's rules on a packet.
func (w *way) arrive(node string, p datapath.Packet, inside bool) (step, error) {
	l, err := w.node(node)
	if err != nil {
		return step{}, err
	}
	h, err := w.handle(lab.NSOfMachine(w.st.Lab, node))
	if err != nil {
		return step{}, err
	}
	a := &arrival{node: l, packet: p}
	types := netfilter.AddrTypes(l.State)
	a.local = func(addr netip.Addr) bool {
		t, ok := types(addr, "")
		return ok && t == "LOCAL"
	}
	a.out = func(addr netip.Addr) string {
		r, err := routeOf(h, addr)
		if err != nil {
			return ""
		}
		return r.dev
	}
	if !inside {
		if a.in = a.out(p.Src); a.in == "" {
			return step{}, fmt.Errorf("node %s has no route back to %s", node, p.Src)
		}
	}
	return step{arrival: a, expected: a.expect()}, nil
}

// sourceAfter is the address that an untranslated packet leaves a node with.
func (w *way) sourceAfter(s step) (netip.Addr, error) {
	p := s.packet
	rules := s.node.evaluator()
	for _, stop := range rules.Stops("postrouting") {
		if !stop.NAT || !rules.Has(stop.Table) {
			continue
		}
		q := netfilter.Query{Hook: "postrouting", Table: stop.Table, Packet: p, Out: s.out(p.Dst), State: "NEW", AddrType: netfilter.AddrTypes(s.node.State)}
		o := rules.Eval(q)[0]
		if o.NAT == nil || !o.NAT.Source {
			continue
		}
		if o.NAT.Min.Addr().IsValid() {
			return o.NAT.Min.Addr(), nil
		}
		h, err := w.handle(lab.NSOfMachine(w.st.Lab, s.node.Node))
		if err != nil {
			return netip.Addr{}, err
		}
		r, err := routeOf(h, p.Dst)
		return r.src, err
	}
	return p.Src, nil
}

// WayError says that a connection cannot reach a service that way.
type WayError struct {
	From   string
	To     netip.AddrPort
	Reason string
}

// Error names both ends.
func (e *WayError) Error() string {
	if e.To.IsValid() {
		return fmt.Sprintf("from %s to %s: %s", e.From, e.To, e.Reason)
	}
	return e.Reason
}
