package capture

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"

	"slipway/datapath/hostview"
	"slipway/datapath/observe"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Order is what an agent on a real host is told, as the first line of its stdin.
type Order struct {
	Places   []OrderPlace         `json:"places"`
	Ethernet []bpf.RawInstruction `json:"ethernet"` // the filter, see [Filter]
	Raw      []bpf.RawInstruction `json:"raw"`
	Duration time.Duration        `json:"durationNs,omitempty"`
	Count    int                  `json:"count,omitempty"`
	// Live: stdin stays open for as long as it shall go on.
	Live bool `json:"live,omitempty"`
}

// OrderPlace is a place on the host.
type OrderPlace struct {
	Label string `json:"label"`
	// Pod is the address of the pod that it is; none is the host itself.
	Pod     netip.Addr `json:"pod,omitzero"`
	Devices []string   `json:"devices,omitempty"` // names or patterns; empty for all
	Maybe   bool       `json:"maybe,omitempty"`   // left out if it has none of the devices
}

// report is a line of what an agent prints: first where it listens, then packets,
// last what was dropped.
type report struct {
	Listening *[]listening    `json:"listening,omitempty"`
	Packet    *packet         `json:"packet,omitempty"`
	End       *map[string]int `json:"end,omitempty"` // packets that the kernel dropped, by place
}

type listening struct {
	Place   string           `json:"place"`
	Devices []observe.Device `json:"devices"`
}

type packet struct {
	Time            time.Time         `json:"time"` // by the host's clock
	Place           string            `json:"place"`
	Device          string            `json:"device"`
	Direction       observe.Direction `json:"direction"`
	OtherHost       bool              `json:"otherHost,omitempty"`
	Link            observe.LinkType  `json:"link"`
	Data            []byte            `json:"data"`
	WireLength      int               `json:"wireLength"`
	PartialChecksum bool              `json:"partialChecksum,omitempty"`
}

// Serve is the agent: it reads an [Order] and prints what it takes, until the order's
// count or duration, until ctx ends, or until stdin does.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	var o Order
	if err == nil || errors.Is(err, io.EOF) {
		err = json.Unmarshal(first, &o)
	}
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	sources, err := o.open()
	defer closeAll(sources)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.Live {
		go func() {
			_, _ = io.Copy(io.Discard, lines)
			cancel()
		}()
	}
	if o.Duration > 0 {
		ctx, cancel = context.WithTimeout(ctx, o.Duration)
		defer cancel()
	}
	return o.stream(ctx, sources, out)
}

func (o *Order) stream(ctx context.Context, sources []source, out io.Writer) error {
	var places []observe.Place
	filters := map[string][]bpf.RawInstruction{}
	begin := []listening{}
	for _, s := range sources {
		places = append(places, s.place)
		filters[s.place.Label] = s.filter
		begin = append(begin, listening{s.place.Label, s.devices})
	}
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	end := &map[string]int{}
	if len(places) > 0 {
		c, err := observe.Open(places, observe.Options{
			FilterOf:  func(p observe.Place) []bpf.RawInstruction { return filters[p.Label] },
			RingBytes: min(oneRing, allRings/len(places)), Raw: true,
		})
		if err != nil {
			return err
		}
		defer c.Close() //nolint:errcheck // everything is read by then
		if err := errors.Join(enc.Encode(report{Listening: &begin}), w.Flush()); err != nil {
			return err
		}
		n := 0
		err = c.Stream(ctx, func(events []observe.Event) error {
			for _, e := range events {
				p := &packet{e.Time, e.Place.Label, e.Device, e.Direction, e.OtherHost, e.LinkType, e.Data, e.WireLength, e.PartialChecksum}
				if err := enc.Encode(report{Packet: p}); err != nil {
					return err
				}
				if n++; n == o.Count {
					return errors.Join(w.Flush(), errCount)
				}
			}
			return w.Flush()
		})
		if err != nil && !errors.Is(err, errCount) {
			return err
		}
		dropped := c.DroppedIn()
		end = &dropped
	} else if err := enc.Encode(report{Listening: &begin}); err != nil {
		return err
	}
	return errors.Join(enc.Encode(report{End: end}), w.Flush())
}

// open finds the places among the host's namespaces.
func (o *Order) open() (out []source, err error) {
	spaces, root, err := hostview.Open()
	if err != nil {
		return nil, err
	}
	used := map[uint64]bool{}
	defer func() {
		for inode, ns := range spaces {
			if !used[inode] {
				_ = ns.Close() // read-only descriptor
			}
		}
	}()
	pods := sync.OnceValue(func() map[netip.Addr]uint64 { return addressesIn(spaces, root) })
	f := &Filter{ethernet: o.Ethernet, raw: o.Raw}
	for _, p := range o.Places {
		inode, there := root, true
		if p.Pod.IsValid() {
			inode, there = pods()[p.Pod]
		}
		if !there || used[inode] {
			return out, fmt.Errorf("%s: no network with the address %s is here", p.Label, p.Pod)
		}
		src, err := listenIn(observe.Place{Label: p.Label, NS: spaces[inode]}, p.Devices, f)
		var missing *DeviceError
		if p.Maybe && errors.As(err, &missing) {
			continue
		}
		if err != nil {
			return out, err
		}
		used[inode] = true
		out = append(out, *src)
	}
	return out, nil
}

// addressesIn says which namespace has which address; the host's own are left out.
func addressesIn(spaces map[uint64]*netns.NS, root uint64) map[netip.Addr]uint64 {
	out := map[netip.Addr]uint64{}
	for inode, ns := range spaces {
		if inode == root {
			continue
		}
		h, err := nl.At(ns)
		if err != nil {
			continue
		}
		list, _ := h.AddrList(nil, netlink.FAMILY_V4) //nolint:errcheck // what is not read is not found
		h.Close()
		for _, a := range list {
			if ip, ok := netip.AddrFromSlice(a.IP.To4()); ok && !ip.IsLoopback() {
				out[ip] = inode
			}
		}
	}
	return out
}
