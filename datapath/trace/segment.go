package trace

import (
	"fmt"

	"slipway/datapath"
)

// station is a device with an IP stack behind it that hears a link.
type station struct {
	pl  *place
	dev *datapath.Device
	// shut is what keeps it from hearing, of stations that were asked for in
	// spite of that.
	shut string
}

// stations finds who hears a broadcast that a device sends: through veths and
// bridges, as far as the link reaches.
type stations struct {
	w     *walk
	seen  map[wireEnd]bool // devices that sent it
	found []station
	errs  []error // parts of the link that cannot be seen
	// anyway looks behind ports that are shut and devices that are down as well;
	// shut is the one that the search is behind.
	anyway bool
	shut   string
}

// open reports whether the search may go on past a device, and by what it is
// shut otherwise.
func (x *stations) open(pl *place, dev *datapath.Device, ok bool, what string) (on bool, back func()) {
	was := x.shut
	if !ok && was == "" {
		x.shut = fmt.Sprintf("%s of %s is %s", dev.Name, pl.label(), what)
	}
	return ok || x.anyway, func() { x.shut = was }
}

func (x *stations) transmit(pl *place, dev *datapath.Device) {
	key := wireEnd{pl.name, dev.Name}
	on, back := x.open(pl, dev, dev.Up, "down")
	defer back()
	if x.seen[key] || !on {
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
		x.receive(x.w.bystander(peer.namespace), peer.device)
	}
}

func (x *stations) receive(pl *place, device string) {
	if pl.err != nil {
		x.errs = append(x.errs, pl.err)
		return
	}
	dev := pl.devices[device]
	if dev == nil {
		return
	}
	on, back := x.open(pl, dev, dev.Up, "down")
	defer back()
	br := pl.devices[dev.Master]
	switch {
	case !on:
	case br == nil || br.Kind != "bridge":
		x.found = append(x.found, station{pl, dev, x.shut})
	default:
		x.enter(pl, br, dev)
	}
}

// enter is a broadcast that comes to a bridge by a port.
func (x *stations) enter(pl *place, br, port *datapath.Device) {
	on, back := x.open(pl, port, portState(port) == "forwarding", portState(port))
	defer back()
	if !on {
		return
	}
	if br.Up {
		x.found = append(x.found, station{pl, br, x.shut})
	}
	x.flood(pl, br, port)
}

// flood sends a broadcast by all ports of a bridge but the one it came by.
func (x *stations) flood(pl *place, br, in *datapath.Device) {
	for _, port := range pl.ports(br.Name) {
		if in != nil && in.Name == port.Name {
			continue
		}
		if on, back := x.open(pl, port, mayForward(in, port) == nil, portState(port)); on {
			x.transmit(pl, port)
			back()
		} else {
			back()
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
