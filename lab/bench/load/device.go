package load

import (
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/internal/nl"
)

// Nature is what has to stand beside a figure about the device it was sent from.
type Nature struct {
	MTU      int    // bytes
	Offloads string // those that are on, as ethtool -k shortens them: "rx tx sg tso gso gro"
}

// offloads are the ioctls that tell one offload each (linux
// include/uapi/linux/ethtool.h), in the order of ethtool -k.
var offloads = []struct {
	name string
	get  uint32
}{
	{"rx", unix.ETHTOOL_GRXCSUM}, {"tx", unix.ETHTOOL_GTXCSUM}, {"sg", unix.ETHTOOL_GSG},
	{"tso", unix.ETHTOOL_GTSO}, {"gso", unix.ETHTOOL_GGSO}, {"gro", unix.ETHTOOL_GGRO},
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
	s, err := openAt(Place{NS: d.NS}, unix.SOCK_DGRAM)
	if err != nil {
		return fail(err)
	}
	defer s.close()
	var on []string
	for _, o := range offloads {
		is, err := s.offload(d.Name, o.get)
		if err != nil {
			return fail(fmt.Errorf("offload %s: %w", o.name, err))
		}
		if is {
			on = append(on, o.name)
		}
	}
	return Nature{MTU: l.Attrs().MTU, Offloads: strings.Join(on, " ")}, nil
}

// unionSize is the room after the name in struct ifreq on 64-bit machines, in
// bytes: that of struct ifmap (linux include/uapi/linux/if.h).
const unionSize = 24

// offload asks for one offload; a device that does not know it has it not.
func (s socket) offload(device string, get uint32) (bool, error) {
	if len(device) >= unix.IFNAMSIZ {
		return false, unix.EINVAL
	}
	value := struct{ cmd, data uint32 }{cmd: get} // struct ethtool_value
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [unionSize - unsafe.Sizeof(uintptr(0))]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:], device)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	if errors.Is(errno, unix.EOPNOTSUPP) {
		return false, nil
	}
	if errno != 0 {
		return false, errno
	}
	return value.data != 0, nil
}
