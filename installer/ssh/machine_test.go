package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// patience is for what comes about at once on a machine that is not busy.
const patience = 2 * time.Minute

// machine is a real sshd in namespaces of its own: network, processes, and files
// where it matters. Nothing of this machine is written.
type machine struct {
	name    string
	address string
	ns      *netns.NS
	dir     string // host keys, what sshd says
	pid     int    // of the first process inside
}

// inside makes the files that a machine has for itself, and starts sshd. $1 is the
// machine's directory. It ends, and all with it, when its input does.
const inside = `set -e
mount --make-rprivate /
mkdir -p $1/files
mount -t tmpfs -o size=64m tmpfs $1/files
for d in /etc /var /opt /home /root; do
	mkdir -p $1/files$d/up $1/files$d/work
	mount -t overlay -o lowerdir=$d,upperdir=$1/files$d/up,workdir=$1/files$d/work overlay $d
done
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd /root/.ssh /home/ops/.ssh
printf 'ops:x:6001:6001::/home/ops:/bin/bash\n' >>/etc/passwd
printf 'ops:x:6001:\n' >>/etc/group
printf 'ops:%s:19000:0:99999:7:::\n' "$(openssl passwd -6 -in $1/password)" >>/etc/shadow
cp $1/authorized_keys /root/.ssh/authorized_keys
cp $1/authorized_keys /home/ops/.ssh/authorized_keys
rm -f /root/.bashrc /root/.profile
chown -R 6001:6001 /home/ops
if [ -e $1/prepare ]; then . $1/prepare; fi
/usr/sbin/sshd -D -e -f $1/sshd_config 2>>$1/log &
echo ready
read -r _ || exit 0`

// password is that of ops.
const password = "correct-horse"

// newMachine starts one. prepare is a script that runs inside first, settings are
// more lines for sshd_config.
func newMachine(t testing.TB, o *operator, name, prepare, settings string) *machine {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.SSHD)
	m := &machine{name: name, ns: testnet.NewNS(t), dir: t.TempDir()}
	m.address = o.join(t, m)
	write(t, filepath.Join(m.dir, "authorized_keys"), o.authorized)
	write(t, filepath.Join(m.dir, "prepare"), prepare)
	write(t, filepath.Join(m.dir, "password"), password)
	m.newHostKey(t)
	write(t, filepath.Join(m.dir, "sshd_config"), fmt.Sprintf(`ListenAddress 0.0.0.0:22
HostKey %s/host_key
PidFile none
UsePAM no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp internal-sftp
%s
`, m.dir, settings))
	m.start(t)
	return m
}

func (m *machine) start(t testing.TB) {
	t.Helper()
	cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", inside, "sh", m.dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := m.ns.Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(m.dir, "log"))
			t.Logf("sshd of %s: %s", m.name, log)
		}
	})
	ready := make([]byte, 5)
	if _, err := out.Read(ready); err != nil || string(ready) != "ready" {
		_ = cmd.Wait()
		t.Fatalf("machine %s: %v: %s", m.name, err, said.String())
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err == nil {
		_, err = fmt.Sscan(string(children), &m.pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.waitFor(t)
}

// restart ends the sshd that listens, and starts another.
func (m *machine) restart(t testing.TB) {
	t.Helper()
	m.sh(t, fmt.Sprintf("pkill -o -x sshd; while ! /usr/sbin/sshd -f %[1]s/sshd_config -E %[1]s/log2; do sleep 0.1; done", m.dir))
	m.waitFor(t)
}

func (m *machine) waitFor(t testing.TB) {
	t.Helper()
	testnet.Eventually(t, patience, "sshd answers", func() (bool, string) {
		err := m.ns.Do(func() error {
			c, err := net.Dial("tcp", m.address+":22")
			if err == nil {
				_ = c.Close()
			}
			return err
		})
		return err == nil, fmt.Sprint(err)
	})
}

func (m *machine) newHostKey(t testing.TB) {
	t.Helper()
	private, _ := newKey(t)
	path := filepath.Join(m.dir, "host_key")
	_ = os.Remove(path)
	write(t, path, private)
}

// sh runs a script inside, as root.
func (m *machine) sh(t testing.TB, script string) string {
	t.Helper()
	out, err := exec.Command("nsenter", "-t", fmt.Sprint(m.pid), "-m", "-p", "-n", "sh", "-c", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %s: %v: %s", m.name, script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// target reaches the machine as a user.
func (m *machine) target(user string) Target {
	return Target{Name: m.name, Host: m.address, User: user}
}

// operator is who reaches machines: keys, files, and a way into their namespaces.
type operator struct {
	dir        string
	authorized string
	mu         sync.Mutex
	machines   map[string]*machine // by address
	conns      []net.Conn
}

func newOperator(t testing.TB) *operator {
	t.Helper()
	o := &operator{dir: t.TempDir(), machines: map[string]*machine{}}
	private, public := newKey(t)
	write(t, o.path("key"), private)
	o.authorized = public
	return o
}

func (o *operator) path(name string) string { return filepath.Join(o.dir, name) }

// join gives a machine an address.
func (o *operator) join(t testing.TB, m *machine) string {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.machines) + 1
	address := fmt.Sprintf("10.71.%d.%d", n/250, n%250+1)
	h := testnet.Handle(t, m.ns)
	lo, err := h.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.AddrAdd(lo, addr(t, address+"/32")); err != nil {
		t.Fatal(err)
	}
	o.machines[address] = m
	return address
}

// options are those of somebody who has nothing but one key.
func (o *operator) options() Options {
	return Options{ConfigFile: "none", KnownHosts: o.path("known_hosts"), Keys: []string{o.path("key")}, AcceptNew: true, Dial: o.dial}
}

// dial connects from within the namespace of the machine that has the address.
func (o *operator) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	m := o.machines[host]
	o.mu.Unlock()
	if m == nil {
		return nil, fmt.Errorf("dial %s: no route to host", address)
	}
	var c net.Conn
	err = m.ns.Do(func() error {
		var d net.Dialer
		var err error
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	if err == nil {
		o.mu.Lock()
		o.conns = append(o.conns, c)
		o.mu.Unlock()
	}
	return c, err
}

func (o *operator) open(t testing.TB, m *machine, user string, change ...func(*Options)) *Host {
	t.Helper()
	opts := o.options()
	for _, c := range change {
		c(&opts)
	}
	h, err := Open(t.Context(), m.target(user), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// newKey returns a private key as OpenSSH writes it, and its line for
// authorized_keys.
func newKey(t testing.TB) (private, public string) {
	t.Helper()
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := gossh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := gossh.NewPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), string(gossh.MarshalAuthorizedKey(p))
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func command(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}
