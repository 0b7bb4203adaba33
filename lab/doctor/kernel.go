package doctor

import (
	"context"
	"errors"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/ruletrace"
	"slipway/datapath/skbtrace"
	"slipway/internal/netns"
	"slipway/topology"
)

// modprobe is the hint for a feature that comes with a module: the kernel loads
// it when asked by root, so that a gap means that the module is not installed.
func modprobe(module string) string {
	return "modprobe " + module + "; cloud kernels keep it in linux-modules-extra-$(uname -r) (Ubuntu) or leave it out (Debian: linux-image-amd64 has it)"
}

func kernelChecks() []check {
	return slices.Concat(linkChecks(), socketChecks(), tunnelChecks(), shapingChecks(), traceChecks())
}

func traceChecks() []check {
	return []check{
		{
			name: "packet tracing by BPF", group: Kernel, needsNS: true,
			means: "`trace` sees devices only: no hooks, and where no tracepoints are either, by packet sockets, no drop reasons",
			hint:  "Linux 6.4 or newer with CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_EVENTS and CONFIG_NETFILTER_BPF_LINK; 5.17 for tracepoints",
			probe: func(context.Context, *scratch) (string, error) {
				hooks, err := skbtrace.Supported()
				if err == nil && !hooks {
					err = less("by tracepoints alone: netfilter's hooks are not seen")
				}
				return "", err
			},
		},
		{
			name: "rule tracing", group: Kernel, needsNS: true,
			means: "`trace` says what a hook did to a packet, but not by which rule",
			hint:  "CONFIG_NF_TABLES, CONFIG_NETFILTER_NETLINK_LOG and CONFIG_NETFILTER_XT_TARGET_TRACE",
			probe: func(_ context.Context, s *scratch) (string, error) {
				t, err := ruletrace.Open([]*netns.NS{s.ns}, nil, datapath.Ports{})
				if err != nil {
					return "", err
				}
				return "", t.Close()
			},
		},
	}
}

func linkChecks() []check {
	return []check{
		link("veth", true, "nothing can be wired", &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "veth0"}, PeerName: "veth1"}),
		link("bridge", true, "there is no underlay: segments are bridges", &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}),
		{
			name: "br_netfilter", group: Kernel, needsNS: true,
			means: "the three flannel modes fail: their nodes set bridge-nf-call-iptables, without which a service does not answer a client behind the same bridge as its endpoint",
			hint:  "modprobe br_netfilter (it is on for every bridge of the machine until net.bridge.bridge-nf-call-iptables says otherwise, so labs do not load it for you)",
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.ns.Do(func() error {
					_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
					return err
				})
			},
		},
		link("vxlan", false, "flannel-vxlan, the default mode, does not work; the other modes do",
			&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan0"}, VxlanId: 1, Port: 8472}),
	}
}

func link(kind string, required bool, means string, l netlink.Link) check {
	return check{
		name: kind, group: Kernel, required: required, needsNS: true, means: means,
		hint:  modprobe(kind),
		probe: func(_ context.Context, s *scratch) (string, error) { return "", s.h.LinkAdd(l) },
	}
}

func tunnelChecks() []check {
	return []check{
		{
			name: "IPIP in the kernel", group: Kernel, needsNS: true,
			means: "calico-ipip runs by eBPF, or in user space, with the same bytes on the wire",
			hint:  "modprobe ipip, if a tunl0 in every network namespace of the machine does not disturb you",
			probe: func(context.Context, *scratch) (string, error) { return "", bpf.ProbeKernelIPIP() },
		},
		{
			name: "IPIP by eBPF", group: Kernel, needsNS: true,
			means: "where the kernel has no IPIP either, calico-ipip runs in user space and is an order of magnitude slower",
			hint:  "Linux 5.15 or newer with CONFIG_NET_CLS_BPF, CONFIG_NET_SCH_INGRESS and CONFIG_TUN",
			probe: func(context.Context, *scratch) (string, error) {
				return "", errors.Join(bpf.ProbeTUN(), bpf.ProbeTC())
			},
		},
		{
			name: "calico-ipip", group: Kernel, needsNS: true,
			means: "without IPIP in the kernel and by eBPF, calico-ipip runs in user space or, without TUN, not at all; calico-bgp does",
			hint:  "see IPIP in the kernel, IPIP by eBPF and TUN",
			probe: func(context.Context, *scratch) (string, error) {
				impl, why, err := bpf.ChooseIPIP(topology.IPIPAuto)
				if err == nil && impl == topology.IPIPUserspace {
					err = less("the slowest way: %s", why)
				}
				if impl == "" {
					return "", err
				}
				return "runs as " + string(impl), err
			},
		},
		{
			name: "BTF of the kernel", group: Kernel,
			means: "eBPF programs that look into kernel structures do not load; those of the datapath do",
			hint:  "a kernel built with CONFIG_DEBUG_INFO_BTF",
			probe: func(context.Context, *scratch) (string, error) {
				_, err := os.Stat("/sys/kernel/btf/vmlinux")
				return "", err
			},
		},
	}
}

