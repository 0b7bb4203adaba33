package facts

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrGarbled says that what a host answered is not the script's output, or not
// all of it.
var ErrGarbled = errors.New("the answer is cut off or garbled")

// Parse reads the script's output. Whatever stands before its first line, as what
// a login prints, is not of it. The time is left to those who know when it ran.
func Parse(out []byte) (Facts, error) {
	f, _, err := parse(string(out))
	return f, err
}

// clocks are what a host's clock showed when the script began and when it ended,
// each to within coarse.
type clocks struct {
	begin, end time.Time
	coarse     time.Duration
}

// reading is an answer that is being read.
type reading struct {
	f      Facts
	clocks clocks
	unit   unitBlock
	disks  disks
}

func parse(out string) (Facts, clocks, error) {
	const mark = "slipway-facts\t"
	r := reading{f: Facts{SELinux: "disabled", Listening: []Socket{}}}
	begun, ended, name := false, false, ""
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
		if rest, ok := strings.CutPrefix(line, "\x01"); ok && begun { // a command's lines begin, or end
			name = rest
			continue
		}
		if name != "" {
			if line == "" {
				continue
			}
			line = name + "\t" + line
		}
		if rest, ok := strings.CutPrefix(line, mark); ok {
			if rest != "end" && rest != "1" || begun == (rest == "1") {
				return r.f, r.clocks, fmt.Errorf("%q: %w", line, ErrGarbled)
			}
			begun, ended = true, rest == "end"
			continue
		}
		if !begun || ended {
			continue
		}
		fields := strings.Split(line, "\t")
		read, ok := readers[fields[0]]
		if !ok {
			return r.f, r.clocks, fmt.Errorf("%q is no fact: %w", shortened(line), ErrGarbled)
		}
		fields = append(fields, make([]string, 10)...) // those that are not there are empty
		if err := read(&r, fields[1:]); err != nil {
			return r.f, r.clocks, fmt.Errorf("%q: %w: %w", shortened(line), err, ErrGarbled)
		}
	}
	if !ended {
		return r.f, r.clocks, fmt.Errorf("it has no end after %d bytes: %w", len(out), ErrGarbled)
	}
	r.unit.flush(&r.f)
	r.f.Disks = r.disks.all()
	return r.f, r.clocks, nil
}

func shortened(line string) string {
	const most = 80
	if len(line) > most {
		return line[:most] + "…"
	}
	return line
}

