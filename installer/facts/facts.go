package facts

import (
	"net/netip"
	"time"
)

// Facts are what a machine is and has. What could not be learned is empty.
type Facts struct {
	OS          OS     `json:"os"`
	Kernel      string `json:"kernel"` // uname -r
	Arch        string `json:"arch"`   // uname -m
	Init        string `json:"init"`   // what process 1 calls itself
	Root        bool   `json:"root"`   // commands run as root
	CPUs        int    `json:"cpus"`
	Memory      int64  `json:"memory"`    // bytes that the kernel has for use
	Available   int64  `json:"available"` // bytes of them that are free, or can be
	Hostname    string `json:"hostname"`
	MachineID   string `json:"machineID,omitempty"`
	ProductUUID string `json:"productUUID,omitempty"`
	// Virtual is the hypervisor, Container the kind of container, in the words of
	// systemd-detect-virt(1); Shared says that the kernel is others' as well.
	Virtual   string `json:"virtual,omitempty"`
	Container string `json:"container,omitempty"`
	Shared    bool   `json:"shared,omitempty"`

	Disks  []Disk  `json:"disks"`
	Links  []Link  `json:"links"`
	Routes []Route `json:"routes"` // IPv4, of the main table
	Time   Time    `json:"time"`
	Swap   []Swap  `json:"swap,omitempty"`

	// Resolvers are the files of name servers that were asked for; the first is
	// /etc/resolv.conf.
	Resolvers []Resolver `json:"resolvers,omitempty"`

	SELinux  string   `json:"seLinux"` // disabled, permissive, enforcing
	AppArmor bool     `json:"appArmor,omitempty"`
	Firewall Firewall `json:"firewall"`

	Listening []Socket         `json:"listening"`
	Units     map[string]Unit  `json:"units,omitempty"`   // those that were asked for and are there
	Modules   map[string]State `json:"modules,omitempty"` // those that were asked for
	// Sysctls are those that were asked for and are there, fields apart by a space.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Cgroup  Cgroup            `json:"cgroup"`

	PackageManager string            `json:"packageManager,omitempty"` // apt-get, dnf, yum, …
	Packages       map[string]string `json:"packages,omitempty"`       // version of each that was asked for and is installed
	Commands       map[string]string `json:"commands,omitempty"`       // path of each that was asked for and is there

	// Left is what networks and clusters of before left on the disk.
	Left []string `json:"left,omitempty"`
	// Own is what an installation of ours left there: path, and first line of files.
	Own map[string]string `json:"own,omitempty"`
}

// CgroupV1 reports whether the machine's control groups are of version 1, wholly
// or in part.
func (f Facts) CgroupV1() bool { return f.Cgroup.Version == 1 }

// Active reports whether a unit that was asked for runs.
func (f Facts) Active(unit string) bool { return f.Units[unit].State == "active" }

// OS is what os-release(5) says.
type OS struct {
	ID      string   `json:"id"`             // debian
	Version string   `json:"version"`        // 12
	Like    []string `json:"like,omitempty"` // ID_LIKE
	Name    string   `json:"name"`           // PRETTY_NAME
}

// Disk is the file system that a path is on, or will be once it is made.
type Disk struct {
	Path     string `json:"path"`
	Mount    string `json:"mount"`
	Kind     string `json:"kind"` // ext4
	Size     int64  `json:"size"` // bytes
	Free     int64  `json:"free"` // bytes
	Inodes   int64  `json:"inodes,omitempty"`
	ReadOnly bool   `json:"readOnly,omitempty"`
}

// Link is a network device.
type Link struct {
	Name      string         `json:"name"`
	MAC       string         `json:"mac,omitempty"`
	MTU       int            `json:"mtu"` // bytes
	Up        bool           `json:"up"`
	Kind      string         `json:"kind,omitempty"` // DEVTYPE of the kernel's uevent, or "ipip", "loopback"
	Physical  bool           `json:"physical,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
}

// Route is a route of the main table.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"`
	Dev string       `json:"dev,omitempty"`
	Src netip.Addr   `json:"src,omitzero"`
}

// Time is the machine's clock.
type Time struct {
	// Skew is how far it goes ahead of the operator's clock, known to within
	// Within: half of what the way there and back took.
	Skew   time.Duration `json:"skew"`
	Within time.Duration `json:"within"`
	Zone   string        `json:"zone,omitempty"` // Europe/Vienna
	Offset string        `json:"offset"`         // +0100
	// Synchronized is "yes", "no", or empty where nobody can tell.
	Synchronized string `json:"synchronized,omitempty"`
}

// Swap is a swap area in use.
type Swap struct {
	Path string `json:"path"`
	Size int64  `json:"size"` // bytes
}

// Firewall is what may be in the way of packets.
type Firewall struct {
	UFW       bool `json:"ufw,omitempty"`       // enabled
	Firewalld bool `json:"firewalld,omitempty"` // running
	// IPTables is the backend that plain iptables has: "nft" or "legacy"; empty
	// without iptables.
	IPTables string `json:"iptables,omitempty"`
	// Drops are chains that drop what no rule of theirs lets pass: "ip filter INPUT".
	Drops []string `json:"drops,omitempty"`
	// Denies are rules of iptables that drop or reject, as iptables-save has them.
	Denies []string `json:"denies,omitempty"`
	// Chains count the chains of other programs by prefix: "KUBE-".
	Chains map[string]int `json:"chains,omitempty"`
	// Tables are those of nftables: "ip kube-proxy".
	Tables []string `json:"tables,omitempty"`
}

// Socket is one that somebody listens at.
type Socket struct {
	Protocol string     `json:"protocol"` // tcp, udp
	Address  netip.Addr `json:"address"`  // unspecified: all of the machine's
	Device   string     `json:"device,omitempty"`
	Port     int        `json:"port"`
	Program  string     `json:"program,omitempty"`
	PIDs     []int      `json:"pids,omitempty"`
}

// Unit is a service of systemd's.
type Unit struct {
	State string `json:"state"` // active, inactive, failed, …
	PID   int    `json:"pid,omitempty"`
}

// State is a kernel module's.
type State string

// The states of a module. Unknown is where the kernel's modules are not on the
// machine, as in containers: it may still have them built in.
const (
	Loaded    State = "loaded"
	Available State = "available"
	Missing   State = "missing"
	Unknown   State = "unknown"
)

// Cgroup is what control groups can do.
type Cgroup struct {
	Version     int      `json:"version"` // 2, or 1 where there is anything of 1
	Controllers []string `json:"controllers,omitempty"`
}
