package vms

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"slipway/internal/testnet"
)

// Patience is how long a machine may take to boot, to end, or to answer: on a
// busy machine that emulates every instruction, minutes.
const Patience = 10 * time.Minute

// Machine is one with a kernel of its own.
type Machine struct {
	Address netip.Addr
	// Booted is how long the last boot took until one could log in.
	Booted time.Duration

	t            testing.TB
	r            *Rig
	name         string
	memory, cpus int
	tap, mac     string
	uuid         string // of the product, as firmware tells
	append       string // to the kernel's command line

	cmd    *exec.Cmd
	ended  chan struct{}
	mu     sync.Mutex
	client *ssh.Client
}

// Name is the machine's.
func (m *Machine) Name() string { return m.name }

func (m *Machine) file(suffix string) string { return filepath.Join(m.r.dir, m.name+"."+suffix) }

// command is a program that leaves the CPUs to whoever else wants them.
func command(name string, args ...string) *exec.Cmd {
	return exec.Command("nice", append([]string{"-n", "5", name}, args...)...)
}

// qemu is the program of this machine's architecture. The kernel is not to try
// whether timers tick: on a busy machine they do so too late for it, and it panics.
func qemu(image string, memory, cpus int, accel []string, appended string, args ...string) *exec.Cmd {
	return command("qemu-system-x86_64", append(append([]string{
		"-kernel", filepath.Join(image, "vmlinuz"), "-initrd", filepath.Join(image, "initrd.gz"),
		"-append", "console=ttyS0 root=/dev/vda mitigations=off no_timer_check quiet panic=-1 " + appended,
		"-m", strconv.Itoa(memory), "-smp", strconv.Itoa(cpus),
		"-display", "none", "-monitor", "none", "-no-reboot",
	}, accel...), args...)...)
}

// start switches the machine on, which has what it had when it was last on.
func (m *Machine) start() {
	m.t.Helper()
	m.cmd = qemu(m.r.image, m.memory, m.cpus, m.r.accel, m.append, "-uuid", m.uuid,
		"-drive", "if=none,id=root,file="+m.file("qcow2")+",format=qcow2,cache=unsafe,discard=unmap", "-device", "virtio-blk-pci,drive=root",
		"-drive", "if=none,id=files,file="+filepath.Join(m.r.dir, "files.img")+",format=raw,readonly=on,file.locking=off", "-device", "virtio-blk-pci,drive=files",
		"-netdev", "tap,id=net,ifname="+m.tap+",script=no,downscript=no", "-device", "virtio-net-pci,netdev=net,mac="+m.mac+",romfile=",
		"-device", "virtio-rng-pci", "-serial", "file:"+m.file("console"), "-pidfile", m.file("pid"))
	out, err := os.Create(m.file("out"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // the machine has its own descriptor
	m.cmd.Stdout, m.cmd.Stderr = out, out
	if err := m.r.NS.Do(m.cmd.Start); err != nil {
		m.t.Fatal(err)
	}
	ended := make(chan struct{})
	m.ended = ended
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(ended)
	}(m.cmd)
}

// await waits until one can log in.
func (m *Machine) await() {
	m.t.Helper()
	began := time.Now()
	testnet.Eventually(m.t, Patience, m.name+" has booted", func() (bool, string) {
		select {
		case <-m.ended:
			m.t.Fatalf("%s does not boot: %s", m.name, m.console())
		default:
		}
		_, err := m.connect()
		if err != nil {
			return false, fmt.Sprint(err, m.console())
		}
		return true, ""
	})
	m.Booted = time.Since(began)
}

// Boot switches the machine on.
func (m *Machine) Boot() {
	m.t.Helper()
	m.start()
	m.await()
}

// Off cuts the machine's power.
func (m *Machine) Off() {
	m.disconnect()
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	<-m.ended
	m.cmd = nil
}

// shutdown asks the machine to end as it ends by itself.
func (m *Machine) shutdown() {
	m.t.Helper()
	_, _ = m.Sh("systemctl --no-block poweroff") // the answer may not come any more
}

// down waits until the machine has ended.
func (m *Machine) down() {
	m.t.Helper()
	select {
	case <-m.ended:
	case <-time.After(2 * Patience):
		m.t.Fatalf("%s does not end: %s", m.name, m.console())
	}
	m.Off()
}

// Reboot has the machine end as it ends by itself, and boots it again.
func (m *Machine) Reboot() {
	m.t.Helper()
	m.shutdown()
	m.down()
	m.Boot()
}

// console is the end of what the kernel and qemu said.
func (m *Machine) console() string {
	kernel, _ := os.ReadFile(m.file("console"))
	out, _ := os.ReadFile(m.file("out"))
	return string(out) + string(kernel[max(0, len(kernel)-2000):])
}

// connect returns the connection that commands share.
func (m *Machine) connect() (*ssh.Client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		return m.client, nil
	}
	var conn net.Conn
	err := m.r.NS.Do(func() (err error) {
		conn, err = net.DialTimeout("tcp", net.JoinHostPort(m.Address.String(), "22"), 10*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil { // of the handshake
		return nil, errors.Join(err, conn.Close())
	}
	// Whose key it is nobody knows yet: it is made when the machine first boots.
	c, chans, reqs, err := ssh.NewClientConn(conn, m.Address.String(), &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(m.r.Signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	m.client = ssh.NewClient(c, chans, reqs)
	return m.client, nil
}

func (m *Machine) disconnect() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client != nil {
		_ = m.client.Close()
		m.client = nil
	}
}

// Sh runs a script in the machine, as root.
func (m *Machine) Sh(script string) (out string, code int) {
	m.t.Helper()
	return m.ShWithin(Patience, script)
}

// ShWithin is Sh for what may take that long.
func (m *Machine) ShWithin(limit time.Duration, script string) (out string, code int) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), limit)
	defer cancel()
	out, code, err := m.run(ctx, script)
	if err != nil {
		return fmt.Sprintf("%s%s: %v\n", out, m.name, err), -1
	}
	return out, code
}

// run runs a script with the shell. An error means that nobody knows how it ended.
func (m *Machine) run(ctx context.Context, script string) (string, int, error) {
	client, err := m.connect()
	if err != nil {
		return "", 0, err
	}
	session, err := client.NewSession()
	if err != nil {
		m.disconnect()
		return "", 0, err
	}
	defer session.Close() //nolint:errcheck // ended
	session.Stdin = strings.NewReader(script)
	stop := context.AfterFunc(ctx, m.disconnect)
	defer stop()
	out, err := session.CombinedOutput("exec bash -s")
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitStatus(), nil
	}
	return string(out), 0, errors.Join(err, ctx.Err())
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