// readers take the fields of one fact each. One that is the same for several
// lines adds to what there is.
var readers = map[string]func(r *reading, v []string) error{
	"clock":        readClock,
	"os":           func(r *reading, v []string) error { r.f.OS.set(v[0]); return nil },
	"kernel":       readKernel,
	"init":         func(r *reading, v []string) error { r.f.Init = v[0]; return nil },
	"uid":          func(r *reading, v []string) error { r.f.Root = v[0] == "0"; return nil },
	"uname":        readUname,
	"hostname":     func(r *reading, v []string) error { r.f.Hostname = v[0]; return nil },
	"machine-id":   func(r *reading, v []string) error { r.f.MachineID = v[0]; return nil },
	"product-uuid": func(r *reading, v []string) error { r.f.ProductUUID = strings.ToLower(v[0]); return nil },
	"cpus":         func(r *reading, v []string) (err error) { r.f.CPUs, err = strconv.Atoi(v[0]); return err },
	"memory":       readMemory,
	"swap":         readSwap,
	"zone":         readZone,
	"synchronized": func(r *reading, v []string) error { r.f.Time.Synchronized = v[0]; return nil },
	"virt":         readVirtualization,
	"resolver":     readResolver,
	"place": func(r *reading, v []string) error {
		r.disks.places = append(r.disks.places, [2]string{v[0], v[1]})
		return nil
	},
	"mount":           func(r *reading, v []string) error { r.disks.mount(v[0]); return nil },
	"size":            func(r *reading, v []string) error { r.disks.sizes = append(r.disks.sizes, v[0]); return nil },
	"inodes":          func(r *reading, v []string) error { r.disks.inodes = append(r.disks.inodes, v[0]); return nil },
	"link":            readLink,
	"address":         readAddress,
	"route":           readRoute,
	"route6":          func(*reading, []string) error { return nil },
	"socket":          readSocket,
	"proc-tcp":        func(r *reading, v []string) error { return readProcSocket(r, "tcp", "0A", v[0]) },
	"proc-udp":        func(r *reading, v []string) error { return readProcSocket(r, "udp", "07", v[0]) },
	"selinux":         readSELinux,
	"apparmor":        func(r *reading, v []string) error { r.f.AppArmor = v[0] == "Y"; return nil },
	"ufw":             func(r *reading, v []string) error { r.f.Firewall.UFW = v[0] == "yes"; return nil },
	"iptables":        func(r *reading, v []string) error { r.f.Firewall.IPTables = v[0]; return nil },
	"firewalld":       func(r *reading, v []string) error { r.f.Firewall.Firewalld = v[0] == "running"; return nil },
	"policy":          readPolicy,
	"deny":            readDeny,
	"chains":          readChains,
	"nft-table":       readTable,
	"nft-drop":        readNFTDrop,
	"module":          readModule,
	"sysctl":          readSysctl,
	"cgroup":          readCgroup,
	"package-manager": func(r *reading, v []string) error { r.f.PackageManager = v[0]; return nil },
	"package":         readPackage,
	"command":         func(r *reading, v []string) error { put(&r.f.Commands, path.Base(v[0]), v[0]); return nil },
	"unit":            func(r *reading, v []string) error { return r.unit.line(&r.f, v[0]) },
	"left":            func(r *reading, v []string) error { r.f.Left = append(r.f.Left, v[0]); return nil },
	"own":             func(r *reading, v []string) error { put(&r.f.Own, v[0], v[1]); return nil },
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}

// set takes a line of os-release(5), whose values a shell would read.
func (o *OS) set(line string) {
	key, value, _ := strings.Cut(line, "=")
	value = strings.Trim(value, `"'`)
	switch key {
	case "ID":
		o.ID = value
	case "VERSION_ID":
		o.Version = value
	case "ID_LIKE":
		o.Like = strings.Fields(value)
	case "PRETTY_NAME":
		o.Name = value
	}
}

// readClock reads seconds since 1970. Where date knows no fractions they are
// "%N" or nothing.
func readClock(r *reading, v []string) error {
	whole, fraction, _ := strings.Cut(v[1], ".")
	s, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return err
	}
	ns, err := strconv.ParseInt(fraction, 10, 64)
	if err != nil || len(fraction) != 9 {
		ns, r.clocks.coarse = int64(time.Second/2), time.Second/2
	}
	switch v[0] {
	case "begin":
		r.clocks.begin = time.Unix(s, ns)
	case "end":
		r.clocks.end = time.Unix(s, ns)
	}
	return nil
}

// readMemory reads a line of /proc/meminfo.
func readMemory(r *reading, v []string) error {
	words := strings.Fields(v[0])
	if len(words) < 2 {
		return errors.New("no amount")
	}
	kib, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return err
	}
	if words[0] == "MemTotal:" {
		r.f.Memory = kib << 10
	} else {
		r.f.Available = kib << 10
	}
	return nil
}

// readSwap reads a line of /proc/swaps: path, type, size in KiB, used, priority.
func readSwap(r *reading, v []string) error {
	words := strings.Fields(strings.Join(v, " "))
	if len(words) < 3 {
		return nil
	}
	kib, err := strconv.ParseInt(words[2], 10, 64)
	r.f.Swap = append(r.f.Swap, Swap{Path: words[0], Size: kib << 10})
	return err
}

