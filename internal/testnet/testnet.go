// Package testnet helps tests that need a real kernel: it probes what a test
// needs, skips with the proven reason where that is missing, and makes
// namespaces that clean up after themselves. No test touches the root namespace.
package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Capability is something a test needs of the machine.
type Capability string

// The capabilities that tests ask for.
const (
	Root       Capability = "root"     // may create network namespaces
	VXLAN      Capability = "vxlan"    // kernel VXLAN devices
	TUN        Capability = "tun"      // /dev/net/tun
	BPF        Capability = "bpf"      // load tc programs
	IPTables   Capability = "iptables" // iptables-restore works in a namespace
	SCTP       Capability = "sctp"     // SCTP sockets
	Netem      Capability = "netem"    // the netem qdisc
	KernelIPIP Capability = "ipip"     // kernel IPIP devices
	TShark     Capability = "tshark"
	Bird       Capability = "bird"
	Ping       Capability = "ping"
	Curl       Capability = "curl"
	Chromium   Capability = "chromium"   // a browser without a window
	Playwright Capability = "playwright" // Node.js, and ui/e2e/node_modules for tests of the page
	NFT        Capability = "nft"
	Conntrack  Capability = "conntrack"
	IPerf3     Capability = "iperf3"
	OpenSSL    Capability = "openssl"
	NGINX      Capability = "nginx" // with its stream module
	HAProxy    Capability = "haproxy"
	Keepalived Capability = "keepalived"
	Envoy      Capability = "envoy"
	IPSet      Capability = "ipset"
	Calico     Capability = "calico"     // upstream's felix, confd and plugins, built; see [Lacks]
	Flanneld   Capability = "flanneld"   // can be built, and started: Go, a C compiler, nft, br_netfilter
	KubeProxy  Capability = "kube-proxy" // upstream's own, built; see [Lacks]
	Kubernetes Capability = "kubernetes" // the control plane and node programs, built; see [Lacks]
	Containerd Capability = "containerd" // the runtime of full nodes, its plugins and images, built; see [Lacks]
	SSHD       Capability = "sshd"       // with sudo
	Cgroups    Capability = "cgroups"    // can be made; see [Lacks]
	// VMs: machines with a kernel of their own, by QEMU. They take minutes, so that
	// only who lists them in [RequireEnv] has them; see [Lacks], too.
	VMs Capability = "vms"
	// DayTwo is day two by SSH, which takes many minutes: only who lists it in
	// [RequireEnv] has it. Labs have day two in every run.
	DayTwo Capability = "daytwo"
	Nspawn Capability = "nspawn" // machines with a systemd of their own can be packed and booted
	// RPM: packages of the RHEL and SUSE families can be built, and installed by their
	// package managers.
	RPM Capability = "rpm"
	// Conformance: Kubernetes' own tests and their image, built; see [Lacks].
	Conformance Capability = "conformance"
	Kubeadm     Capability = "kubeadm" // built; see [Lacks]
)

// RequireEnv names the capabilities, separated by commas, whose absence is a
// failure instead of a skip. CI sets it.
const RequireEnv = "LAB_REQUIRE"

// Need skips the test unless the machine has every capability; where RequireEnv
// lists the missing one, it fails instead.
func Need(t testing.TB, caps ...Capability) {
	t.Helper()
	for _, c := range caps {
		err := probe(c)
		if err == nil {
			continue
		}
		if required(c) {
			t.Fatalf("this machine must have %q (%s) but: %v", c, RequireEnv, err)
		}
		t.Skipf("needs %q: %v", c, err)
	}
}

// Lacks ends the test for want of a capability that only the test itself can
// look for, as Need does: it skips, or fails where RequireEnv lists it.
func Lacks(t testing.TB, c Capability, err error) {
	t.Helper()
	if required(c) {
		t.Fatalf("this machine must have %q (%s) but: %v", c, RequireEnv, err)
	}
	t.Skipf("needs %q: %v", c, err)
}

func required(c Capability) bool {
	for _, r := range strings.Split(os.Getenv(RequireEnv), ",") {
		if strings.TrimSpace(r) == string(c) {
			return true
		}
	}
	return false
}

var (
	probeMu sync.Mutex
	probed  = map[Capability]error{}
)

func probe(c Capability) error {
	probeMu.Lock()
	defer probeMu.Unlock()
	if err, ok := probed[c]; ok {
		return err
	}
	err := probeNow(c)
	probed[c] = err
	return err
}

