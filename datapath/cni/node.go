package cni

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// ErrGatewayUncovered reports a node that routes the pods' gateway address
// nowhere, so that its kernel would not answer ARP for it by proxy.
var ErrGatewayUncovered = errors.New("no route of the node covers the pods' gateway, so proxy ARP cannot answer for it")

// ErrDiffers reports an attachment that is not as it should be.
var ErrDiffers = errors.New("attachment differs")

// Node is a node's namespace with its netlink sockets held open. It is safe for
// concurrent use.
type Node struct {
	ns      *netns.NS
	h       *nl.Handle
	rt      *rtnl
	network string

	mu      sync.Mutex
	bridges map[string]int // name → index
	facts   facts
}

// OpenNode opens the netlink sockets of a node. The namespace must stay open
// until [Node.Close].
func OpenNode(ns *netns.NS) (*Node, error) { return openNode(ns, NetworkName) }

func openNode(ns *netns.NS, network string) (*Node, error) {
	h, err := nl.At(ns)
	if err != nil {
		return nil, err
	}
	rt, err := openRTNL(ns)
	if err != nil {
		h.Close()
		return nil, err
	}
	return &Node{ns: ns, h: h, rt: rt, network: network, bridges: map[string]int{}}, nil
}

// Close lets go of the node's sockets, not of its namespace.
func (n *Node) Close() error {
	n.h.Close()
	n.rt.close()
	return nil
}

// Attach plugs a pod in and reports whether anything had to be changed. What is
// already as it should be is left alone, what differs is repaired, and a link
// of that name that leads elsewhere is replaced. What concerns the node as a
// whole (the route to the gateway, the devices' proxy_delay) is read afresh at
// most once a second.
func (n *Node) Attach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error) {
	p, err := nl.At(pod)
	if err != nil {
		return false, fmt.Errorf("attach %s to %s: %w", port.Pod, n.ns.Name(), err)
	}
	defer p.Close()
	return n.AttachVia(ctx, pod, p, port)
}

// AttachVia is [Node.Attach] for a caller who has a handle in the pod's
// namespace open already.
func (n *Node) AttachVia(ctx context.Context, pod *netns.NS, p *nl.Handle, port datapath.PodPort) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	w, err := wantOf(n.network, port)
	if err == nil {
		changed, err = n.attach(pod, p, w)
	}
	if err != nil {
		return changed, fmt.Errorf("attach %s to %s: %w", port.Pod, n.ns.Name(), err)
	}
	return changed, nil
}

func (n *Node) attach(pod *netns.NS, p *nl.Handle, w want) (changed bool, err error) {
	host, err := n.rt.link(w.HostIf)
	if err != nil && !nl.Missing(err) {
		return false, fmt.Errorf("read link %s: %w", w.HostIf, err)
	}
	fresh := nl.Missing(err)
	eth := w.peerOf(host, p)
	if !fresh && eth == nil {
		if err := n.h.LinkDel(&netlink.Veth{LinkAttrs: *host.LinkAttrs}); err != nil && !nl.Missing(err) {
			return false, fmt.Errorf("remove stale link %s: %w", w.HostIf, err)
		}
		fresh = true
	}
	if fresh {
		if host, err = n.create(pod, p, w); err != nil {
			return true, err
		}
	}
	pass := repair{node: n, pod: p, want: w, host: host, eth: eth, fresh: fresh, changed: fresh}
	return pass.run()
}

// peerOf returns the pod's interface if the host end really leads there.
func (w want) peerOf(host hostLink, p *nl.Handle) netlink.Link {
	if host.kind != "veth" {
		return nil
	}
	eth, err := p.LinkByName(w.ContainerIf)
	if err != nil || eth.Type() != "veth" || eth.Attrs().Index != host.peer() || eth.Attrs().ParentIndex != host.Index {
		return nil
	}
	return eth
}

