package shape

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/nl"
)

// tapFlags: the packet information header is of no use, the virtio header lets
// packets of up to 64 KiB pass whole, with their checksums unfinished.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// What the other end of a TAP, here the relay, takes unfinished
// (include/uapi/linux/if_tun.h, TUN_F_…). USO came with Linux 6.2.
const (
	offloadTSO = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	offloadUSO = offloadTSO | unix.TUN_F_USO4 | unix.TUN_F_USO6
)

// CreateTap makes a persistent TAP for a relay to attach to. One that is there
// is left as it is. It has a carrier while a relay is attached.
func CreateTap(p Port) error {
	h, err := nl.At(p.NS)
	if err != nil {
		return err
	}
	defer h.Close()
	_, err = h.LinkByName(p.Name)
	if err == nil {
		return nil
	}
	if !nl.Missing(err) {
		return fmt.Errorf("find %s in %s: %w", p.Name, p.NS.Name(), err)
	}
	f, err := openTap(p)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // the device persists
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("keep TAP %s in %s: %w", p.Name, p.NS.Name(), err)
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) { ioctlErr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1) })
	if err := errors.Join(err, ioctlErr); err != nil {
		return fmt.Errorf("keep TAP %s in %s: %w", p.Name, p.NS.Name(), err)
	}
	return nil
}

// carrierTimeout is more than the second after which link watch runs at last.
const carrierTimeout = 5 * time.Second

// attachTap opens a TAP that must be there, and waits until it sends.
func attachTap(p Port) (*os.File, error) {
	h, err := nl.At(p.NS)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if _, err := h.LinkByName(p.Name); err != nil {
		return nil, fmt.Errorf("find TAP %s in %s: %w", p.Name, p.NS.Name(), err)
	}
	f, err := openTap(p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), carrierTimeout)
	defer cancel()
	if err := h.AwaitCarrier(ctx, p.Name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openTap attaches to a TAP, which it makes if there is none.
func openTap(p Port) (*os.File, error) {
	var fd int
	err := p.NS.Do(func() error {
		var err error
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun in %s: %w", p.NS.Name(), err)
	}
	ifr, err := unix.NewIfreq(p.Name)
	if err == nil {
		ifr.SetUint16(tapFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadUSO)
		if errors.Is(err, unix.EINVAL) {
			err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloadTSO)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to TAP %s in %s: %w", p.Name, p.NS.Name(), err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), p.Name), nil
}
