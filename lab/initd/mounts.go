package initd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/lab/podexec"
)

// covered are the directories that a node has for itself, over the machine's.
var covered = []string{"etc", "var", "opt", "root", "usr/local", "srv"}

// Covers reports whether a path of the machine lies in a directory that nodes
// have for themselves.
func Covers(path string) bool {
	for _, d := range covered {
		if rest, ok := strings.CutPrefix(filepath.Clean(path), "/"+d); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// plain are directories that are empty in a new node: those where programs put
// file systems of their own, which cannot lie on an overlay, and that of the
// units, lest a node starts what the machine does.
var plain = []string{"/etc/systemd/system", "/var/lib/containerd", "/var/lib/kubelet", "/var/lib/docker"}

// mountAll makes the node's file system. It runs in a mount namespace of its own.
func (c *Config) mountAll() error {
	// What the machine unmounts goes from here too: or network namespaces that it
	// deletes would live on, and disks could not be taken off it.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	steps := []func() error{mountProc, c.hold, podexec.FreshSys, c.mountOverlays, mountTemporary, c.mountLock, c.mountPlain, c.mountStore, c.mountStandIns, c.identify, c.mountPrograms}
	for _, s := range steps {
		if err := s(); err != nil {
			return err
		}
	}
	// Kubelet and container runtimes hand mounts on to containers.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	return nil
}

// hold opens the places on the machine that are needed further on, and goes by
// the descriptors from there: what is mounted next may hide their paths.
func (c *Config) hold() error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	for _, path := range []*string{&c.Dir, &c.Store, &c.Exe} {
		if *path == "" {
			continue
		}
		fd, err := unix.Open(*path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", *path, err)
		}
		*path = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	return nil
}

func mountProc() error {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	return nil
}

func (c *Config) mountOverlays() error {
	for _, d := range covered {
		target := "/" + d
		if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		name := strings.ReplaceAll(d, "/", "-")
		upper, work := filepath.Join(c.Dir, "upper", name), filepath.Join(c.Dir, "work", name)
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o700)); err != nil {
			return err
		}
		if err := likeTop(target, upper); err != nil {
			return err
		}
		opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work)
		if err := unix.Mount("overlay", target, "overlay", 0, opts); err != nil {
			return fmt.Errorf("overlay %s: %w", target, err)
		}
	}
	return nil
}

// likeTop gives a directory the mode of another: an overlay's top is its upper's.
func likeTop(like, dir string) error {
	st, err := os.Stat(like)
	if err != nil {
		return err
	}
	return os.Chmod(dir, st.Mode().Perm())
}

func mountTemporary() error {
	for dir, mode := range map[string]string{"/run": "mode=0755", "/tmp": "mode=1777"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, mode+",size=20%"); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	for _, d := range []string{"/run/lock", "/run/netns", "/run/slipway"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// xtablesLock is what programs of iptables' older kind lock while they change
// rules (iptables xshared.h, XT_LOCK_NAME).
const xtablesLock = "/run/xtables.lock"

// XTablesLock is where the node's lock file is on the machine, for those who
// change the node's rules from without. Dir is the node's.
func XTablesLock(dir string) string { return filepath.Join(dir, "files", flat(xtablesLock)) }

func flat(path string) string { return strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", "-") }

func (c *Config) mountLock() error {
	if err := os.WriteFile(xtablesLock, nil, 0o600); err != nil {
		return err
	}
	return c.cover(xtablesLock, "", 0o600)
}

func (c *Config) mountPlain() error {
	for _, target := range plain {
		from := filepath.Join(c.Dir, "data", filepath.Base(target))
		if err := errors.Join(os.MkdirAll(from, 0o700), os.MkdirAll(target, 0o700)); err != nil {
			return err
		}
		if err := unix.Mount(from, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", target, err)
		}
	}
	return nil
}

// mountStore shows the lab's store of programs, which all nodes share.
func (c *Config) mountStore() error {
	if c.Store == "" {
		return nil
	}
	if err := os.MkdirAll(c.StoreAt, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(c.Store, c.StoreAt, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", c.StoreAt, err)
	}
	if err := unix.Mount("", c.StoreAt, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s read-only: %w", c.StoreAt, err)
	}
	return nil
}

// standIns are settings of the whole machine, which a node's programs want to
// read and write: they get files. The values are those that kubelet asks for
// (k8s.io/component-helpers node/util/sysctl), where it asks for any.
var standIns = map[string]string{
	"/proc/sys/vm/overcommit_memory":        "1",
	"/proc/sys/vm/panic_on_oom":             "0",
	"/proc/sys/vm/swappiness":               "0",
	"/proc/sys/vm/max_map_count":            "262144",
	"/proc/sys/kernel/panic":                "10",
	"/proc/sys/kernel/panic_on_oops":        "1",
	"/proc/sys/kernel/keys/root_maxkeys":    "1000000",
	"/proc/sys/kernel/keys/root_maxbytes":   "25000000",
	"/proc/sys/kernel/pid_max":              "4194304",
	"/proc/sys/fs/file-max":                 "9223372036854775807",
	"/proc/sys/fs/inotify/max_user_watches": "1048576",
	"/proc/swaps":                           "Filename\tType\tSize\tUsed\tPriority",
}

// MachineWide lists the settings that nodes see as files of their own.
func MachineWide() []string {
	var out []string
	for path := range standIns {
		out = append(out, path)
	}
	return out
}

func (c *Config) mountStandIns() error {
	for path, text := range standIns {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := c.cover(path, text+"\n", 0o644); err != nil {
			return err
		}
	}
	return nil
}

// cover puts a file of the node's over one of the machine's.
func (c *Config) cover(path, text string, mode fs.FileMode) error {
	own := filepath.Join(c.Dir, "files", flat(path))
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(own); errors.Is(err, fs.ErrNotExist) {
		if err := os.WriteFile(own, []byte(text), mode); err != nil {
			return err
		}
	}
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return nil
}

// identify gives the node the names that tell machines apart.
func (c *Config) identify() error {
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	once := map[string]string{
		"/etc/hostname": c.Hostname + "\n", "/etc/machine-id": c.MachineID + "\n",
		"/etc/resolv.conf": c.Resolver, "/etc/hosts": c.Hosts,
	}
	for path, text := range once {
		mark := filepath.Join(c.Dir, "upper", "etc", filepath.Base(path))
		if st, err := os.Lstat(mark); err == nil && st.Mode().IsRegular() {
			continue // the node has its own already, as somebody may have changed it
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	const uuid = "/sys/class/dmi/id/product_uuid"
	if real, err := filepath.EvalSymlinks(uuid); err == nil {
		id := c.MachineID
		return c.cover(real, fmt.Sprintf("%s-%s-%s-%s-%s\n", id[:8], id[8:12], id[12:16], id[16:20], id[20:]), 0o400)
	}
	return nil
}
