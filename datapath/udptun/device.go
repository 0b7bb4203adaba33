package udptun

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/topology"
)

// Packets that wait for the tunnel at the device. The simple implementation has
// what the kernel gives a TUN, and flanneld leaves (drivers/net/tun.c,
// TUN_READQ_SIZE). The batched one moves some 100,000 a second, of which others'
// turns on its processor, of a few milliseconds, must not cost any: with 500 it
// lost a tenth of them and gave its batches less to take.
const (
	simpleQueue  = 500
	batchedQueue = 4000
)

// socketBuffer is asked for in each direction, in bytes; the kernel doubles it.
const socketBuffer = 4 << 20

// openDevice attaches to the TUN device of cfg in the calling thread's namespace,
// or creates it, persistent, if it is not there. It reports which UDP offload the
// device does. The descriptor does not block.
func openDevice(cfg datapath.UDPTunnel) (fd int, uso bool, err error) {
	fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	uso, err = attach(fd, cfg)
	if err != nil {
		_ = unix.Close(fd)
		return -1, false, err
	}
	return fd, uso, nil
}

func attach(fd int, cfg datapath.UDPTunnel) (uso bool, err error) {
	existed, err := deviceExists(cfg.Device)
	if err != nil {
		return false, err
	}
	ifr, err := unix.NewIfreq(cfg.Device)
	if err != nil {
		return false, fmt.Errorf("name TUN device %q: %w", cfg.Device, err)
	}
	// The kernel takes these flags from whoever attaches, whatever flags the
	// device was made with (drivers/net/tun.c, tun_set_iff, TUN_FEATURES).
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if cfg.Implementation != topology.UDPSimple {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return false, fmt.Errorf("attach to TUN device %s: %w", cfg.Device, err)
	}
	if uso, err = setOffloads(fd, cfg); err != nil {
		return false, err
	}
	if err := setQueue(cfg); err != nil || existed {
		return uso, err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return false, fmt.Errorf("make TUN device %s persistent: %w", cfg.Device, err)
	}
	return uso, setMTU(cfg)
}

// setOffloads asks for what the implementation can split. The simple one asks for
// nothing, because the device remembers what its last owner asked for.
func setOffloads(fd int, cfg datapath.UDPTunnel) (uso bool, err error) {
	if cfg.Implementation == topology.UDPSimple {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, 0); err != nil {
			return false, fmt.Errorf("clear offloads of TUN device %s: %w", cfg.Device, err)
		}
		return false, nil
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetLen); err != nil {
		return false, fmt.Errorf("set header size of TUN device %s: %w", cfg.Device, err)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO_ECN
	// Linux 6.2 and newer; the kernel takes the two USO flags only together
	// (drivers/net/tun.c, set_offload).
	const udp = tcp | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, udp) == nil {
		return true, nil
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp); err != nil {
		return false, fmt.Errorf("set offloads of TUN device %s: %w", cfg.Device, err)
	}
	return false, nil
}

// openSocket binds the tunnel's UDP socket in the calling thread's namespace.
func openSocket(local netip.AddrPort, gro bool) (fd int, err error) {
	if !local.Addr().Is4() {
		return -1, fmt.Errorf("bind UDP %s: not an IPv4 address", local)
	}
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("open UDP socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	for _, opt := range []int{unix.SO_RCVBUFFORCE, unix.SO_SNDBUFFORCE} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, socketBuffer); err != nil {
			return -1, fmt.Errorf("set buffers of UDP %s: %w", local, err)
		}
	}
	if gro {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil {
			return -1, fmt.Errorf("set UDP_GRO of UDP %s: %w", local, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return -1, fmt.Errorf("bind UDP %s: %w", local, err)
	}
	return fd, nil
}

// withControlSocket runs fn with a socket for interface requests in the calling
// thread's namespace.
func withControlSocket(fn func(fd int) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open control socket: %w", err)
	}
	return errors.Join(fn(fd), os.NewSyscallError("close", unix.Close(fd)))
}

func deviceExists(name string) (exists bool, err error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return false, fmt.Errorf("name TUN device %q: %w", name, err)
	}
	err = withControlSocket(func(fd int) error {
		err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
		exists = err == nil
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	})
	if err != nil {
		return false, fmt.Errorf("look for device %s: %w", name, err)
	}
	return exists, nil
}

// setQueue sets how many packets may wait at the device. It remembers what its
// last owner set.
func setQueue(cfg datapath.UDPTunnel) error {
	packets := uint32(batchedQueue)
	if cfg.Implementation == topology.UDPSimple {
		packets = simpleQueue
	}
	return setNumber(cfg.Device, unix.SIOCSIFTXQLEN, "queue length", packets)
}

func setMTU(cfg datapath.UDPTunnel) error {
	if cfg.MTU == 0 {
		return nil
	}
	return setNumber(cfg.Device, unix.SIOCSIFMTU, "MTU", uint32(cfg.MTU)) //nolint:gosec // checked by the kernel
}

func setNumber(device string, request uint, what string, value uint32) error {
	ifr, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("name TUN device %q: %w", device, err)
	}
	ifr.SetUint32(value)
	err = withControlSocket(func(fd int) error { return unix.IoctlIfreq(fd, request, ifr) })
	if err != nil {
		return fmt.Errorf("set %s %d of %s: %w", what, value, device, err)
	}
	return nil
}