func probeNow(c Capability) error {
	switch c {
	case Root:
		if os.Geteuid() != 0 {
			return errors.New("not running as root")
		}
		return inScratch(func(*nl.Handle) error { return nil })
	case VXLAN:
		return probeLink(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}, VxlanId: 1, Port: 8472})
	case KernelIPIP:
		// Loading the module would put a tunl0 into every namespace, the root one too.
		if _, err := os.Stat("/sys/module/ipip"); err != nil {
			return err
		}
		return probeLink(&netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "probe0"}})
	case TUN:
		_, err := os.Stat("/dev/net/tun")
		return err
	case BPF:
		return inScratch(func(h *nl.Handle) error {
			lo, err := h.LinkByName("lo")
			if err != nil {
				return err
			}
			return h.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
		})
	case Netem:
		return inScratch(func(h *nl.Handle) error {
			lo, err := h.LinkByName("lo")
			if err != nil {
				return err
			}
			return h.QdiscAdd(netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}, netlink.NetemQdiscAttrs{Latency: 1000}))
		})
	case SCTP:
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	case Flanneld:
		_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
		return errors.Join(lookAny("go"), lookAny("gcc", "cc", "clang"), lookAny("nft"), err)
	case Playwright:
		return errors.Join(lookAny("node"), lookUp(filepath.Join("ui", "e2e", "node_modules", "playwright-core", "package.json")))
	case NGINX:
		modules, err := filepath.Glob("/etc/nginx/modules-enabled/*stream.conf")
		if err == nil && len(modules) == 0 {
			err = errors.New("its stream module is not installed")
		}
		return errors.Join(lookAny("nginx"), err)
	case Nspawn:
		return errors.Join(lookAny("systemd-nspawn"), lookAny("mmdebstrap"))
	case RPM:
		return errors.Join(lookAny("rpmbuild"), lookAny("createrepo_c"), lookAny("dnf"), lookAny("zypper"))
	case SSHD:
		return errors.Join(lookAny("sshd", "/usr/sbin/sshd"), lookAny("sudo"))
	case VMs:
		if !required(VMs) {
			return errors.New("not asked for: `make test-vms` does")
		}
		return errors.Join(lookAny("qemu-system-x86_64"), lookAny("qemu-img"), lookAny("mmdebstrap"), lookAny("mke2fs"), lookAny("cpio"), lookAny("busybox"))
	case DayTwo:
		if !required(DayTwo) {
			return errors.New("not asked for: `make test-day-two` does; labs have it in every run")
		}
		return nil
	case IPTables:
		return lookAny("iptables-legacy-restore", "iptables-restore")
	default:
		return lookAny(string(c))
	}
}

func lookAny(names ...string) error {
	for _, n := range names {
		if _, err := exec.LookPath(n); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s not installed", strings.Join(names, " or "))
}

// lookUp finds a file of the module, from a package's directory, where tests run.
func lookUp(name string) error {
	dir, err := os.Getwd()
	if err != nil {
		return err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
				return fmt.Errorf("%w (`make ui-deps` installs it)", err)
			}
			return nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return errors.New("not inside the module")
		}
		dir = up
	}
}

func probeLink(l netlink.Link) error {
	return inScratch(func(h *nl.Handle) error { return h.LinkAdd(l) })
}

var serial atomic.Int64

func scratchName(kind string) string {
	return fmt.Sprintf("slipwaytest-%d-%s%d", os.Getpid(), kind, serial.Add(1))
}

func inScratch(fn func(*nl.Handle) error) error {
	if err := netns.EnsureDir(); err != nil {
		return err
	}
	ns, err := netns.Create(scratchName("probe"))
	if err != nil {
		return err
	}
	defer netns.Delete(ns.Name()) //nolint:errcheck // scratch
	defer ns.Close()              //nolint:errcheck // scratch
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

// NewNS makes a namespace with lo up that is deleted when the test ends.
func NewNS(t testing.TB) *netns.NS {
	t.Helper()
	Need(t, Root)
	if err := netns.EnsureDir(); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Create(scratchName("ns"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := netns.Delete(ns.Name()); err != nil {
			t.Error(err)
		}
	})
	h := Handle(t, ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ns
}

// Handle opens a netlink handle in ns, closed when the test ends.
func Handle(t testing.TB, ns *netns.NS) *nl.Handle {
	t.Helper()
	h, err := nl.At(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Wire joins two namespaces by a veth pair, each end up with the address
// (prefix notation, may be empty), and waits until both ends carry packets.
func Wire(t testing.TB, a *netns.NS, aName, aAddr string, b *netns.NS, bName, bAddr string) {
	t.Helper()
	ha, hb := Handle(t, a), Handle(t, b)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(b.Fd())}
	if err := ha.LinkAdd(veth); err != nil {
		t.Fatalf("veth %s-%s: %v", aName, bName, err)
	}
	up(t, ha, aName, aAddr)
	up(t, hb, bName, bAddr)
	WaitUp(t, ha, aName)
	WaitUp(t, hb, bName)
}

// upTimeout is far longer than links take to come up, even on a busy machine.
const upTimeout = 10 * time.Second

// WaitUp waits until a link is operational. A link that was set up before its
// peer gets its queue only when the kernel's link watch has run, some
// milliseconds later (net/core/link_watch.c); what is sent until then is lost,
// which costs a TCP connection a second.
func WaitUp(t testing.TB, h *nl.Handle, name string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(upTimeout); ; <-tick.C {
		l, err := h.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is %s, not up, after %v", name, l.Attrs().OperState, upTimeout)
		}
	}
}

func up(t testing.TB, h *nl.Handle, name, addr string) {
	t.Helper()
	l, err := h.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if addr != "" {
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := h.AddrAdd(l, a); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
}
