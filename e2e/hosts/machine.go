package hosts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/installer"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// Machine is one that can be logged in to.
type Machine struct {
	Address netip.Addr
	NS      *netns.NS // its network

	t      testing.TB
	name   string
	port   string // the fabric's end of its wire
	dir    string // its own on this machine
	lower  string // what all machines have
	groups []string
	cmd    *exec.Cmd
	pid    int // of its first process
}

// patience is far longer than anything here takes on a busy machine.
const patience = 10 * time.Minute

// Name is the machine's.
func (m *Machine) Name() string { return m.name }

// put writes a file into the machine before it boots; its directories have the
// mode and owner that they have in all machines.
func (m *Machine) put(path string, mode fs.FileMode, data []byte) error {
	if err := m.parents(filepath.Dir(path)); err != nil {
		return err
	}
	to := filepath.Join(m.dir, "upper", path)
	if err := os.WriteFile(to, data, mode); err != nil {
		return err
	}
	return os.Chmod(to, mode) // whatever the umask is
}

func (m *Machine) parents(dir string) error {
	to := filepath.Join(m.dir, "upper", dir)
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	if dir != "/" {
		if err := m.parents(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	like, err := os.Stat(filepath.Join(m.lower, dir))
	if errors.Is(err, fs.ErrNotExist) {
		like, err = os.Stat(filepath.Join(m.lower, filepath.Dir(dir)))
	}
	if err != nil {
		return err
	}
	owner := like.Sys().(*syscall.Stat_t)
	return errors.Join(os.Chown(to, int(owner.Uid), int(owner.Gid)), os.Chmod(to, like.Mode()))
}

// machineID is 32 hexadecimal digits that no other machine has.
func (m *Machine) machineID() string {
	sum := sha256.Sum256([]byte(m.dir))
	return fmt.Sprintf("%x", sum[:16])
}

// launch starts a machine in namespaces and control groups of its own: what is
// mounted for it is gone with it.
const launch = `set -eu
dir=$1 lower=$2 name=$3 id=$4 net=$5 hostname=$6
shift 6
mount --make-rslave /
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
for group; do echo 0 >"$group/cgroup.procs"; done
# Container runtimes need keyrings and programs of the kernel's. An overlay, which
# containers lie on, lies on no other: what programs keep is on the disk itself.
[ -e "$dir/lib/dpkg" ] || cp -a "$lower/var/lib/." "$dir/lib"
exec systemd-nspawn --quiet --keep-unit --register=no --directory="$dir/root" --machine="$name" --hostname="$hostname" --uuid="$id" --network-namespace-path="$net" \
	--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_BPF,CAP_PERFMON --system-call-filter='bpf keyctl add_key request_key' \
	--bind="$dir/lib:/var/lib" --resolv-conf=off --timezone=off --link-journal=no --console=pipe --boot
`

// Boot starts the machine, which has what it had when it was last on, and waits
// until one can log in.
func (m *Machine) Boot() {
	m.t.Helper()
	if err := m.start(); err != nil {
		m.t.Fatal(err)
	}
	m.await()
}

func (m *Machine) await() {
	m.t.Helper()
	testnet.Eventually(m.t, patience, m.name+" has booted", func() (bool, string) {
		if m.cmd.ProcessState == nil && !alive(m.cmd.Process.Pid) {
			m.t.Fatalf("%s does not boot: %s", m.name, m.console())
		}
		if m.pid = firstChild(m.cmd.Process.Pid); m.pid == 0 {
			return false, m.console()
		}
		r, err := m.Run(m.t.Context(), installer.Command{Argv: []string{"systemctl", "is-system-running"}})
		state := strings.TrimSpace(string(r.Stdout))
		return state == "running" || state == "degraded", fmt.Sprint(state, err, string(r.Stderr), m.console())
	})
}

func (m *Machine) console() string {
	out, _ := os.ReadFile(filepath.Join(m.dir, "console"))
	return string(out)
}

func (m *Machine) start() error {
	out, err := os.Create(filepath.Join(m.dir, "console"))
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the machine has its own descriptor
	args := append([]string{"-c", launch, "launch", m.dir, m.lower, m.NS.Name(), m.machineID(), netns.Path(m.NS.Name()), m.name}, m.groups...)
	m.cmd = exec.Command("sh", args...)
	// Systemd's own way of keeping a container's hands off the kernel: of what is
	// in /proc and /sys, only the network's settings can be written.
	m.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"}
	m.cmd.Stdout, m.cmd.Stderr = out, out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	return record(filepath.Dir(filepath.Dir(m.dir)), m.cmd.Process.Pid)
}

// Off cuts the machine's power. Its wire and what is in its namespace stay.
func (m *Machine) Off() {
	if m.cmd == nil || m.cmd.Process == nil {
		return
	}
	if m.pid == 0 { // it has not come up yet
		m.pid = firstChild(m.cmd.Process.Pid)
	}
	if m.pid != 0 { // all others in its namespace end with it
		_ = syscall.Kill(m.pid, syscall.SIGKILL)
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd, m.pid = nil, 0
}

func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(stat), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// firstChild is the machine's first process: the only child of who waits for it.
func firstChild(pid int) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	for _, word := range strings.Fields(string(raw)) {
		child, _ := strconv.Atoi(word)
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", child)); string(comm) == "systemd\n" {
			return child
		}
	}
	return 0
}

// Run runs a command in the machine as root, without SSH: it makes the machine a
// host of the installer's, and is how tests look at what the installer did.
func (m *Machine) Run(ctx context.Context, c installer.Command) (installer.Result, error) {
	argv := append([]string{"-t", strconv.Itoa(m.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8"}, c.Argv...)
	cmd := exec.CommandContext(ctx, "nsenter", argv...)
	cmd.Dir = "/"
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(c.Stdin), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return installer.Result{}, fmt.Errorf("run in %s: %w", m.name, err)
	}
	return installer.Result{Code: cmd.ProcessState.ExitCode(), Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}, nil
}

// Store copies a blob into the machine's store.
func (m *Machine) Store(ctx context.Context, b installer.Blob) error {
	data, err := os.ReadFile(b.Path)
	if err != nil {
		return err
	}
	to := installer.StorePath(b.Sum)
	script := fmt.Sprintf("[ -e %[1]s ] && exit 0; mkdir -p %[2]s && cat >%[1]s.part && chmod 755 %[1]s.part && mv %[1]s.part %[1]s", to, installer.StoreDir)
	r, err := m.Run(ctx, installer.Command{Argv: []string{"sh", "-c", script}, Stdin: data})
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("store %s in %s: %s", b.Path, m.name, r.Stderr)
	}
	return err
}

// Sh runs a script in the machine, as root.
func (m *Machine) Sh(script string) (out string, code int) {
	m.t.Helper()
	// Also for those that clean up, when the test's context has ended.
	r, err := m.Run(context.WithoutCancel(m.t.Context()), installer.Command{Argv: []string{"bash", "-s"}, Stdin: []byte(script)})
	if err != nil {
		m.t.Fatal(err)
	}
	return string(r.Stdout) + string(r.Stderr), r.Code
}

// Must runs a script that has to succeed.
func (m *Machine) Must(script string) string {
	m.t.Helper()
	out, code := m.Sh(script)
	if code != 0 {
		m.t.Fatalf("%s: %s: %d\n%s", m.name, script, code, out)
	}
	return out
}
