package shape

import (
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath/bpf"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// Support is what this kernel can shape with.
type Support struct {
	Netem bool // qdisc netem: delay, loss and rate
	TBF   bool // qdisc tbf: rate
	BPF   bool // tc programs: loss
	TAP   bool // TAP devices: delay, by a Relay
	// Missing tells of each that is false what the kernel said to it.
	Missing []string
}

// Probe tries everything in a scratch namespace.
func Probe() Support {
	var s Support
	tell := func(what string, err error) bool {
		if err != nil {
			s.Missing = append(s.Missing, fmt.Sprintf("%s: %v", what, err))
		}
		return err == nil
	}
	ns, err := netns.Anonymous()
	if !tell("scratch namespace", err) {
		return s
	}
	defer ns.Close() //nolint:errcheck // scratch
	h, err := nl.At(ns)
	if !tell("scratch namespace", err) {
		return s
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if !tell("scratch namespace", err) {
		return s
	}
	seg := topology.Segment{MTU: 1500, Rate: 1e9, Delay: topology.Duration(time.Millisecond)}
	s.Netem = tell("netem", h.QdiscReplace(at(newNetem(seg), lo)))
	if s.Netem {
		// One root at a time.
		tell("netem", h.QdiscDel(at(newNetem(seg), lo)))
	}
	s.TBF = tell("tbf", h.QdiscReplace(at(newTBF(seg), lo)))
	s.BPF = tell("bpf", bpf.AttachLoss(ns, "lo", 1))
	s.TAP = tell("tap", CreateTap(Port{NS: ns, Name: "probe0"}))
	return s
}

// NeedsRelay reports whether the segment's ports have to be TAPs joined by a
// [Relay]: it delays packets and the kernel does not.
func NeedsRelay(seg topology.Segment, sup Support) bool {
	return seg.Delay > 0 && !sup.Netem
}

// at puts a qdisc at the root of a device, under the handle that marks it ours.
func at(q netlink.Qdisc, dev netlink.Link) netlink.Qdisc {
	a := q.Attrs()
	a.LinkIndex, a.Parent, a.Handle = dev.Attrs().Index, netlink.HANDLE_ROOT, rootHandle
	return q
}
