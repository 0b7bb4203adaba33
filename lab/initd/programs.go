package initd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownProgram is where a node finds this program.
const ownProgram = "/run/slipway/slipway"

// Shims are the names under which this program plays systemd's.
var Shims = []string{"systemctl", "journalctl"}

// replaced are programs that would change the machine, and what a node has
// instead: the same words, and no deed.
var replaced = map[string]string{
	"swapoff": "exit 0\n",
	"swapon":  "exit 0\n",
	"reboot":  "echo 'a lab node is not rebooted like this: use slipway up' >&2; exit 1\n",
	// What is there counts as loaded. The kernel's modules are the machine's.
	"modprobe": `ok=0
for m do
	case $m in -*) continue ;; esac
	n=$(printf %s "$m" | tr - _)
	if grep -q "^$n " /proc/modules || [ -d "/sys/module/$n" ] || grep -q "/$m[.]ko\|/$n[.]ko" "/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null ||
		grep -qw "$m" /proc/filesystems || { [ "$n" = br_netfilter ] && [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; }; then
		continue
	fi
	echo "modprobe: module $m is not loaded, and a lab does not load modules into the machine's kernel" >&2
	ok=1
done
exit $ok
`,
}

// mountPrograms puts this program and the replacements first in the path, and
// over the machine's own where these would be called by their full names.
func (c *Config) mountPrograms() error {
	if err := os.WriteFile(ownProgram, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(c.Exe, ownProgram, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount this program: %w", err)
	}
	for _, d := range []string{"/usr/local/bin", "/usr/local/sbin"} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	for _, name := range Shims {
		if err := linkTo(ownProgram, filepath.Join("/usr/local/bin", name)); err != nil {
			return err
		}
		if err := coverReal(name, ownProgram); err != nil {
			return err
		}
	}
	for name, script := range replaced {
		path := filepath.Join("/usr/local/sbin", name)
		if err := os.WriteFile(path, []byte("#!/bin/sh\n# Of the lab: the machine's own is not for its nodes.\n"+script), 0o755); err != nil {
			return err
		}
		if err := coverReal(name, path); err != nil {
			return err
		}
	}
	return chooseIPTables()
}

// chooseIPTables makes the older of the two kinds of iptables the node's, where
// the machine has both: a lab's own rules are of that kind, and the kernel
// goes through the tables of the two one after the other.
func chooseIPTables() error {
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, tool := range []string{"", "-save", "-restore"} {
			legacy, chosen := "/usr/sbin/"+family+"-legacy"+tool, "/etc/alternatives/"+family+tool
			if _, err := os.Stat(legacy); err != nil {
				continue
			}
			if _, err := os.Lstat(chosen); err != nil { // another distribution's way to choose
				continue
			}
			if err := linkTo(legacy, chosen); err != nil {
				return err
			}
		}
	}
	return nil
}

func linkTo(target, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, path)
}

// coverReal binds a file over the machine's programs of that name. Those that
// are links to a program of many names (kmod) stay: the path leads past them.
func coverReal(name, with string) error {
	for _, dir := range []string{"/usr/bin", "/usr/sbin"} {
		path := filepath.Join(dir, name)
		if st, err := os.Lstat(path); err != nil || !st.Mode().IsRegular() {
			continue
		}
		if err := unix.Mount(with, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", path, err)
		}
	}
	return nil
}

// boundEnv marks a process that has gone through setpriv.
const boundEnv = "SLIPWAY_NODE_BOUND=1"

// Bounds are the arguments of setpriv(1) that take from a process, and all that
// come of it, the capabilities that reach beyond a node: modules, reboot, the clock.
var Bounds = []string{"--bounding-set", "-sys_module,-sys_boot,-sys_time"}

// bind takes from this process and all that come of it the capabilities that
// reach beyond a node: modules, reboot, the clock. It is util-linux that does
// it, and then becomes this program again: a Go program has many threads, and
// each would have to give them up.
func bind(exe string) error {
	if slices.Contains(os.Environ(), boundEnv) {
		return nil
	}
	const setpriv = "/usr/bin/setpriv"
	argv := slices.Concat([]string{setpriv}, Bounds, []string{"--", exe}, os.Args[1:])
	return fmt.Errorf("run %s: %w", setpriv, syscall.Exec(setpriv, argv, append(os.Environ(), boundEnv)))
}
