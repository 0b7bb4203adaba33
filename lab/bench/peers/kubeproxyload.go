package peers

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/kubeproxy"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/run"
	"slipway/lab/bench/realproxy"
	"slipway/topology"
)

// changedAddress is no endpoint's before the change.
var changedAddress = netip.MustParseAddr("10.255.255.254")

// proxySnapshot is a node and services, as in a cluster of four nodes.
func proxySnapshot(mode topology.ProxyMode, n int) topology.Snapshot {
	s := topology.Snapshot{Lab: "peers", Services: make([]topology.Service, n)}
	s.Network.PodCIDR = netip.MustParsePrefix("10.128.0.0/9")
	s.Network.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/12")
	s.Proxy.Mode = mode
	s.Nodes = []topology.NodeState{{Node: topology.Node{Name: "node1", Address: netip.MustParseAddr("192.168.233.30")}}}
	at := func(base byte, i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, base, byte(i / 250), byte(i%250 + 1)})
	}
	for i := range s.Services {
		svc := topology.Service{Namespace: "default", Name: fmt.Sprintf("svc-%05d", i), Type: topology.ClusterIP, ClusterIP: at(96, i)}
		p := topology.ServicePort{Protocol: topology.TCPProtocol, Port: 80, TargetPort: "8080"}
		for j := range endpointsEach {
			e := i*endpointsEach + j
			p.Endpoints = append(p.Endpoints, topology.Endpoint{
				Address: at(128, e), Port: 8080, Node: fmt.Sprintf("node%d", e%4+1), Ready: true, Serving: true,
			})
		}
		svc.Ports = []topology.ServicePort{p}
		s.Services[i] = svc
	}
	return s
}

// emptyNode is a namespace with nothing but the node's address, and a directory.
func (c *proxyCell) emptyNode() (ns *netns.NS, dir string, closeAll func(), err error) {
	if dir, err = os.MkdirTemp("", "slipway-peers-"); err != nil {
		return nil, "", nil, err
	}
	if ns, err = netns.Anonymous(); err != nil {
		return nil, "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	closeAll = func() {
		_ = ns.Close() // the namespace ends with it
		_ = os.RemoveAll(dir)
	}
	if err = c.address(ns); err != nil {
		closeAll()
	}
	return ns, dir, closeAll, err
}

func (c *proxyCell) address(ns *netns.NS) error {
	h, err := nl.At(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err == nil {
		err = h.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: c.before.Nodes[0].Address.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	}
	if err != nil {
		return fmt.Errorf("address of the node: %w", err)
	}
	return nil
}

// ours loads everything and then the change.
func (c *proxyCell) ours(ctx context.Context) (figures, error) {
	ns, dir, closeAll, err := c.emptyNode()
	if err != nil {
		return nil, err
	}
	defer closeAll()
	host, err := linux.Open(ns, linux.Options{LockFile: filepath.Join(dir, "lock"), MemoFile: filepath.Join(dir, "memo")})
	if err != nil {
		return nil, err
	}
	defer host.Close()
	out := figures{}
	for _, step := range []struct {
		workload string
		snapshot *topology.Snapshot
		check    func(context.Context, *netns.NS) error
	}{{loadServices, &c.before, c.loaded}, {changeEndpoint, &c.after, c.changed}} {
		runtime.GC() // what the other variant's turn left is not this one's to clear
		begun, cpu := time.Now(), ownCPU()
		if err := c.apply(ctx, host, *step.snapshot); err != nil {
			return nil, err
		}
		out[[2]string{step.workload, syncTime}] = time.Since(begun).Seconds()
		out[[2]string{step.workload, syncCPU}] = (ownCPU() - cpu).Seconds()
		if err := step.check(ctx, ns); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *proxyCell) apply(ctx context.Context, host *linux.Host, s topology.Snapshot) error {
	rules, err := c.plan(s)
	if err != nil {
		return err
	}
	diff, err := host.Apply(ctx, datapath.NodeConfig{Node: s.Nodes[0].Name, PodRange: s.Network.PodCIDR, RuleSets: []datapath.RuleSet{rules}})
	if err == nil && len(diff) == 0 {
		err = errors.New("nothing was changed")
	}
	return err
}

func (c *proxyCell) plan(s topology.Snapshot) (datapath.RuleSet, error) {
	return kubeproxy.Plan(s, s.Nodes[0].Name, c.options(s))
}

// theirs lets kube-proxy load everything and then the change.
func (c *proxyCell) theirs(ctx context.Context, program string) (_ figures, err error) {
	ns, dir, closeAll, err := c.emptyNode()
	if err != nil {
		return nil, err
	}
	defer closeAll()
	api, err := realproxy.Serve(ns, realproxy.Objects(c.before))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	p, err := realproxy.Start(realproxy.Config{
		Program: program, NS: ns, Dir: dir, Node: c.before.Nodes[0].Name, Mode: string(c.mode), Options: c.options(c.before),
	}, api)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Stop()) }()
	ctx, cancel := context.WithTimeout(ctx, syncPatience)
	defer cancel()
	first, err := p.Next(ctx)
	if err != nil {
		return nil, err
	}
	last, err := quiet(ctx, p, first)
	if err == nil {
		err = c.loaded(ctx, ns)
	}
	if err != nil {
		return nil, err
	}
	if err := api.Put(realproxy.Slices(&c.after.Services[c.count/2])[0]); err != nil {
		return nil, err
	}
	change, err := p.Next(ctx)
	if err != nil {
		return nil, err
	}
	return figures{
		{loadServices, syncTime}: first.Took.Seconds(), {loadServices, sinceRun}: first.SinceStart.Seconds(), {loadServices, syncCPU}: first.CPU.Seconds(),
		{changeEndpoint, syncTime}: change.Took.Seconds(), {changeEndpoint, syncCPU}: (change.CPU - last).Seconds(),
	}, c.changed(ctx, ns)
}

