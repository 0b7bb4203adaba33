package trace

import (
	"fmt"

	"slipway/datapath"
)

// station is a device with an IP stack behind it that hears a link.
type station struct {
	pl  *place
	dev *datapath.Device
}

// stations finds who hears a broadcast that a device sends: through veths and
// bridges, as far as the link reaches.
type stations struct {
	w     *walk
	seen  map[wireEnd]bool // devices that sent it
	found []station
	errs  []error // parts of the link that cannot be seen
}

func (x *stations) transmit(pl *place, dev *datapath.Device) {
	key := wireEnd{pl.name, dev.Name}
	if x.seen[key] || !dev.Up {
		return
	}
	x.seen[key] = true
	switch {
	case dev.Kind == "bridge":
		x.flood(pl, dev, nil)
	case dev.Kind == "vxlan":
		for _, e := range pl.st.FDB {
			if e.Dev == dev.Name && e.Master == "" && e.MAC == zeroMAC {
				x.errs = append(x.errs, fmt.Errorf("%s floods to %s", dev.Name, e.Dst))
			}
		}
	case dev.Kind == "loopback" || plain(dev):
	default:
		peer, err := x.w.peer(pl.name, dev.Name)
		if err != nil {
			x.errs = append(x.errs, fmt.Errorf("behind %s of %s: %w", dev.Name, pl.label(), err))
			return
		}
		x.receive(x.w.place(peer.namespace), peer.device)
	}
}

func (x *stations) receive(pl *place, device string) {
	if pl.err != nil {
		x.errs = append(x.errs, pl.err)
		return
	}
	dev := pl.devices[device]
	if dev == nil || !dev.Up {
		return
	}
	br := pl.devices[dev.Master]
	if br == nil || br.Kind != "bridge" {
		x.found = append(x.found, station{pl, dev})
		return
	}
	if portState(dev) != "forwarding" {
		return
	}
	if br.Up {
		x.found = append(x.found, station{pl, br})
	}
	x.flood(pl, br, dev)
}

// flood sends a broadcast by all ports of a bridge but the one it came by.
func (x *stations) flood(pl *place, br, in *datapath.Device) {
	for _, port := range pl.ports(br.Name) {
		if mayForward(in, port) == nil {
			x.transmit(pl, port)
		}
	}
}

// holders are the stations behind a device that take frames for a MAC.
func (w *walk) holders(pl *place, dev *datapath.Device, mac string) ([]station, []error) {
	x := stations{w: w, seen: map[wireEnd]bool{}}
	x.transmit(pl, dev)
	var out []station
	for _, st := range x.found {
		if sameMAC(st.dev.MAC, mac) {
			out = append(out, st)
		}
	}
	return out, x.errs
}