// readZone reads where /etc/localtime leads, what /etc/timezone says, and the
// offset from UTC.
func readZone(r *reading, v []string) error {
	r.f.Time.Offset = v[2]
	if _, zone, ok := strings.Cut(v[0], "/zoneinfo/"); ok {
		r.f.Time.Zone = zone
	} else {
		r.f.Time.Zone = v[1]
	}
	return nil
}

// readKernel reads uname's release and machine.
func readKernel(r *reading, v []string) error {
	words := strings.Fields(v[0])
	if len(words) != 2 {
		return errors.New("not a release and a machine")
	}
	r.f.Kernel, r.f.Arch = words[0], words[1]
	return nil
}

// readUname takes the words of uname -n -r -m.
func readUname(r *reading, v []string) error {
	name, rest, _ := strings.Cut(v[0], " ")
	r.f.Hostname = name
	return readKernel(r, []string{rest})
}

// initialPIDNamespace is that of processes that are in no container (linux
// include/linux/proc_ns.h, PROC_PID_INIT_INO).
const initialPIDNamespace = "pid:[4026531836]"

// containers are what systemd-detect-virt(1) calls containers; all else that it
// knows are machines.
var containers = []string{"openvz", "lxc", "lxc-libvirt", "systemd-nspawn", "docker", "podman", "rkt", "wsl", "proot", "pouch", "container-other"}

func readVirtualization(r *reading, v []string) error {
	switch kind := v[0]; {
	case slices.Contains(containers, kind):
		r.f.Container = kind
	case kind != "none":
		r.f.Virtual = kind
	}
	r.f.Shared = r.f.Container != "" || v[1] != "" && v[1] != initialPIDNamespace
	return nil
}

// readSELinux reads what the kernel does (1 enforces, 0 does not, nothing where
// there is no SELinux).
func readSELinux(r *reading, v []string) error {
	switch v[0] {
	case "1":
		r.f.SELinux = "enforcing"
	case "0":
		r.f.SELinux = "permissive"
	}
	return nil
}

func readModule(r *reading, v []string) error {
	switch s := State(v[1]); s {
	case Loaded, Available, Missing, Unknown:
		put(&r.f.Modules, v[0], s)
		return nil
	default:
		return errors.New("no state of a module")
	}
}

// readSysctl reads path and value, whose fields may have tabs between.
func readSysctl(r *reading, v []string) error {
	name, value, ok := strings.Cut(strings.Join(v, " "), ":")
	if !ok {
		return errors.New("no value")
	}
	put(&r.f.Sysctls, strings.ReplaceAll(name, "/", "."), strings.Join(strings.Fields(value), " "))
	return nil
}

func readCgroup(r *reading, v []string) (err error) {
	r.f.Cgroup.Version, err = strconv.Atoi(v[0])
	r.f.Cgroup.Controllers = strings.Fields(v[1])
	return err
}

// readPackage reads name, version and state ("ii": installed).
func readPackage(r *reading, v []string) error {
	if strings.HasPrefix(v[2], "ii") || strings.HasPrefix(v[2], "hi") {
		put(&r.f.Packages, v[0], v[1])
	}
	return nil
}

// unitBlock gathers what systemctl show says of one unit. Each has an empty line
// after it, or begins with a key that was there.
type unitBlock map[string]string

func (b *unitBlock) line(f *Facts, line string) error {
	key, value, ok := strings.Cut(line, "=")
	if _, again := (*b)[key]; !ok || again {
		b.flush(f)
	}
	if ok {
		put((*map[string]string)(b), key, value)
	}
	return nil
}

// flush ends a unit's block.
func (b *unitBlock) flush(f *Facts) {
	if u := *b; u["Id"] != "" && u["LoadState"] != "not-found" {
		pid, _ := strconv.Atoi(u["MainPID"])
		put(&f.Units, u["Id"], Unit{State: u["ActiveState"], PID: pid})
	}
	*b = nil
}
