package hosts

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"slipway/e2e/program"
	"slipway/e2e/rig"
	"slipway/installer/components"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/cgroup"
)

// statePrefix is followed by the test's process id and a number. It is short, as
// paths of UNIX sockets below it must fit 107 bytes (unix(7)).
const statePrefix = "/run/slipway-ho-"

// binary is the program under test.
var binary string

// Main runs a package's tests with the program that is built before. TestMain
// ends with it.
func Main(m *testing.M) int { return program.Main(m, statePrefix+"p", &binary) }

// Rig is some machines on a segment, and who operates them.
type Rig struct {
	Machines []*Machine
	Operator *netns.NS
	Home     string // the operator's
	State    string // what slipway keeps there

	t      testing.TB
	began  string // when it was made, in seconds since 1970
	dir    string
	tag    string // in the names of all that it makes
	fabric *rig.Fabric
	hs     []cgroup.Hierarchy
}

var rigs int

// User is who logs in, and becomes root without being asked; [UserAsked] has to
// say [Password] for it, [UserNobody] cannot.
const (
	User       = "ops"
	UserAsked  = "asked"
	UserNobody = "visitor"
	Password   = "let me in"
)

// network is the segment's: the operator is the first, machines follow from 11 on.
var network = netip.MustParsePrefix("10.79.0.0/24")

// What machines take of the inotify instances that all tests share: each by itself,
// as counted in /proc/PID/fd of Debian 12's systemd, journald, logind, udevd and D-Bus,
// and the programs of a cluster of three ([kube.InotifyNeed]).
const (
	inotifyMachine = 7
	inotifyCluster = 46
)

// Option changes a machine before it boots.
type Option func(*Machine) error

