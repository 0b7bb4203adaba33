package realproxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"slipway/datapath/kubeproxy"
	"slipway/internal/netns"
)

// Config is how kube-proxy is run.
type Config struct {
	// Program is kube-proxy's path, NS the namespace whose rules it writes.
	Program string
	NS      *netns.NS
	// Dir is a directory of its own, for its files.
	Dir string
	// Node is who it is, Mode "iptables" or "nftables".
	Node, Mode string
	// Options are the ones that can be configured; what kube-proxy finds out
	// about its node (RandomFully, TCPBeLiberal, NFAcct), it does.
	Options kubeproxy.Options
	// MinSync is the least time between two syncs; zero is upstream's default of
	// a second.
	MinSync time.Duration
}

// Proxy is a running kube-proxy.
type Proxy struct {
	cmd   *exec.Cmd
	ns    *netns.NS
	start time.Time
	syncs chan Sync
	log   *log
	ended chan struct{} // closed once the process was waited for
}

// Sync is one run through all services that kube-proxy has finished.
type Sync struct {
	// Took is what kube-proxy says of itself, the same figure that its metric
	// sync_proxy_rules_duration_seconds has.
	Took time.Duration
	// SinceStart is from the start of the process, CPU what it and the programs
	// that it ran had used by then, in steps of 10 ms.
	SinceStart, CPU time.Duration
	failed          bool
}

// metricsAddress is kube-proxy's own default.
const metricsAddress = "127.0.0.1:10249"

// Start starts kube-proxy against the API server in the same namespace. IPv6 is
// turned off in the namespace, so that it has one address family to serve.
func Start(c Config, a *API) (*Proxy, error) {
	if err := c.files(a.URL()); err != nil {
		return nil, fmt.Errorf("start kube-proxy: %w", err)
	}
	p := &Proxy{ns: c.NS, syncs: make(chan Sync, 64), ended: make(chan struct{})}
	p.log = &log{done: p.synced}
	p.cmd = exec.Command(c.Program, "--config="+filepath.Join(c.Dir, "config.yaml"), "-v=2")
	p.cmd.Env = append(os.Environ(), "PATH="+filepath.Join(c.Dir, "bin"), "XTABLES_LOCKFILE="+filepath.Join(c.Dir, "xtables.lock"))
	p.cmd.Stderr = p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := c.NS.Do(func() error {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // no IPv6 at all
			return err
		}
		p.start = time.Now()
		return p.cmd.Start()
	})
	if err != nil {
		return nil, fmt.Errorf("start kube-proxy in %s: %w", c.NS.Name(), err)
	}
	go func() {
		_ = p.cmd.Wait() // that it ended is all that matters
		close(p.ended)
	}()
	return p, nil
}

// iptablesPrograms are the ones that kube-proxy runs. They are the legacy
// programs where there are such, as for our own rules (datapath/linux): the
// comparison is of rules and loading, not of two kinds of iptables.
var iptablesPrograms = []string{"iptables", "iptables-save", "iptables-restore"}

// files writes kube-proxy's configuration, and the directory of programs that
// is all of its PATH.
func (c Config) files(url string) error {
	bin := filepath.Join(c.Dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, name := range iptablesPrograms {
		path, err := exec.LookPath(strings.Replace(name, "iptables", "iptables-legacy", 1))
		if err != nil {
			path, err = exec.LookPath(name)
		}
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	if nft, err := exec.LookPath("nft"); err == nil {
		if err := os.Symlink(nft, filepath.Join(bin, "nft")); err != nil {
			return err
		}
	}
	access := filepath.Join(c.Dir, "kubeconfig")
	return errors.Join(
		os.WriteFile(access, fmt.Appendf(nil, kubeconfig, url), 0o644),
		os.WriteFile(filepath.Join(c.Dir, "config.yaml"), []byte(c.yaml(access)), 0o644))
}

const kubeconfig = `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
contexts: [{name: c, context: {cluster: c}}]
current-context: c
`

// yaml is a KubeProxyConfiguration as kubeadm writes it, but that it leaves the
// machine's connection tracking alone.
func (c Config) yaml(access string) string {
	detect, cidr := "", ""
	if c.Options.ClusterCIDR.IsValid() {
		detect, cidr = "ClusterCIDR", c.Options.ClusterCIDR.String()
	}
	addresses := "[]" // upstream's defaults: all in iptables mode, the primary one in nftables mode
	if c.Options.NodePortsEverywhere {
		addresses = "[0.0.0.0/0]"
	}
	return fmt.Sprintf(`apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %q
hostnameOverride: %q
clientConnection: {kubeconfig: %q, contentType: %q}
detectLocalMode: %q
clusterCIDR: %q
iptables: {masqueradeAll: %[7]t, masqueradeBit: %[8]d, localhostNodePorts: %[9]t, minSyncPeriod: %[12]s}
nftables: {masqueradeAll: %[7]t, masqueradeBit: %[8]d, minSyncPeriod: %[12]s}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
metricsBindAddress: %[10]q
healthzBindAddress: "127.0.0.1:10256"
nodePortAddresses: %[11]s
`, c.Mode, c.Node, access, contentType, detect, cidr,
		c.Options.MasqueradeAll, c.Options.MasqueradeBit, c.Options.LocalhostNodePorts, metricsAddress, addresses, c.MinSync)
}

// Next waits for the next sync that kube-proxy finishes; one that failed is an
// error.
func (p *Proxy) Next(ctx context.Context) (Sync, error) {
	select {
	case s := <-p.syncs:
		if s.failed {
			return s, fmt.Errorf("kube-proxy could not write its rules: %s", p.log.tail())
		}
		return s, nil
	case <-p.ended:
		return Sync{}, fmt.Errorf("kube-proxy ended: %s", p.log.tail())
	case <-ctx.Done():
		return Sync{}, fmt.Errorf("wait for kube-proxy's rules: %w: %s", ctx.Err(), p.log.tail())
	}
}

// CPU is what kube-proxy and the programs that it ran have used so far.
func (p *Proxy) CPU() (time.Duration, error) { return cpuOf(p.cmd.Process.Pid) }

// Stop ends kube-proxy; its rules stay.
func (p *Proxy) Stop() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop kube-proxy: %w", err)
	}
	<-p.ended
	return nil
}

// synced takes in what the log says when a sync is done.
func (p *Proxy) synced(took time.Duration, failed bool) {
	s := Sync{Took: took, SinceStart: time.Since(p.start), failed: failed}
	s.CPU, _ = cpuOf(p.cmd.Process.Pid) // zero if it has ended meanwhile
	select {
	case p.syncs <- s:
	default: // nobody has waited for the last 64
	}
}
