package peers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/internal/nl"
	"slipway/lab"
)

// learnt counts the routes that a speaker has put into a kernel: bird and ours
// mark them alike.
func learnt(h *nl.Handle) (int, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: netlink.RouteProtocol(datapath.ProtoBird), Type: unix.RTN_UNICAST}
	routes, err := nl.Dump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE)
	})
	if err != nil {
		return 0, fmt.Errorf("list learnt routes: %w", err)
	}
	return len(routes), nil
}

// inOrder are the nodes' numbers, the last first: the lower of two connects.
func (g *ground) inOrder() []int {
	out := make([]int, len(g.nodes))
	for i := range out {
		out[i] = len(out) - 1 - i
	}
	return out
}

// birdProcesses are birds.
type birdProcesses []*Process

func (b birdProcesses) pids() []int {
	var out []int
	for _, p := range b {
		out = append(out, p.PID())
	}
	return out
}

func (b birdProcesses) stop(context.Context) error {
	errs := make([]error, len(b))
	var all sync.WaitGroup
	for i, p := range b {
		all.Go(func() { errs[i] = p.Stop() })
	}
	all.Wait()
	return errors.Join(errs...)
}

// birds starts bird on every node.
func (g *ground) birds(ctx context.Context) (speakers, error) {
	if err := os.MkdirAll(g.Dir(), 0o700); err != nil {
		return nil, fmt.Errorf("configure bird: %w", err)
	}
	var out birdProcesses
	for _, i := range g.inOrder() {
		n := g.nodes[i]
		file := func(kind string) string { return filepath.Join(g.Dir(), "bird-"+n.name+"."+kind) }
		err := os.WriteFile(file("conf"), []byte(g.birdConf(i)), 0o600)
		var p *Process
		if err == nil {
			p, err = g.Start(n.name, "bird-"+n.name+".log", "bird", "-f", "-c", file("conf"), "-s", file("ctl"), "-P", file("pid"))
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start bird on %s: %w", n.name, err), out.stop(ctx))
		}
		out = append(out, p)
	}
	return out, nil
}

// birdConf is what calico/node configures (confd/etc/calico/confd/templates,
// bird.cfg.template and bird_ipam.cfg.template), with shorter timers.
func (g *ground) birdConf(i int) string {
	n := g.nodes[i]
	var b strings.Builder
	fmt.Fprintf(&b, `router id %s;
protocol device { scan time 2; }
protocol direct { interface "eth*"; ipv4; }
protocol kernel { scan time 2; ipv4 { import none; export where source = RTS_BGP; }; }
protocol static { ipv4; route %s blackhole; }
template bgp speaker {
	local %s as %d;
	connect delay time 1;
	connect retry time 1;
	error wait time 1, 2;
	graceful restart;
	ipv4 { import all; export where source ~ [ RTS_STATIC, RTS_BGP ]; };
}
`, n.addr, n.block, n.addr, speakerASN)
	for _, j := range g.peers(i) {
		fmt.Fprintf(&b, "protocol bgp node%d from speaker { neighbor %s as %d;", j, g.nodes[j].addr, speakerASN)
		if j < i {
			b.WriteString(" passive on;")
		}
		if g.client(i, j) {
			fmt.Fprintf(&b, " rr client; rr cluster id %s;", n.addr)
		}
		b.WriteString(" }\n")
	}
	return b.String()
}

// ourProcesses are our speakers.
type ourProcesses []*bgp.Process

func (o ourProcesses) pids() []int {
	var out []int
	for _, p := range o {
		out = append(out, p.Pid())
	}
	return out
}

func (o ourProcesses) stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downPatience)
	defer cancel()
	errs := make([]error, len(o))
	var all sync.WaitGroup
	for i, p := range o {
		all.Go(func() {
			// One that did not end as it should has ended; whether its routes
			// have gone is looked at before the next round.
			if err := p.Stop(ctx); !errors.Is(err, bgp.ErrEnded) {
				errs[i] = err
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// startAtOnce is how many speakers are started together, as the daemon does.
const startAtOnce = 8

// ours starts one of our speakers on every node.
func (g *ground) ours(ctx context.Context, exe string) (speakers, error) {
	env := append(slices.Clone(os.Environ()), lab.Mark(g.State))
	out, errs := make(ourProcesses, len(g.nodes)), make([]error, len(g.nodes))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(startAtOnce, len(g.nodes)) {
		workers.Go(func() {
			for i := range next {
				p, err := bgp.Start(context.WithoutCancel(ctx), g.nodes[i].ns, []string{exe, lab.SpeakerCommand}, env, slog.New(slog.DiscardHandler))
				if err == nil {
					out[i], err = p, p.Configure(g.speaker(i))
				}
				errs[i] = err
			}
		})
	}
	for _, i := range g.inOrder() {
		next <- i
	}
	close(next)
	workers.Wait()
	if err := errors.Join(errs...); err != nil {
		started := slices.DeleteFunc(out, func(p *bgp.Process) bool { return p == nil })
		return nil, errors.Join(err, started.stop(ctx))
	}
	return out, nil
}

func (g *ground) speaker(i int) datapath.Speaker {
	n := g.nodes[i]
	s := datapath.Speaker{
		ASN: speakerASN, RouterID: n.addr, Listen: n.addr, Announce: []netip.Prefix{n.block},
		Accept: g.State.Snapshot.Network.PodCIDR,
	}
	if i < g.reflectors {
		s.ClusterID = n.addr
	}
	for _, j := range g.peers(i) {
		s.Peers = append(s.Peers, datapath.Peer{
			Name: g.nodes[j].name, Address: g.nodes[j].addr, ASN: speakerASN,
			Passive: j < i, ReflectorClient: g.client(i, j),
		})
	}
	return s
}