// Start boots n machines, host1 and so on, which end with the test. What will run
// there takes some more inotify instances.
func Start(t testing.TB, n, inotify int, options ...Option) *Rig {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.Nspawn)
	testnet.Room(t, n*inotifyMachine+inotify)
	lower, err := rootfs()
	if err != nil {
		testnet.Lacks(t, testnet.Nspawn, err)
	}
	if rigs++; rigs == 1 {
		sweep()
	}
	r := &Rig{t: t, began: strconv.FormatInt(time.Now().Unix(), 10), tag: fmt.Sprintf("%d-%d", os.Getpid(), rigs)}
	r.dir = statePrefix + r.tag
	r.Home, r.State = filepath.Join(r.dir, "home"), filepath.Join(r.dir, "s")
	t.Cleanup(func() {
		if err := clean(r.dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{r.Home, filepath.Join(r.Home, ".ssh"), filepath.Join(r.dir, "m")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if r.hs, err = cgroup.Hierarchies(); err != nil {
		testnet.Lacks(t, testnet.Cgroups, err)
	}
	r.fabric = rig.NewFabric(t, r.namespace("fabric"))
	r.Operator = r.namespace("operator")
	loopback(t, r.Operator)
	r.fabric.Plug(r.Operator, address(1))
	public := r.key()
	for i := range n {
		r.add(fmt.Sprintf("host%d", i+1), address(11+i), lower, public)
	}
	for _, m := range r.Machines {
		for _, o := range options {
			if err := o(m); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, m := range r.Machines { // all at once
		if err := m.start(); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(r.off)
	for _, m := range r.Machines {
		m.await()
	}
	return r
}

func address(last int) netip.Prefix {
	a := network.Addr().As4()
	a[3] = byte(last)
	return netip.PrefixFrom(netip.AddrFrom4(a), network.Bits())
}

func (r *Rig) off() {
	for _, m := range r.Machines {
		m.Off()
	}
}

// namespace makes one that the rig's end or the next test deletes.
func (r *Rig) namespace(name string) *netns.NS {
	r.t.Helper()
	ns, err := netns.Create(netPrefix(r.tag) + name)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = ns.Close() })
	return ns
}

func netPrefix(tag string) string { return "slipwaytest-hosts-" + tag + "-" }

func groupName(tag string) string { return "slipwaytest-hosts-" + tag }

// key makes the operator's key, as ssh-keygen does.
func (r *Rig) key() (public []byte) {
	r.t.Helper()
	private, public := newKey(r.t)
	if err := os.WriteFile(filepath.Join(r.Home, ".ssh", "id_ed25519"), private, 0o600); err != nil {
		r.t.Fatal(err)
	}
	return public
}

func newKey(t testing.TB) (private, public []byte) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	line, err := ssh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block), ssh.MarshalAuthorizedKey(line)
}

// watchers are units that wait for files to come about that nobody makes here. Each
// takes one of the few inotify instances of the kernel that all machines share. An
// empty file is a unit that is masked (systemd.unit(5)).
var watchers = []string{"systemd-ask-password-console.path", "systemd-ask-password-wall.path"}

type file struct {
	path string
	mode os.FileMode
	data []byte
}

// add prepares a machine.
func (r *Rig) add(name string, at netip.Prefix, lower string, operator []byte) {
	r.t.Helper()
	m := &Machine{t: r.t, name: name, Address: at.Addr(), lower: lower, dir: filepath.Join(r.dir, "m", name), NS: r.namespace(name)}
	for _, d := range []string{"upper", "work", "root", "lib"} {
		if err := os.MkdirAll(filepath.Join(m.dir, d), 0o755); err != nil {
			r.t.Fatal(err)
		}
	}
	var err error
	if m.groups, err = groups(r.hs, groupName(r.tag), name); err != nil {
		testnet.Lacks(r.t, testnet.Cgroups, err)
	}
	loopback(r.t, m.NS)
	m.port = r.fabric.Plug(m.NS, at)
	gateway(r.t, m.NS, address(1).Addr())
	private, public := newKey(r.t)
	files := []file{
		{"/etc/hostname", 0o644, []byte(name + "\n")},
		{"/etc/hosts", 0o644, []byte("127.0.0.1 localhost\n127.0.1.1 " + name + "\n")},
		{"/etc/machine-id", 0o444, []byte(m.machineID() + "\n")},
		{"/etc/resolv.conf", 0o644, []byte("nameserver " + address(1).Addr().String() + "\n")},
		{"/etc/ssh/ssh_host_ed25519_key", 0o600, private},
		{"/etc/ssh/ssh_host_ed25519_key.pub", 0o644, public},
		{"/etc/ssh/authorized_keys", 0o644, operator},
	}
	for _, u := range watchers {
		files = append(files, file{"/etc/systemd/system/" + u, 0o644, nil})
	}
	for _, f := range files {
		if err := m.put(f.path, f.mode, f.data); err != nil {
			r.t.Fatal(err)
		}
	}
	known, err := os.OpenFile(filepath.Join(r.Home, ".ssh", "known_hosts"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = fmt.Fprintf(known, "%s %s", m.Address, public)
	if err := errors.Join(err, known.Close()); err != nil {
		r.t.Fatal(err)
	}
	r.Machines = append(r.Machines, m)
}

// groups makes a machine's control groups, below the rig's.
func groups(hs []cgroup.Hierarchy, all, name string) ([]string, error) {
	if !cgroup.OnlyUnified(hs) {
		return cgroup.Make(hs, all+"/"+name)
	}
	// What hands controllers down has no processes; the machine's first process
	// sees to what is below its own group.
	dirs, err := cgroup.Make(hs, all)
	for i, d := range dirs {
		dirs[i] = filepath.Join(d, name)
		err = errors.Join(err, os.Mkdir(dirs[i], 0o755))
	}
	return dirs, err
}

// Use has what fails from here on fail a subtest, until that ends.
func (r *Rig) Use(t testing.TB) {
	was := r.t
	set := func(t testing.TB) {
		r.t = t
		r.fabric.Use(t)
		for _, m := range r.Machines {
			m.t = t
		}
	}
	set(t)
	t.Cleanup(func() { set(was) })
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

// Unplug pulls a machine's cable, [Rig.Plug] puts it in again.
func (r *Rig) Unplug(m *Machine) { r.t.Helper(); r.fabric.Set(m.port, false) }

// Plug puts a machine's cable in.
func (r *Rig) Plug(m *Machine) { r.t.Helper(); r.fabric.Set(m.port, true) }

// environment is the operator's.
func (r *Rig) environment() ([]string, error) {
	cache, err := components.CacheDir()
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + r.Home, "USER=operator", "LANG=C.UTF-8",
		lab.StateDirEnv + "=" + r.State, components.CacheDirEnv + "=" + cache,
		// Whatever builds goes on with what this machine has built already.
		"GOPATH=" + goEnv("GOPATH"), "GOCACHE=" + goEnv("GOCACHE"), "GOMODCACHE=" + goEnv("GOMODCACHE"),
	}, err
}

// clean takes away what a rig made, by its directory.
func clean(dir string) error {
	tag := strings.TrimPrefix(dir, statePrefix)
	var errs []error
	if binary != "" {
		errs = append(errs, labsDown(filepath.Join(dir, "s")))
	}
	errs = append(errs, endRecorded(dir))
	names, err := netns.Names(netPrefix(tag))
	errs = append(errs, err)
	for _, n := range names {
		errs = append(errs, netns.Delete(n))
	}
	hs, err := cgroup.Hierarchies()
	if err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err = cgroup.Remove(ctx, hs, groupName(tag))
	}
	return errors.Join(append(errs, err, os.RemoveAll(dir))...)
}