func shapingChecks() []check {
	const relay = "delays come from a relay between two TAPs, rates from tbf and loss from eBPF"
	shaping := func(name, kind, means, hint string, there func(*scratch) bool) check {
		return check{
			name: name, group: Kernel, needsNS: true, means: means, hint: hint,
			probe: func(_ context.Context, s *scratch) (string, error) { return s.shapeGap(kind, there(s)) },
		}
	}
	return []check{
		shaping("netem", "netem", relay, modprobe("sch_netem"), func(s *scratch) bool { return s.shape().Netem }),
		shaping("tbf", "tbf", "without netem too, the rate of a segment cannot be limited", modprobe("sch_tbf"), func(s *scratch) bool { return s.shape().TBF }),
		shaping("loss by eBPF", "bpf", "without netem too, a segment cannot lose packets", "a kernel with CONFIG_NET_CLS_BPF", func(s *scratch) bool { return s.shape().BPF }),
		shaping("TAP", "tap", "without netem too, a segment cannot delay packets", "modprobe tun", func(s *scratch) bool { return s.shape().TAP }),
	}
}

func socketChecks() []check {
	return []check{
		{
			name: "TUN", group: Kernel, needsNS: true,
			means: "flannel-udp does not work, nor calico-ipip without IPIP in the kernel",
			hint:  "modprobe tun; in a container, pass /dev/net/tun in",
			probe: func(_ context.Context, s *scratch) (string, error) { return "", s.tun("tun0", 0, 0) },
		},
		{
			name: "TUN super-packets", group: Kernel, needsNS: true,
			means: "flannel-udp's batched implementation does not work; `udp: {implementation: simple}` does",
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.tun("tun1", unix.IFF_VNET_HDR, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO_ECN)
			},
		},
		{
			name: "TUN super-packets of UDP", group: Kernel, needsNS: true,
			means: "UDP through flannel-udp crosses the tunnel packet by packet: slower, otherwise the same",
			hint:  "Linux 6.2 or newer",
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.tun("tun2", unix.IFF_VNET_HDR, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6|unix.TUN_F_USO4|unix.TUN_F_USO6)
			},
		},
		udpOption("UDP_SEGMENT", unix.UDP_SEGMENT, 1400, "flannel-udp's batched implementation sends datagrams one by one: slower, otherwise the same"),
		udpOption("UDP_GRO", unix.UDP_GRO, 1, "flannel-udp's batched implementation does not work; `udp: {implementation: simple}` does"),
		{
			name: "AF_PACKET", group: Kernel, needsNS: true,
			means: "packets cannot be captured: demo does not work, labs do",
			hint:  "modprobe af_packet",
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.socket(unix.AF_PACKET, unix.SOCK_RAW, 0, nil)
			},
		},
		{
			name: "SCTP", group: Kernel, needsNS: true,
			means: "pods do not answer on SCTP ports; services with such ports still get their rules",
			hint:  modprobe("sctp"),
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP, nil)
			},
		},
		{
			name: "IPVS", group: Kernel, needsNS: true,
			means: "nothing for labs, which run kube-proxy's iptables mode",
			probe: func(_ context.Context, s *scratch) (string, error) {
				return "", s.ns.Do(func() error {
					_, err := os.Stat("/proc/thread-self/net/ip_vs")
					return err
				})
			},
		},
	}
}

func udpOption(name string, option, value int, means string) check {
	return check{
		name: name, group: Kernel, needsNS: true, means: means, hint: "Linux 5.0 or newer",
		probe: func(_ context.Context, s *scratch) (string, error) {
			return "", s.socket(unix.AF_INET, unix.SOCK_DGRAM, 0, func(fd int) error {
				return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.IPPROTO_UDP, option, value))
			})
		},
	}
}

// socket opens a socket in the scratch namespace, tries it and closes it.
func (s *scratch) socket(family, kind, proto int, try func(fd int) error) error {
	return s.ns.Do(func() error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, proto)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		if try == nil {
			return nil
		}
		return try(fd)
	})
}

// tun attaches to a TUN device of the scratch namespace, which goes with its
// descriptor, and asks it for offloads.
func (s *scratch) tun(name string, flags uint16, offloads int) error {
	return s.ns.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: "/dev/net/tun", Err: err}
		}
		defer unix.Close(fd) //nolint:errcheck // nothing was written
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
			return os.NewSyscallError("TUNSETIFF", err)
		}
		if offloads == 0 {
			return nil
		}
		return os.NewSyscallError("TUNSETOFFLOAD", unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads))
	})
}
