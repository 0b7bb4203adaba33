package bpf

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/nl"
)

// FilterPrefix begins the name of every tc filter that this package makes.
const FilterPrefix = "slipway-"

// place is where one kind of filter sits: the clsact hook, and the priority,
// which is ours by convention only; a filter of another name there is an error.
type place struct {
	kind     string // begins the filter's name
	hook     uint32
	priority uint16
}

var (
	encapPlace = place{FilterPrefix + "ipip-encap", netlink.HANDLE_MIN_EGRESS, 21250}
	decapPlace = place{FilterPrefix + "ipip-decap", netlink.HANDLE_MIN_INGRESS, 21251}
	lossPlace  = place{FilterPrefix + "loss", netlink.HANDLE_MIN_EGRESS, 21252}

	udpEncapPlace = place{FilterPrefix + "udp-encap", netlink.HANDLE_MIN_EGRESS, 21250}
	udpDecapPlace = place{FilterPrefix + "udp-decap", netlink.HANDLE_MIN_INGRESS, 21253}
)

// devicePlace is a place on a device.
type devicePlace struct {
	device string
	place
}

// find returns the filter that is there, nil if there is none or no device.
func (p devicePlace) find(h *nl.Handle) (*netlink.BpfFilter, error) {
	dev, ok, err := link(h, p.device)
	if err != nil || !ok {
		return nil, err
	}
	return find(h, dev, p.place)
}

// is reports whether the filter is one of this kind, whatever its details.
func (p place) is(f *netlink.BpfFilter) bool {
	kind, _, _ := strings.Cut(f.Name, " ")
	return kind == p.kind
}

// attach puts prog in its place on the device, instead of the one of its kind
// that may be there.
func attach(h *nl.Handle, dev netlink.Link, p place, details string, prog *ebpf.Program) error {
	if err := ensureClsact(h, dev); err != nil {
		return err
	}
	all, err := filters(h, dev, p.hook)
	if err != nil {
		return err
	}
	for _, f := range all {
		if f.Priority == p.priority && !p.is(f) {
			return fmt.Errorf("attach %s to %s in %s: priority %d is taken by filter %q", p.kind, dev.Attrs().Name, h.NSName(), p.priority, f.Name)
		}
	}
	err = h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: dev.Attrs().Index,
			Parent:    p.hook,
			Handle:    1,
			Protocol:  unix.ETH_P_ALL,
			Priority:  p.priority,
		},
		Fd:           prog.FD(),
		Name:         p.kind + " " + details,
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("attach %s to %s in %s: %w", p.kind, dev.Attrs().Name, h.NSName(), err)
	}
	return nil
}

// detach takes the filter out of its place, and clsact with it when no filter
// of anybody is left. A device without either is as wanted.
func detach(h *nl.Handle, dev netlink.Link, p place) error {
	all, err := filters(h, dev, p.hook)
	if err != nil {
		return err
	}
	removed := false
	for _, f := range all {
		if !p.is(f) {
			continue
		}
		if err := h.FilterDel(f); err != nil && !nl.Missing(err) {
			return fmt.Errorf("detach %s from %s in %s: %w", p.kind, dev.Attrs().Name, h.NSName(), err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return dropEmptyClsact(h, dev)
}

// find returns the filter of that kind, nil if there is none.
func find(h *nl.Handle, dev netlink.Link, p place) (*netlink.BpfFilter, error) {
	all, err := filters(h, dev, p.hook)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if p.is(f) {
			return f, nil
		}
	}
	return nil, nil
}

func clsact(dev netlink.Link) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: dev.Attrs().Index,
		Handle:    netlink.MakeHandle(0xffff, 0),
		Parent:    netlink.HANDLE_CLSACT,
	}}
}

func ensureClsact(h *nl.Handle, dev netlink.Link) error {
	err := h.QdiscAdd(clsact(dev))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add clsact to %s in %s: %w", dev.Attrs().Name, h.NSName(), err)
	}
	return nil
}

func dropEmptyClsact(h *nl.Handle, dev netlink.Link) error {
	for _, hook := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		all, err := nl.Dump(func() ([]netlink.Filter, error) { return h.FilterList(dev, hook) })
		if err != nil {
			return fmt.Errorf("list filters of %s in %s: %w", dev.Attrs().Name, h.NSName(), err)
		}
		if len(all) > 0 {
			return nil
		}
	}
	if err := h.QdiscDel(clsact(dev)); err != nil && !nl.Missing(err) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove clsact from %s in %s: %w", dev.Attrs().Name, h.NSName(), err)
	}
	return nil
}

// filters lists the BPF filters on one hook; none where there is no clsact.
func filters(h *nl.Handle, dev netlink.Link, hook uint32) ([]*netlink.BpfFilter, error) {
	all, err := nl.Dump(func() ([]netlink.Filter, error) { return h.FilterList(dev, hook) })
	if err != nil && !nl.Missing(err) && !errors.Is(err, unix.EINVAL) {
		return nil, fmt.Errorf("list filters of %s in %s: %w", dev.Attrs().Name, h.NSName(), err)
	}
	var out []*netlink.BpfFilter
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok && b.Handle != 0 {
			out = append(out, b)
		}
	}
	return out, nil
}

// link finds a device; its absence is told by ok alone.
func link(h *nl.Handle, name string) (l netlink.Link, ok bool, err error) {
	l, err = h.LinkByName(name)
	if nl.Missing(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("find %s in %s: %w", name, h.NSName(), err)
	}
	return l, true, nil
}

// mustLink finds a device that has to be there.
func mustLink(h *nl.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find %s in %s: %w", name, h.NSName(), err)
	}
	return l, nil
}
