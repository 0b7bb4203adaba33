package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/topology"
)

// UnsupportedError says what this kernel cannot do, and how that was found out.
type UnsupportedError struct {
	Feature string // "kernel IPIP", "tc programs", "TUN devices"
	Err     error
}

// Error names the feature and the reason.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s: not available: %v", e.Feature, e.Err)
}

// Unwrap returns what the kernel said.
func (e *UnsupportedError) Unwrap() error { return e.Err }

// moduleIPIP is there when the ipip module is loaded or built in.
const moduleIPIP = "/sys/module/ipip"

// errModuleNotLoaded is why the module is not loaded on the way: ipip_init_net
// (linux net/ipv4/ipip.c) puts a tunl0 into every namespace, the machine's own
// included, and that is not ours to change.
var errModuleNotLoaded = errors.New("module ipip is not loaded (modprobe ipip, which puts a tunl0 into every network namespace of this machine)")

// ProbeKernelIPIP makes an IPIP device in a scratch namespace. It answers with
// an *UnsupportedError where the kernel has none, and never loads a module.
func ProbeKernelIPIP() error {
	const feature = "kernel IPIP"
	if _, err := os.Stat(moduleIPIP); err != nil {
		return &UnsupportedError{feature, errModuleNotLoaded}
	}
	return inScratch(feature, func(_ *netns.NS, h *nl.Handle) error {
		return h.LinkAdd(&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, Local: []byte{192, 0, 2, 1}})
	})
}

// errOwnTunl0 is why tunl0 cannot be a TUN: that of the module cannot be deleted.
var errOwnTunl0 = errors.New("module ipip is loaded and has a tunl0 in every network namespace (implementation kernel works; so does rmmod ipip, if nothing else uses it)")

// probeTunl0 answers with an *UnsupportedError where new namespaces already have a
// tunl0: the module's, unless net.core.fb_tunnels_only_for_init_net says otherwise.
func probeTunl0() error {
	return inScratch("a tunl0 without the kernel's IPIP", func(_ *netns.NS, h *nl.Handle) error {
		if _, err := h.LinkByName("tunl0"); err == nil {
			return errOwnTunl0
		}
		return nil
	})
}

// ProbeTC attaches the IPIP programs in a scratch namespace. It answers with an
// *UnsupportedError where they cannot be loaded or attached.
func ProbeTC() error {
	return inScratch("tc programs", func(ns *netns.NS, _ *nl.Handle) error {
		// lo is always there, and nothing is ever sent.
		return AttachIPIP(ns, datapath.IPIPTunnel{Device: "lo", Underlay: "lo", Local: probeAddress})
	})
}

// ProbeUDP makes an external VXLAN-GPE device in a scratch namespace and attaches
// the programs of a UDP tunnel to it. It answers with an *UnsupportedError where
// either fails.
func ProbeUDP() error {
	return inScratch("flannel-udp by eBPF", func(ns *netns.NS, _ *nl.Handle) error {
		local := netip.AddrPortFrom(probeAddress, 8285)
		if err := ns.Do(func() error { return nl.AddExternalGPE("probe0", 0, int(local.Port())) }); err != nil {
			return err
		}
		return AttachUDP(ns, datapath.UDPTunnel{Device: "probe0", Underlay: "lo", Local: local})
	})
}

// probeAddress is one for documentation (RFC 5737); no packet ever bears it.
var probeAddress = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// ProbeTUN makes a TUN device in a scratch namespace. It answers with an
// *UnsupportedError where that fails.
func ProbeTUN() error {
	return inScratch("TUN devices", func(ns *netns.NS, _ *nl.Handle) error {
		return ns.Do(func() error {
			return netlink.LinkAdd(&netlink.Tuntap{
				LinkAttrs: netlink.LinkAttrs{Name: "probe0"},
				Mode:      netlink.TUNTAP_MODE_TUN,
				Flags:     netlink.TUNTAP_NO_PI,
			})
		})
	})
}

func inScratch(feature string, try func(*netns.NS, *nl.Handle) error) error {
	ns, err := netns.Anonymous()
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // scratch
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	if err := try(ns, h); err != nil {
		return &UnsupportedError{feature, err}
	}
	return nil
}

// ChooseIPIP picks who encapsulates: what is wanted, if this kernel can do it
// (an *UnsupportedError if not); for auto or "" the first that it can of kernel,
// ebpf and userspace. The reason says why, for people.
func ChooseIPIP(want topology.IPIPImplementation) (topology.IPIPImplementation, string, error) {
	var err error
	switch want {
	case topology.IPIPKernel:
		err = ProbeKernelIPIP()
	case topology.IPIPeBPF:
		err = errors.Join(probeTunl0(), ProbeTUN(), ProbeTC())
	case topology.IPIPUserspace:
		err = errors.Join(probeTunl0(), ProbeTUN())
	case topology.IPIPAuto, "":
		return chooseBest()
	default:
		err = fmt.Errorf("choose IPIP implementation: unknown %q", want)
	}
	if err != nil {
		return "", "", err
	}
	return want, "asked for", nil
}

func chooseBest() (topology.IPIPImplementation, string, error) {
	kernel := ProbeKernelIPIP()
	if kernel == nil {
		return topology.IPIPKernel, "the kernel has IPIP", nil
	}
	if err := ProbeTUN(); err != nil {
		return "", "", errors.Join(kernel, err)
	}
	tc := ProbeTC()
	if tc == nil {
		return topology.IPIPeBPF, kernel.Error(), nil
	}
	return topology.IPIPUserspace, kernel.Error() + "; " + tc.Error(), nil
}
