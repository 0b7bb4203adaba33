package vms

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/crypto/ssh"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
)

// statePrefix is followed by the test's process id and a number.
const statePrefix = "/run/slipway-vm-"

// FilesDir is where machines have the files of [Options].
const FilesDir = "/opt/test"

// Options say what machines there are.
type Options struct {
	Machines int
	MemoryMB int   // each; 1024 if zero
	CPUs     []int // of the first ones; others have one
	// Files are those that each machine finds in FilesDir, by their names there;
	// the values are where they are here.
	Files map[string]string
}

// Rig is some machines on a segment. Its namespace is the segment's switch and
// the operator's: what is there reaches the machines.
type Rig struct {
	Machines []*Machine
	NS       *netns.NS
	Signer   ssh.Signer // the key that machines let in, as root and as [User]

	t     testing.TB
	dir   string
	key   ed25519.PrivateKey // Signer's
	h     *nl.Handle
	image string
	accel []string
}

// User may log in, and becomes root without being asked.
const User = "ops"

// network is the segment's: the operator is the first, machines follow from 11 on.
var network = netip.MustParsePrefix("10.77.0.0/24")

const bridge = "br0"

var rigs int

// Start boots machines, called vm1 and so on, which end with the test. It waits
// until one can log in to all of them.
func Start(t testing.TB, o Options) *Rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.VMs)
	base, err := image()
	if err != nil {
		testnet.Lacks(t, testnet.VMs, err)
	}
	if rigs++; rigs == 1 {
		sweep()
	}
	tag := fmt.Sprintf("%d-%d", os.Getpid(), rigs)
	r := &Rig{t: t, dir: statePrefix + tag, image: base}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clean(r.dir) })
	r.accel = accelerator(base, r.dir)
	key := r.makeKey()
	if err := disk(filepath.Join(r.dir, "files.img"), o.Files); err != nil {
		t.Fatal(err)
	}
	r.makeNetwork(namespacePrefix + tag)
	for i := range o.Machines {
		cpus := 1
		if i < len(o.CPUs) {
			cpus = o.CPUs[i]
		}
		r.add(fmt.Sprintf("vm%d", i+1), i, max(o.MemoryMB, 1024), cpus, key)
	}
	r.BootAll()
	return r
}

const namespacePrefix = "slipwaytest-vms-"

// BootAll boots all machines at once, and waits until one can log in.
func (r *Rig) BootAll() {
	r.t.Helper()
	for _, m := range r.Machines {
		m.start()
	}
	for _, m := range r.Machines {
		m.await()
	}
}

// RebootAll has all machines end as they end by themselves, at once, and boots them
// again.
func (r *Rig) RebootAll() {
	r.t.Helper()
	for _, m := range r.Machines {
		m.shutdown()
	}
	for _, m := range r.Machines {
		m.down()
	}
	r.BootAll()
}

// Machine is the one of that name.
func (r *Rig) Machine(name string) *Machine {
	r.t.Helper()
	for _, m := range r.Machines {
		if m.name == name {
			return m
		}
	}
	r.t.Fatalf("no machine is called %s", name)
	return nil
}

// Operator is the operator's address on the segment.
func (r *Rig) Operator() netip.Addr { return address(1).Addr() }

func address(last int) netip.Prefix {
	a := network.Addr().As4()
	a[3] = byte(last)
	return netip.PrefixFrom(netip.AddrFrom4(a), network.Bits())
}

// makeKey returns the public half as authorized_keys has it, without its kind.
func (r *Rig) makeKey() string {
	r.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err == nil {
		r.key = private
		r.Signer, err = ssh.NewSignerFromKey(private)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	_, line, _ := strings.Cut(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(r.Signer.PublicKey()))), " ")
	return line
}

func (r *Rig) makeNetwork(name string) {
	r.t.Helper()
	if err := netns.EnsureDir(); err != nil {
		r.t.Fatal(err)
	}
	var err error
	if r.NS, err = netns.Create(name); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = r.NS.Close() })
	r.h = testnet.Handle(r.t, r.NS)
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridge}}
	if err := r.h.LinkAdd(br); err != nil {
		r.t.Fatal(err)
	}
	at, err := netlink.ParseAddr(address(1).String())
	if err == nil {
		err = r.h.AddrAdd(br, at)
	}
	lo, lerr := r.h.LinkByName("lo")
	for _, l := range []netlink.Link{lo, br} {
		if err == nil && lerr == nil {
			err = r.h.LinkSetUp(l)
		}
	}
	if err != nil || lerr != nil {
		r.t.Fatal(err, lerr)
	}
}

// Plug puts a device of the rig's namespace into the segment.
func (r *Rig) Plug(device string) {
	r.t.Helper()
	l, err := r.h.LinkByName(device)
	if err == nil {
		var br netlink.Link
		if br, err = r.h.LinkByName(bridge); err == nil {
			err = r.h.LinkSetMaster(l, br)
		}
	}
	if err == nil {
		err = r.h.LinkSetUp(l)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// add prepares a machine: its disk and its cable, a TAP of the segment.
func (r *Rig) add(name string, i, memory, cpus int, key string) {
	r.t.Helper()
	m := &Machine{Address: address(11 + i).Addr(), t: r.t, r: r, name: name, memory: memory, cpus: cpus, tap: "tap-" + name}
	m.mac = fmt.Sprintf("52:54:00:77:00:%02x", 11+i)
	m.uuid = fmt.Sprintf("5110a700-0000-4000-8000-%012x", 11+i)
	m.append = fmt.Sprintf("vm.name=%s vm.address=%s vm.key=%s", name, address(11+i), key)
	r.t.Cleanup(m.Off) // whichever of its subtests switches it on
	overlay := []string{"create", "-q", "-f", "qcow2", "-b", filepath.Join(r.image, "base.ext4"), "-F", "raw", m.file("qcow2")}
	if out, err := command("qemu-img", overlay...).CombinedOutput(); err != nil {
		r.t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: m.tap}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_DEFAULTS | netlink.TUNTAP_VNET_HDR, Queues: 1, NonPersist: false}
	// The driver makes a TAP where the caller is, not where the handle is.
	if err := r.NS.Do(func() error { return netlink.LinkAdd(tap) }); err != nil {
		r.t.Fatalf("TAP of %s: %v", name, err)
	}
	for _, fd := range tap.Fds {
		_ = fd.Close()
	}
	r.Plug(m.tap)
	r.Machines = append(r.Machines, m)
}

// sweep takes away what tests left that were killed.
func sweep() {
	dirs, _ := filepath.Glob(statePrefix + "[0-9]*-*")
	for _, d := range dirs {
		pid, _, _ := strings.Cut(strings.TrimPrefix(d, statePrefix), "-")
		if _, err := os.Stat("/proc/" + pid); err != nil {
			clean(d)
		}
	}
}

// clean takes away what a rig made, by its directory.
func clean(dir string) {
	pidFiles, _ := filepath.Glob(filepath.Join(dir, "*.pid"))
	for _, f := range pidFiles {
		raw, _ := os.ReadFile(f)
		pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
		argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if pid > 1 && strings.Contains(string(argv), f) { // numbers come again
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = netns.Delete(namespacePrefix + strings.TrimPrefix(dir, statePrefix))
	_ = os.RemoveAll(dir)
}
