package linux

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/nl"
)

// addLink makes the device and brings it up; addresses are steps of their own.
func (h *Host) addLink(want datapath.Link) error {
	if err := h.makeLink(want); err != nil {
		return err
	}
	// Said once more than at creation, a bridge keeps its MTU whatever its
	// ports' (net/bridge/br_device.c, br_change_mtu).
	if want.MTU != 0 {
		if err := h.setMTU(want.Name, want.MTU); err != nil {
			return err
		}
	}
	if want.VXLAN != nil && want.VXLAN.External {
		return h.setUpOnceFree(want.Name)
	}
	return h.setUp(want.Name)
}

// portPatience is how long a process may take to let go of a UDP port after its
// TUN is gone.
const portPatience = 3 * time.Second

// setUpOnceFree brings up a device that opens a UDP port which the process that
// served its predecessor is about to close.
func (h *Host) setUpOnceFree(name string) error {
	over := time.After(portPatience)
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for {
		err := h.setUp(name)
		if !errors.Is(err, unix.EADDRINUSE) {
			return err
		}
		select {
		case <-over:
			return err
		case <-again.C:
		}
	}
}

func (h *Host) makeLink(want datapath.Link) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = want.Name, want.MTU
	if want.MAC != "" {
		mac, err := net.ParseMAC(want.MAC)
		if err != nil {
			return fmt.Errorf("MAC of %s: %w", want.Name, err)
		}
		attrs.HardwareAddr = mac
	}
	switch want.Kind {
	case datapath.TUN:
		return h.makeTUN(want)
	case datapath.Bridge:
		return h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	case datapath.VXLAN:
		v := want.VXLAN
		if v.External {
			return h.ns.Do(func() error { return nl.AddExternalGPE(want.Name, want.MTU, v.Port) })
		}
		under, err := h.nl.LinkByName(v.Device)
		if err != nil {
			return fmt.Errorf("underlay device %s: %w", v.Device, err)
		}
		return h.nl.LinkAdd(&netlink.Vxlan{
			LinkAttrs: attrs, VxlanId: v.VNI, VtepDevIndex: under.Attrs().Index,
			SrcAddr: v.Local.AsSlice(), Port: v.Port, Learning: v.Learning,
		})
	case datapath.IPIP:
		if _, err := h.nl.LinkByName(want.Name); err == nil {
			return nil // the module's own tunl0
		}
		return h.nl.LinkAdd(&netlink.Iptun{LinkAttrs: attrs})
	default:
		return fmt.Errorf("link %s: unknown kind %q", want.Name, want.Kind)
	}
}

// makeTUN makes a persistent TUN without packet information, to which a
// process can attach later with the same flags (linux
// Documentation/networking/tuntap.rst).
func (h *Host) makeTUN(want datapath.Link) error {
	ifr, err := unix.NewIfreq(want.Name)
	if err != nil {
		return err
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_TUN_EXCL)
	if want.VNetHdr {
		flags |= unix.IFF_VNET_HDR
	}
	ifr.SetUint16(flags)
	return h.ns.Do(func() error {
		f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
		if err != nil {
			return err
		}
		err = unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, ifr)
		if err == nil {
			err = unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1)
		}
		return errors.Join(err, f.Close())
	})
}

func (h *Host) replaceLink(want datapath.Link) error {
	if err := h.dropLink(want.Name); err != nil {
		return err
	}
	return h.addLink(want)
}

// dropLink deletes a device. The ipip module's tunl0 stays after the request
// and is emptied instead.
func (h *Host) dropLink(name string) error {
	l, err := h.nl.LinkByName(name)
	if err != nil {
		return ignoreMissing(err)
	}
	if err := h.nl.LinkDel(l); err != nil {
		return ignoreMissing(err)
	}
	if l.Type() != string(datapath.IPIP) {
		return nil
	}
	if l, err = h.nl.LinkByName(name); err != nil {
		return ignoreMissing(err)
	}
	addrs, err := nl.Dump(func() ([]netlink.Addr, error) { return h.nl.AddrList(l, netlink.FAMILY_V4) })
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if err := h.nl.AddrDel(l, &a); err != nil {
			return ignoreMissing(err)
		}
	}
	return h.nl.LinkSetDown(l)
}

// ignoreMissing makes the removal of what is already gone a success.
func ignoreMissing(err error) error {
	if nl.Missing(err) {
		return nil
	}
	return err
}

func (h *Host) setMTU(name string, mtu int) error {
	return h.onLink(name, func(l netlink.Link) error { return h.nl.LinkSetMTU(l, mtu) })
}

func (h *Host) setMAC(name, mac string) error {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return err
	}
	return h.onLink(name, func(l netlink.Link) error { return h.nl.LinkSetHardwareAddr(l, hw) })
}

func (h *Host) setUp(name string) error { return h.onLink(name, h.nl.LinkSetUp) }

func (h *Host) addAddress(name string, p netip.Prefix) error {
	return h.onLink(name, func(l netlink.Link) error { return h.nl.AddrAdd(l, &netlink.Addr{IPNet: ipNet(p)}) })
}

func (h *Host) dropAddress(name string, p netip.Prefix) error {
	return h.onLink(name, func(l netlink.Link) error {
		return ignoreMissing(h.nl.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)}))
	})
}

func (h *Host) onLink(name string, fn func(netlink.Link) error) error {
	l, err := h.nl.LinkByName(name)
	if err != nil {
		return err
	}
	return fn(l)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
