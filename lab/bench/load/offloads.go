package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// offload is one of a device's, with the ioctls that ask for it and set it (linux
// include/uapi/linux/ethtool.h), or the name of its feature.
type offload struct {
	name     string
	get, set uint32
	feature  string
}

// offloads are in the order of ethtool -k. uso, segmentation of UDP, is what
// sends datagrams together that belong to one call (UDP_SEGMENT, udp(7)).
var offloads = []offload{
	{"rx", unix.ETHTOOL_GRXCSUM, unix.ETHTOOL_SRXCSUM, ""}, {"tx", unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM, ""},
	{"sg", unix.ETHTOOL_GSG, unix.ETHTOOL_SSG, ""}, {"tso", unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO, ""},
	{"gso", unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO, ""}, {"gro", unix.ETHTOOL_GGRO, unix.ETHTOOL_SGRO, ""},
	{"uso", 0, 0, "tx-udp-segmentation"},
}

// is reports whether the offload is on; a device that does not know it has it
// not.
func (o offload) is(s socket, device string) (on bool, err error) {
	if o.feature != "" {
		on, err = s.hasFeature(device, o.feature)
	} else {
		var v uint32
		v, err = s.number(device, o.get, 0)
		on = v != 0
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return on, err
}

// put switches it; that it is not as wanted then is an error.
func (o offload) put(s socket, device string, on bool) (err error) {
	if o.feature != "" {
		err = s.setFeature(device, o.feature, on)
	} else {
		_, err = s.number(device, o.set, map[bool]uint32{true: 1}[on])
	}
	is, e := o.is(s, device)
	switch {
	case e != nil:
		return e
	case is == on:
		return nil
	case err == nil:
		return errors.New("the kernel left it as it was")
	}
	return err
}

// Offloads are those of a device that are on or off, by the names in [Nature].
type Offloads map[string]bool

// NoOffloads is what to set so that every packet is by itself what is on a wire:
// nothing sends or puts together more than one at a time. Checksums stay as they
// are, since a pair of veth has none to compute.
func NoOffloads() Offloads {
	return Offloads{"tso": false, "gso": false, "gro": false, "uso": false}
}

// String lists those that are on: "rx tx sg tso gso gro uso".
func (o Offloads) String() string {
	var on []string
	for _, known := range offloads {
		if o[known.name] {
			on = append(on, known.name)
		}
	}
	return strings.Join(on, " ")
}

// Offloads asks the kernel for all of them.
func (d Device) Offloads() (Offloads, error) {
	s, err := openAt(Place{NS: d.NS}, unix.SOCK_DGRAM)
	if err != nil {
		return nil, fmt.Errorf("look at device %s: %w", d.Label, err)
	}
	defer s.close()
	o := Offloads{}
	for _, known := range offloads {
		if o[known.name], err = known.is(s, d.Name); err != nil {
			return nil, fmt.Errorf("look at device %s: offload %s: %w", d.Label, known.name, err)
		}
	}
	return o, nil
}

// SetOffloads switches those that want names on or off, and returns how they
// were, which puts them back when it is set in turn. Where it fails it has put
// back what it had changed. That a device cannot change one is an error, unless
// it is as wanted.
func (d Device) SetOffloads(want Offloads) (before Offloads, err error) {
	for name := range want {
		if !slices.ContainsFunc(offloads, func(o offload) bool { return o.name == name }) {
			return nil, fmt.Errorf("set offloads of %s: there is none called %q", d.Label, name)
		}
	}
	all, err := d.Offloads()
	if err != nil {
		return nil, err
	}
	before = Offloads{}
	for name := range want {
		before[name] = all[name]
	}
	if err := d.set(want); err != nil {
		return nil, errors.Join(err, d.set(before))
	}
	return before, nil
}

// set sets offloads one by one, in the order of the list: those that others need
// come before them.
func (d Device) set(want Offloads) error {
	s, err := openAt(Place{NS: d.NS}, unix.SOCK_DGRAM)
	if err != nil {
		return fmt.Errorf("set offloads of %s: %w", d.Label, err)
	}
	defer s.close()
	for _, o := range offloads {
		on, wanted := want[o.name]
		if !wanted {
			continue
		}
		if err := o.put(s, d.Name, on); err != nil {
			return fmt.Errorf("set offload %s of %s to %t: %w", o.name, d.Label, on, err)
		}
	}
	return nil
}
