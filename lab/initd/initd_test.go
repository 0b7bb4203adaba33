package initd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/testnet"
)

// nodeEnv makes the test binary a node's first process.
const nodeEnv = "INITD_TEST_NODE"

func TestMain(m *testing.M) {
	ctx := context.Background()
	switch {
	case os.Getenv(nodeEnv) != "":
		var c Config
		err := json.Unmarshal([]byte(os.Getenv(nodeEnv)), &c)
		if err == nil {
			err = Run(ctx, c)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case filepath.Base(os.Args[0]) == "systemctl":
		os.Exit(Systemctl(ctx, os.Args[1:], os.Stdout, os.Stderr))
	case filepath.Base(os.Args[0]) == "notifier":
		os.Exit(notifier())
	case filepath.Base(os.Args[0]) == "journalctl":
		os.Exit(Journalctl(ctx, os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// notifier is a service that is ready once /run/go is there.
func notifier() int {
	for {
		if _, err := os.Stat("/run/go"); err == nil {
			break
		}
		<-time.After(time.Millisecond)
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err == nil {
		_, err = c.Write([]byte("STATUS=at work\nREADY=1\n"))
	}
	if err != nil {
		return 1
	}
	<-time.After(time.Hour)
	return 0
}

// rig is a node of a test.
type rig struct {
	t      *testing.T
	config Config
	cmd    *exec.Cmd
	client *Client
}

func newRig(t *testing.T) *rig {
	t.Helper()
	testnet.Need(t, testnet.Root)
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, config: Config{
		Hostname: "node01", MachineID: "0123456789abcdef0123456789abcdef", Hosts: "127.0.0.1 localhost\n", Resolver: "nameserver 10.96.0.10\n",
		Dir: filepath.Join(dir, "node"), Store: store, StoreAt: "/opt/slipway/store", Socket: filepath.Join(dir, "s"), Exe: exe, Env: []string{"LAB_MARK=x"},
	}}
	r.boot()
	t.Cleanup(r.kill)
	return r
}

// boot starts the node and waits until it answers.
func (r *rig) boot() {
	r.t.Helper()
	raw, err := json.Marshal(r.config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.cmd = exec.Command(r.config.Exe)
	r.cmd.Env = append(os.Environ(), nodeEnv+"="+string(raw))
	r.cmd.Stderr = os.Stderr
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET}
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.client = NewClient(r.config.Socket)
	r.until("the node answers", func() bool { return r.client.Ping(r.t.Context()) == nil })
}

func (r *rig) kill() {
	_ = r.cmd.Process.Kill()
	_ = r.cmd.Wait()
}

func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	late := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-late:
			r.t.Fatalf("not in time: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// sh runs a script in the node.
func (r *rig) sh(script string) (string, int) {
	r.t.Helper()
	res, err := r.client.Run(r.t.Context(), []string{"sh", "-c", script}, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(res.Stdout) + string(res.Stderr), res.Code
}

// must runs a script that has to succeed.
func (r *rig) must(script string) string {
	r.t.Helper()
	out, code := r.sh(script)
	if code != 0 {
		r.t.Fatalf("%s: exit code %d: %s", script, code, out)
	}
	return out
}

// unit installs a unit.
func (r *rig) unit(name, text string) {
	r.t.Helper()
	if _, err := r.client.Run(r.t.Context(), []string{"sh", "-c", "mkdir -p /etc/systemd/system; cat >/etc/systemd/system/" + name}, []byte(text)); err != nil {
		r.t.Fatal(err)
	}
	r.must("systemctl daemon-reload")
}

func (r *rig) is(name, state string) func() bool {
	return func() bool { out, _ := r.sh("systemctl is-active " + name); return out == state+"\n" }
}

// others are the mounts of other tests' namespaces.
var others = regexp.MustCompile(`(?m)^nsfs /run/netns/.*\n`)

func TestNodeIsAMachineOfItsOwn(t *testing.T) {
	files := []string{"/etc/hosts", "/etc/hostname", "/etc/machine-id", "/proc/sys/kernel/panic", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname", "/proc/swaps", "/proc/mounts"}
	read := func() (out []string) {
		for _, f := range files {
			data, _ := os.ReadFile(f)
			out = append(out, others.ReplaceAllString(string(data), ""))
		}
		return out
	}
	before := read()
	r := newRig(t)
	if got := r.must("hostname; cat /etc/machine-id /etc/resolv.conf; cat /proc/1/comm | wc -l; echo $LAB_MARK; ls /sys/class/net"); got != "node01\n0123456789abcdef0123456789abcdef\nnameserver 10.96.0.10\n1\nx\nlo\n" {
		t.Errorf("%q", got)
	}
	// It may write where it likes, and swap, modules and settings are its own.
	r.must("for d in /etc /var/lib /opt /usr/local/bin /root /run /tmp; do echo x >$d/slipway-initd-test; done; swapoff -a; echo 42 >/proc/sys/kernel/panic; cat /sys/class/dmi/id/product_uuid >/dev/null || true")
	for _, d := range []string{"/etc", "/var/lib", "/opt", "/usr/local/bin", "/root", "/run", "/tmp"} {
		if _, err := os.Stat(filepath.Join(d, "slipway-initd-test")); err == nil {
			t.Errorf("a file of the node's is in the machine's %s", d)
		}
	}
	if out, code := r.sh("modprobe no_such_module_x"); code == 0 || !strings.Contains(out, "no_such_module_x is not loaded") {
		t.Errorf("%d %s", code, out)
	}
	if out, code := r.sh("date -s @0"); code == 0 || !strings.Contains(out, "not permitted") {
		t.Errorf("the machine's clock was set: %s", out)
	}
	if out, code := r.sh("touch /opt/slipway/store/x"); code == 0 {
		t.Errorf("the store was written to: %s", out)
	}
	if after := read(); !slices.Equal(before, after) {
		t.Errorf("the machine changed:\n%q\n%q", before, after)
	}
	// What was written is there after a power cut.
	r.must("echo 127.0.0.1 mine >>/etc/hosts; mkdir /var/lib/etcd; echo data >/var/lib/etcd/x")
	r.kill()
	r.boot()
	if got := r.must("cat /etc/hosts /var/lib/etcd/x; cat /proc/sys/kernel/panic; ls /run/slipway-initd-test 2>&1" + " || true"); got != "127.0.0.1 localhost\n127.0.0.1 mine\ndata\n42\nls: cannot access '/run/slipway-initd-test': No such file or directory\n" {
		t.Errorf("%q", got)
	}
}

func TestRun(t *testing.T) {
	r := newRig(t)
	res, err := r.client.Run(t.Context(), []string{"sh", "-c", "cat; echo bad >&2; exit 7"}, []byte("input"))
	if err != nil || string(res.Stdout) != "input" || string(res.Stderr) != "bad\n" || res.Code != 7 {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := r.client.Run(t.Context(), []string{"no-such-program"}, nil); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Error(err)
	}
	big := strings.Repeat("0123456789abcdef", 1<<16)
	if res, err := r.client.Run(t.Context(), []string{"cat"}, []byte(big)); err != nil || string(res.Stdout) != big {
		t.Errorf("%d bytes, %v", len(res.Stdout), err)
	}
	// Who goes away takes the command along.
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { _, err := r.client.Run(ctx, []string{"sh", "-c", "sleep 321 & sleep 321"}, nil); failed <- err }()
	r.until("it runs", func() bool { _, code := r.sh("pgrep -f 'sleep 321' >/dev/null"); return code == 0 })
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	r.until("it is gone", func() bool { out, _ := r.sh("pgrep -x sleep"); return out == "" })
}

func TestServiceLife(t *testing.T) {
	r := newRig(t)
	r.unit("web.service", `[Unit]
Description=a server
[Service]
Environment=WORD=hello
ExecStart=/bin/sh -c 'echo $$WORD; ulimit -n; sleep 1000 & exec sleep 1001'
LimitNOFILE=4321
[Install]
WantedBy=multi-user.target
`)
	if out, code := r.sh("systemctl is-active web; systemctl is-enabled web; systemctl is-active nothing; systemctl start nothing"); code != codeNoUnit || out != "inactive\ndisabled\ninactive\nUnit nothing.service could not be found.\n" {
		t.Errorf("%d %q", code, out)
	}
	r.must("systemctl enable --now web")
	if out := r.must("systemctl is-active web; systemctl is-enabled web; systemctl show web -p ActiveState --value"); out != "active\nenabled\nactive\n" {
		t.Errorf("%q", out)
	}
	r.until("it wrote", func() bool { return r.must("journalctl -u web") == "hello\n4321\n" })
	if out := r.must("systemctl status web"); !strings.Contains(out, "web.service - a server") || !strings.Contains(out, "hello") {
		t.Errorf("%s", out)
	}
	r.must("systemctl stop web")
	if out, _ := r.sh("pgrep -x sleep"); out != "" {
		t.Errorf("left behind: %s", out)
	}
	if out, code := r.sh("systemctl is-active web"); code != codeNotActive || out != "inactive\n" {
		t.Errorf("%d %q", code, out)
	}
	// With the node's next start it is there again, as it is enabled.
	r.kill()
	r.boot()
	r.until("web is up", r.is("web", "active"))
	r.must("systemctl disable --now web; rm /etc/systemd/system/web.service; systemctl daemon-reload")
	if _, code := r.sh("systemctl status web"); code != codeNoUnit {
		t.Errorf("exit code %d", code)
	}
}

func TestRestartAndLimit(t *testing.T) {
	r := newRig(t)
	r.unit("phoenix.service", "[Service]\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=10ms\n")
	r.must("systemctl start phoenix")
	pid := func() string { return r.must("systemctl show phoenix -p MainPID --value") }
	old := pid()
	r.must("kill -9 " + old)
	r.until("another runs", func() bool { p := pid(); return p != old && p != "0\n" })
	r.until("it is active", r.is("phoenix", "active"))
	r.must("systemctl stop phoenix")
	if out, _ := r.sh("systemctl is-active phoenix"); out != "inactive\n" {
		t.Errorf("what was stopped is %q", out)
	}
	// One that cannot live is given up, and says why.
	r.unit("doomed.service", "[Service]\nExecStart=/bin/sh -c 'echo dying; exit 3'\nRestart=on-failure\nRestartSec=1ms\n")
	r.must("systemctl start doomed")
	r.until("it is given up", r.is("doomed", "failed"))
	if out, _ := r.sh("systemctl status doomed"); !strings.Contains(out, "started 5 times within 10s") || !strings.Contains(out, "last exit code 3") || !strings.Contains(out, "dying") {
		t.Errorf("%s", out)
	}
	if n := strings.Count(r.must("journalctl -u doomed"), "dying"); n != 5 {
		t.Errorf("started %d times", n)
	}
	// One that has not to be started again is not.
	r.unit("once.service", "[Service]\nExecStart=/bin/sh -c 'exit 3'\n")
	r.must("systemctl start once")
	r.until("once failed", r.is("once", "failed"))
}

func TestNotifyAndOrder(t *testing.T) {
	r := newRig(t)
	r.unit("late.service", "[Unit]\nAfter=early.service\nRequires=early.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/sh -c 'cat /run/early >/run/late'\n[Install]\nWantedBy=multi-user.target\n")
	r.unit("early.service", "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStartPre=/bin/sleep 0.2\nExecStart=/bin/sh -c 'echo first >/run/early'\n[Install]\nWantedBy=multi-user.target\n")
	r.must("systemctl start late")
	if out := r.must("cat /run/late"); out != "first\n" {
		t.Errorf("%q", out)
	}
	r.must("systemctl enable late early")
	r.kill()
	r.boot()
	r.until("late ran after early", func() bool { out, _ := r.sh("cat /run/late"); return out == "first\n" })
	r.unit("unready.service", "[Service]\nType=notify\nTimeoutStartSec=300ms\nExecStart=/bin/sleep 1000\n")
	if out, code := r.sh("systemctl start unready"); code != 1 || !strings.Contains(out, "not ready in time") {
		t.Errorf("%d %s", code, out)
	}
	if out, _ := r.sh("systemctl is-active unready; pgrep -x sleep"); out != "failed\n" {
		t.Errorf("%q", out)
	}
}

func TestNotify(t *testing.T) {
	r := newRig(t)
	r.must("ln -s /run/slipway/slipway /usr/local/bin/notifier")
	r.unit("herald.service", "[Service]\nType=notify\nExecStart=/usr/local/bin/notifier\n")
	started := make(chan error, 1)
	go func() {
		res, err := r.client.Run(t.Context(), []string{"systemctl", "start", "herald"}, nil)
		if err == nil && res.Code != 0 {
			err = errors.New(string(res.Stderr))
		}
		started <- err
	}()
	r.until("it is on its way", r.is("herald", "activating"))
	select {
	case err := <-started:
		t.Fatalf("it counts as started before it is ready: %v", err)
	default:
	}
	r.must("touch /run/go")
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	if out := r.must("systemctl status herald"); !strings.Contains(out, "Active: active") || !strings.Contains(out, "Status: at work") {
		t.Errorf("%s", out)
	}
}

func TestEndStopsServicesInOrder(t *testing.T) {
	r := newRig(t)
	r.unit("db.service", "[Service]\nExecStart=/bin/sh -c 'trap \"echo db >>/var/order; exit 0\" TERM; while :; do sleep 0.01; done'\n")
	r.unit("app.service", "[Unit]\nAfter=db.service\nRequires=db.service\n[Service]\nExecStart=/bin/sh -c 'trap \"echo app >>/var/order; exit 0\" TERM; while :; do sleep 0.01; done'\n")
	r.must("systemctl start app; until pgrep -f 'echo app' >/dev/null; do :; done; sleep 0.1")
	if err := r.client.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(filepath.Join(r.config.Dir, "upper/var/order")); string(data) != "app\ndb\n" || err != nil {
		t.Errorf("%q, %v", data, err)
	}
	if err := r.client.Ping(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Error(err)
	}
}
