package load

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offload is one of a device's, with the ioctls that ask for it and set it (linux
// include/uapi/linux/ethtool.h).
type offload struct {
	name     string
	get, set uint32
}

// offloads are in the order of ethtool -k.
var offloads = []offload{
	{"rx", unix.ETHTOOL_GRXCSUM, unix.ETHTOOL_SRXCSUM}, {"tx", unix.ETHTOOL_GTXCSUM, unix.ETHTOOL_STXCSUM},
	{"sg", unix.ETHTOOL_GSG, unix.ETHTOOL_SSG}, {"tso", unix.ETHTOOL_GTSO, unix.ETHTOOL_STSO},
	{"gso", unix.ETHTOOL_GGSO, unix.ETHTOOL_SGSO}, {"gro", unix.ETHTOOL_GGRO, unix.ETHTOOL_SGRO},
}

// Offloads are those of a device that are on or off, by the names in [Nature].
type Offloads map[string]bool

// NoOffloads is what to set so that every packet is by itself what is on a wire:
// nothing sends or puts together more than one at a time. Checksums stay as they
// are, since a pair of veth has none to compute.
func NoOffloads() Offloads { return Offloads{"tso": false, "gso": false, "gro": false} }

// String lists those that are on: "rx tx sg tso gso gro".
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
		value, err := s.ethtool(d.Name, known.get, 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // a device that does not know it has it not
			return nil, fmt.Errorf("look at device %s: offload %s: %w", d.Label, known.name, err)
		}
		o[known.name] = err == nil && value != 0
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
		value := uint32(0)
		if on {
			value = 1
		}
		_, err := s.ethtool(d.Name, o.set, value)
		if is, e := s.ethtool(d.Name, o.get, 0); e == nil && (is != 0) == on {
			continue
		}
		if err == nil {
			err = errors.New("the kernel left it as it was")
		}
		return fmt.Errorf("set offload %s of %s to %t: %w", o.name, d.Label, on, err)
	}
	return nil
}

// unionSize is the room after the name in struct ifreq on 64-bit machines, in
// bytes: that of struct ifmap (linux include/uapi/linux/if.h).
const unionSize = 24

// ethtool runs a command that takes or gives one number.
func (s socket) ethtool(device string, command, number uint32) (uint32, error) {
	if len(device) >= unix.IFNAMSIZ {
		return 0, unix.EINVAL
	}
	value := struct{ cmd, data uint32 }{command, number} // struct ethtool_value
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [unionSize - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
