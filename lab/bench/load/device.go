package load

import (
	"fmt"

	"slipway/internal/nl"
)

// Nature is what has to stand beside a figure about the device it was sent from.
type Nature struct {
	MTU      int    // bytes
	Offloads string // those that are on, as ethtool -k shortens them: "rx tx sg tso gso gro uso"
}

// Nature asks the kernel.
func (d Device) Nature() (Nature, error) {
	fail := func(err error) (Nature, error) {
		return Nature{}, fmt.Errorf("look at device %s: %w", d.Label, err)
	}
	h, err := nl.At(d.NS)
	if err != nil {
		return fail(err)
	}
	defer h.Close()
	l, err := h.LinkByName(d.Name)
	if err != nil {
		return fail(err)
	}
	o, err := d.Offloads()
	if err != nil {
		return Nature{}, err
	}
	return Nature{MTU: l.Attrs().MTU, Offloads: o.String()}, nil
}