const (
	// syncPatience bounds one kube-proxy's life.
	syncPatience = 3 * time.Minute
	// quietTime is longer than kube-proxy waits between two syncs (minSyncPeriod,
	// one second by default).
	quietTime = 1500 * time.Millisecond
)

// quiet waits until kube-proxy has nothing more to do, and returns the CPU time
// that it has used by then.
func quiet(ctx context.Context, p *realproxy.Proxy, last realproxy.Sync) (time.Duration, error) {
	for {
		wait, cancel := context.WithTimeout(ctx, quietTime)
		s, err := p.Next(wait)
		cancel()
		switch {
		case err == nil:
			last = s
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			return p.CPU()
		default:
			return last.CPU, err
		}
	}
}

// loaded reports whether the namespace has as many rules as were planned.
func (c *proxyCell) loaded(ctx context.Context, ns *netns.NS) error {
	text, err := c.listing(ctx, ns)
	if err != nil {
		return err
	}
	for i, s := range c.before.Services {
		for _, e := range s.Ports[0].Endpoints {
			if i%(c.count/10) == 0 && !strings.Contains(text, e.Address.String()) {
				return fmt.Errorf("the kernel does not have endpoint %s", e.Address)
			}
		}
	}
	if c.mode == topology.ProxyNFTables {
		return nil
	}
	rules, err := c.plan(c.before)
	if err != nil {
		return err
	}
	want := 0
	for _, t := range rules.Tables {
		want += len(t.Rules) + len(t.Jumps)
	}
	if have := strings.Count(text, "\n-A "); have != want {
		return fmt.Errorf("the kernel has %d rules, %d were planned", have, want)
	}
	return nil
}

// changed reports whether the namespace has the change. What it replaces may be
// there yet: in a large cluster kube-proxy sweeps only now and then.
func (c *proxyCell) changed(ctx context.Context, ns *netns.NS) error {
	text, err := c.listing(ctx, ns)
	if err == nil && !strings.Contains(text, changedAddress.String()) {
		err = errors.New("the kernel does not have the change")
	}
	return err
}

func (c *proxyCell) listing(ctx context.Context, ns *netns.NS) (string, error) {
	cmd := run.Cmd{NS: ns, Name: "iptables-legacy-save"}
	if c.mode == topology.ProxyNFTables {
		cmd.Name, cmd.Args = "nft", []string{"list", "ruleset"}
	}
	out, err := cmd.Output(ctx)
	return string(out), err
}

// ownCPU is what this process and the programs that it has run have used.
func ownCPU() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err == nil { // it has no way to fail
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
