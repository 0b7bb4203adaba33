package initd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"slipway/lab/units"
)

// Where a node keeps what its services say.
const (
	LogDir    = "/var/log/slipway"
	notifyDir = "/run/slipway/notify"
)

// Path is what programs are looked for in, for services and commands.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// baseEnvironment is what every process of a node starts with; the lab's mark is
// added to it.
var baseEnvironment = []string{"PATH=" + Path, "HOME=/root", "LANG=C.UTF-8", "USER=root", "LOGNAME=root"}

// Environment is a copy of what every process of a node starts with.
func Environment() []string { return slices.Clone(baseEnvironment) }

// node runs services of this process's own namespaces.
type node struct {
	reaper *reaper
	extra  []string // environment
}

func (n *node) environment(u *units.Service) ([]string, error) {
	env := append(append([]string{}, baseEnvironment...), n.extra...)
	env = append(env, u.Environment...)
	for _, f := range u.EnvironmentFiles {
		text, err := os.ReadFile(f.Path)
		if errors.Is(err, fs.ErrNotExist) && f.Optional {
			continue
		}
		if err != nil {
			return nil, err
		}
		assignments, err := units.ParseEnvironment(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		env = append(env, assignments...)
	}
	return env, makeDirectories(u)
}

func makeDirectories(u *units.Service) error {
	for base, names := range map[string][]string{"/run": u.RuntimeDirectories, "/var/lib": u.StateDirectories} {
		for _, name := range names {
			if err := os.MkdirAll(filepath.Join(base, name), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

// value looks a variable up; the last assignment counts.
func value(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

func (n *node) spawn(u *units.Service, c units.Command, env []string) (*process, error) {
	argv := c.Expand(func(name string) string { return value(env, name) })
	argv, err := around(u, argv)
	if err != nil {
		return nil, err
	}
	out, err := openLog(u.Name)
	if err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // the process has its own descriptor
	in, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // read only
	dir := u.Directory
	if dir == "" {
		dir = "/"
	}
	p, err := n.reaper.start(argv, env, dir, []uintptr{in.Fd(), out.Fd(), out.Fd()})
	if err != nil {
		return nil, err
	}
	if u.OOMScoreAdjust != nil {
		// Lowering takes CAP_SYS_RESOURCE, which a lab need not have.
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.pid), []byte(strconv.Itoa(*u.OOMScoreAdjust)), 0)
	}
	return p, nil
}

// around puts the programs of util-linux that set limits and user before a
// command: they become it.
func around(u *units.Service, argv []string) ([]string, error) {
	var before []string
	if len(u.Limits) > 0 {
		before = append(before, "/usr/bin/prlimit")
		for _, l := range u.Limits {
			soft, hard := closest(l)
			before = append(before, fmt.Sprintf("--%s=%s:%s", strings.ToLower(l.Name), limit(soft), limit(hard)))
		}
		before = append(before, "--")
	}
	if u.User != "" && u.User != "root" {
		who, err := user.Lookup(u.User)
		if err != nil {
			return nil, err
		}
		before = append(before, "/usr/bin/setpriv", "--reuid", who.Uid, "--regid", who.Gid, "--init-groups", "--")
	}
	return append(before, argv...), nil
}

// resources are the numbers of the limits (linux include/uapi/asm-generic/resource.h).
var resources = map[string]int{"NOFILE": unix.RLIMIT_NOFILE, "NPROC": unix.RLIMIT_NPROC, "CORE": unix.RLIMIT_CORE, "MEMLOCK": unix.RLIMIT_MEMLOCK}

// closest is what of a limit can be had: where this process may not raise its
// own, as in a container, no more than that (systemd src/basic/rlimit-util.c,
// setrlimit_closest).
func closest(l units.Limit) (soft, hard uint64) {
	var own unix.Rlimit
	if err := unix.Getrlimit(resources[l.Name], &own); err != nil {
		return l.Soft, l.Hard
	}
	higher := own
	higher.Max = l.Hard
	if l.Hard > own.Max && unix.Setrlimit(resources[l.Name], &higher) != nil {
		return min(l.Soft, own.Max), own.Max
	}
	return l.Soft, l.Hard
}

func limit(n uint64) string {
	if n == units.Infinity {
		return "unlimited"
	}
	return strconv.FormatUint(n, 10)
}

func (n *node) notifications(name string) (*notifySocket, error) {
	return listenNotify(filepath.Join(notifyDir, name))
}

// maxLog is how big a service's log gets before it is moved aside, in bytes.
const maxLog = 16 << 20

// LogFile is where a service's output goes.
func LogFile(unit string) string {
	return filepath.Join(LogDir, strings.TrimSuffix(unit, ".service")+".log")
}

func openLog(unit string) (*os.File, error) {
	if err := os.MkdirAll(LogDir, 0o755); err != nil {
		return nil, err
	}
	path := LogFile(unit)
	if st, err := os.Stat(path); err == nil && st.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|syscall.O_CLOEXEC, 0o640)
}