// create makes the veth pair. A leftover interface of the pod that stands in
// the way, and a bridge that was made anew since its index was learnt, are each
// dealt with once.
func (n *Node) create(pod *netns.NS, p *nl.Handle, w want) (hostLink, error) {
	master, err := n.bridge(w.Bridge, false)
	if err != nil {
		return hostLink{}, err
	}
	err = n.rt.addVeth(w, pod.Fd(), master)
	if errors.Is(err, unix.EEXIST) {
		if old, e := p.LinkByName(w.ContainerIf); e == nil && old.Type() == "veth" {
			if e := p.LinkDel(old); e != nil {
				return hostLink{}, fmt.Errorf("remove stale %s of the pod: %w", w.ContainerIf, e)
			}
			err = n.rt.addVeth(w, pod.Fd(), master)
		}
	} else if err != nil && master != 0 {
		if fresh, e := n.bridge(w.Bridge, true); e == nil && fresh != master {
			err = n.rt.addVeth(w, pod.Fd(), fresh)
		}
	}
	if err != nil {
		return hostLink{}, fmt.Errorf("add veth %s: %w", w.HostIf, err)
	}
	host, err := n.rt.link(w.HostIf)
	if err != nil {
		return hostLink{}, fmt.Errorf("read link %s: %w", w.HostIf, err)
	}
	if err := n.rt.dress(host.Index, w); err != nil {
		return hostLink{}, fmt.Errorf("set alias and hairpin mode of %s: %w", w.HostIf, err)
	}
	return host, nil
}

// bridge returns a bridge's index, 0 for no bridge. Indexes are remembered;
// again asks the kernel.
func (n *Node) bridge(name string, again bool) (int, error) {
	if name == "" {
		return 0, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i, ok := n.bridges[name]; ok && !again {
		return i, nil
	}
	l, err := n.rt.link(name)
	if err == nil && l.kind != "bridge" {
		err = fmt.Errorf("it is a %s", l.kind)
	}
	if err != nil {
		return 0, fmt.Errorf("find bridge %s: %w", name, err)
	}
	n.bridges[name] = l.Index
	return l.Index, nil
}

// Detach unplugs a pod: the veth pair goes, and with it the addresses and
// routes on either end. The pod's namespace may be nil, when it is gone; if it
// is given, an interface left in it by an attachment whose host end was lost is
// removed too. A pod that is not plugged in is no error.
func (n *Node) Detach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	changed, err = n.detach(pod, port)
	if err != nil {
		return changed, fmt.Errorf("detach %s from %s: %w", port.Pod, n.ns.Name(), err)
	}
	return changed, nil
}

func (n *Node) detach(pod *netns.NS, port datapath.PodPort) (bool, error) {
	changed, err := deleteVeth(n.h, port.HostIf)
	if err != nil || pod == nil || changed {
		return changed, err
	}
	p, err := nl.At(pod)
	if err != nil {
		return false, err
	}
	defer p.Close()
	return deleteVeth(p, port.ContainerIf)
}

// deleteVeth removes a veth by name; anything else of that name is not ours.
func deleteVeth(h *nl.Handle, name string) (bool, error) {
	l, err := h.LinkByName(name)
	if nl.Missing(err) || (err == nil && l.Type() != "veth") {
		return false, nil
	}
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !nl.Missing(err) {
		return false, fmt.Errorf("remove link %s: %w", name, err)
	}
	return err == nil, nil
}

// Check verifies that the pod is plugged in exactly as port says; the error,
// an ErrDiffers, lists everything that differs. Nothing is changed.
func (n *Node) Check(ctx context.Context, pod *netns.NS, port datapath.PodPort) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w, err := wantOf(n.network, port)
	if err == nil {
		err = n.check(pod, w)
	}
	if err != nil {
		return fmt.Errorf("check %s on %s: %w", port.Pod, n.ns.Name(), err)
	}
	return nil
}

func (n *Node) check(pod *netns.NS, w want) error {
	p, err := nl.At(pod)
	if err != nil {
		return err
	}
	defer p.Close()
	host, err := n.rt.link(w.HostIf)
	if nl.Missing(err) {
		return fmt.Errorf("%w: no link %s", ErrDiffers, w.HostIf)
	}
	if err != nil {
		return fmt.Errorf("read link %s: %w", w.HostIf, err)
	}
	eth := w.peerOf(host, p)
	if eth == nil {
		return fmt.Errorf("%w: %s does not lead to the pod's %s", ErrDiffers, w.HostIf, w.ContainerIf)
	}
	n.forgetFacts()
	pass := repair{node: n, pod: p, want: w, host: host, eth: eth, dry: true}
	if _, err := pass.run(); err != nil {
		return err
	}
	return errors.Join(pass.found...)
}
