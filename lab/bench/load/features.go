package load

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Not every offload has an ioctl of its own: the others are bits of the device's
// features, whose places are known by their names (linux
// include/uapi/linux/ethtool.h: ethtool_gstrings, ethtool_gfeatures,
// ethtool_sfeatures; net/ethtool/common.c, netdev_features_strings).
const (
	maxFeatures   = 256
	featureBlocks = maxFeatures / 32
	stringSize    = 32 // ETH_GSTRING_LEN
	featureSet    = 4  // ETH_SS_FEATURES
)

// unionSize is the room after the name in struct ifreq on 64-bit machines, in
// bytes: that of struct ifmap (linux include/uapi/linux/if.h).
const unionSize = 24

// ethtool runs a command about a device, which begins what value points to.
func (s socket) ethtool(device string, value unsafe.Pointer) error {
	if len(device) >= unix.IFNAMSIZ {
		return unix.EINVAL
	}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [unionSize - unsafe.Sizeof(uintptr(0))]byte
	}{data: value}
	copy(request.name[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}

// number runs a command that takes or gives one number.
func (s socket) number(device string, command, number uint32) (uint32, error) {
	value := struct{ cmd, data uint32 }{command, number} // struct ethtool_value
	err := s.ethtool(device, unsafe.Pointer(&value))
	return value.data, err
}

// feature is the place of a feature's bit.
func (s socket) feature(device, name string) (int, error) {
	value := struct {
		cmd, set, len uint32
		names         [maxFeatures][stringSize]byte
	}{cmd: unix.ETHTOOL_GSTRINGS, set: featureSet}
	info := struct {
		cmd, _ uint32
		mask   uint64
		len    uint32
	}{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << featureSet}
	if err := s.ethtool(device, unsafe.Pointer(&info)); err != nil {
		return 0, fmt.Errorf("ask for the number of features: %w", err)
	}
	if info.len > maxFeatures {
		return 0, fmt.Errorf("the kernel knows %d features, more than %d", info.len, maxFeatures)
	}
	if err := s.ethtool(device, unsafe.Pointer(&value)); err != nil {
		return 0, fmt.Errorf("ask for the features' names: %w", err)
	}
	for i := range min(value.len, maxFeatures) {
		if text, _, _ := bytes.Cut(value.names[i][:], []byte{0}); string(text) == name {
			return int(i), nil
		}
	}
	return 0, unix.EOPNOTSUPP
}

// features are what ETHTOOL_GFEATURES tells.
type features struct {
	cmd, size uint32
	blocks    [featureBlocks]struct{ available, requested, active, never uint32 }
}

func (s socket) features(device string) (features, error) {
	f := features{cmd: unix.ETHTOOL_GFEATURES, size: featureBlocks}
	err := s.ethtool(device, unsafe.Pointer(&f))
	return f, err
}

// hasFeature reports whether a feature is on.
func (s socket) hasFeature(device, name string) (bool, error) {
	at, err := s.feature(device, name)
	if err != nil {
		return false, err
	}
	f, err := s.features(device)
	return f.blocks[at/32].active&(1<<(at%32)) != 0, err
}

// setFeature asks for a feature or against it.
func (s socket) setFeature(device, name string, on bool) error {
	at, err := s.feature(device, name)
	if err != nil {
		return err
	}
	now, err := s.features(device)
	if err != nil {
		return err
	}
	value := struct {
		cmd, size uint32
		blocks    [featureBlocks]struct{ valid, requested uint32 }
	}{cmd: unix.ETHTOOL_SFEATURES, size: now.size} // all blocks that the kernel has
	bit := uint32(1) << (at % 32)
	value.blocks[at/32].valid = bit
	if on {
		value.blocks[at/32].requested = bit
	}
	return s.ethtool(device, unsafe.Pointer(&value))
}
