package shape

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// Implementation names what shapes; empty where nothing was asked for.
type Implementation string

// The implementations.
const (
	Netem Implementation = "netem"
	TBF   Implementation = "tbf"
	BPF   Implementation = "bpf"
	Tap   Implementation = "tap relay"
)

// Report says what runs on one end of a port, and for which property.
type Report struct {
	Rate  Implementation `json:"rate,omitempty"`
	Delay Implementation `json:"delay,omitempty"`
	Loss  Implementation `json:"loss,omitempty"`
	// Changed is false where everything was as wanted already.
	Changed bool `json:"changed"`
}

// Port is one end of a node's connection to its segment.
type Port struct {
	NS   *netns.NS
	Name string
}

// plan is what one end of a port is to hold.
type plan struct {
	qdisc netlink.Qdisc // at the root; nil: the kernel's own choice
	loss  float64       // percent, by eBPF
	Report
}

// ApplyRateLoss makes the fabric's end of a port (ifname in ns) do what the
// segment wants on the way to the node: rate and loss, and delay where netem
// does it. It removes what an earlier call set and is no longer wanted. If
// Report.Delay is [Tap], the delay is the caller's to provide, by a [Relay].
func ApplyRateLoss(ns *netns.NS, ifname string, seg topology.Segment, sup Support) (Report, error) {
	p, err := planDown(seg, sup)
	if err != nil {
		return Report{}, err
	}
	return apply(ns, ifname, p)
}

// ApplyUplinkRate makes the node's end of a port (eth0 in the node's namespace)
// keep to the segment's rate on the way into the fabric, or removes the limit.
func ApplyUplinkRate(ns *netns.NS, ifname string, seg topology.Segment, sup Support) (Report, error) {
	p, err := planUp(seg, sup)
	if err != nil {
		return Report{}, err
	}
	return apply(ns, ifname, p)
}

func planDown(seg topology.Segment, sup Support) (plan, error) {
	if !seg.Shaped() {
		return plan{}, nil
	}
	if sup.Netem {
		p := plan{qdisc: newNetem(seg)}
		if seg.Rate > 0 {
			p.Rate = Netem
		}
		if seg.Delay > 0 {
			p.Delay = Netem
		}
		if seg.Loss > 0 {
			p.Loss = Netem
		}
		return p, nil
	}
	p, err := planUp(seg, sup)
	if err != nil {
		return plan{}, err
	}
	if seg.Loss > 0 {
		if !sup.BPF {
			return plan{}, unsupported(seg, "loss", sup)
		}
		p.loss, p.Loss = float64(seg.Loss), BPF
	}
	if seg.Delay > 0 {
		if !sup.TAP {
			return plan{}, unsupported(seg, "delay", sup)
		}
		p.Delay = Tap
	}
	return p, nil
}

// planUp is for the way up, which has a rate and nothing else.
func planUp(seg topology.Segment, sup Support) (plan, error) {
	rateOnly := topology.Segment{Name: seg.Name, MTU: seg.MTU, Rate: seg.Rate}
	switch {
	case seg.Rate == 0:
		return plan{}, nil
	case sup.TBF:
		return plan{qdisc: newTBF(rateOnly), Report: Report{Rate: TBF}}, nil
	case sup.Netem:
		return plan{qdisc: newNetem(rateOnly), Report: Report{Rate: Netem}}, nil
	default:
		return plan{}, unsupported(seg, "rate", sup)
	}
}

// UnsupportedError reports that this kernel has nothing to shape a segment with.
type UnsupportedError struct {
	Segment, Property string
	Missing           []string
}

// Error names the segment, the property and what was tried.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("segment %s: this kernel cannot shape its %s: %q", e.Segment, e.Property, e.Missing)
}

func unsupported(seg topology.Segment, property string, sup Support) error {
	return &UnsupportedError{Segment: seg.Name, Property: property, Missing: sup.Missing}
}

func apply(ns *netns.NS, ifname string, p plan) (Report, error) {
	h, err := nl.At(ns)
	if err != nil {
		return Report{}, err
	}
	defer h.Close()
	dev, err := h.LinkByName(ifname)
	if err != nil {
		return Report{}, fmt.Errorf("find %s in %s: %w", ifname, ns.Name(), err)
	}
	if p.Changed, err = applyRoot(h, dev, p.qdisc); err != nil {
		return Report{}, fmt.Errorf("shape %s in %s: %w", ifname, ns.Name(), err)
	}
	same, err := bpf.LossAttached(ns, ifname, p.loss)
	if err != nil {
		return Report{}, err
	}
	if !same {
		p.Changed = true
		if err := bpf.AttachLoss(ns, ifname, p.loss); err != nil {
			return Report{}, err
		}
	}
	return p.Report, nil
}

// applyRoot makes want the root qdisc; for nil it removes the one that is ours.
func applyRoot(h *nl.Handle, dev netlink.Link, want netlink.Qdisc) (changed bool, err error) {
	have, err := ourRoot(h, dev)
	if err != nil {
		return false, err
	}
	if want != nil && have != nil && sameQdisc(have, want) {
		return false, nil
	}
	// A qdisc changes its settings in place, but not its kind.
	if have != nil && (want == nil || have.Type() != want.Type()) {
		if err := h.QdiscDel(have); err != nil && !nl.Missing(err) {
			return false, fmt.Errorf("remove %s: %w", have.Type(), err)
		}
		changed = true
	}
	if want == nil {
		return changed, nil
	}
	if err := h.QdiscReplace(at(want, dev)); err != nil {
		return false, fmt.Errorf("set %s: %w", want.Type(), err)
	}
	return true, nil
}

// ourRoot finds the root qdisc that this package made; nil if there is none.
func ourRoot(h *nl.Handle, dev netlink.Link) (netlink.Qdisc, error) {
	all, err := nl.Dump(func() ([]netlink.Qdisc, error) { return h.QdiscList(dev) })
	if err != nil {
		return nil, fmt.Errorf("list qdiscs: %w", err)
	}
	for _, q := range all {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT && a.Handle == rootHandle {
			return q, nil
		}
	}
	return nil, nil
}
