package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/ordered"
	"slipway/lab/clusterdns"
	"slipway/lab/echo"
	"slipway/topology"
)

// setServers opens the declared ports of every echo pod inside its namespace.
func (s *server) setServers(ctx context.Context, d Desired) (datapath.Diff, error) {
	var targets []echo.Target
	for _, p := range d.Pods {
		if p.Kind == topology.PodEcho && len(p.Ports) > 0 {
			targets = append(targets, echo.Target{Pod: p.Pod, Inode: p.Inode, NS: opener(p.NetNS)})
		}
	}
	added, removed, err := s.echo.Set(ctx, targets)
	var diff datapath.Diff
	if added+removed > 0 {
		diff = datapath.Diff{{Node: "slipwayd", Action: datapath.Update, Object: "servers", Command: fmt.Sprintf("slipwayd: echo servers +%d -%d", added, removed)}}
	}
	return diff, err
}

func opener(name string) func() (*netns.NS, error) {
	return func() (*netns.NS, error) { return netns.Open(name) }
}

// dnsServer is the cluster DNS inside one DNS pod.
type dnsServer struct {
	inode uint64
	addr  netip.AddrPort
	close func()
}

// dnsPort is where DNS listens (RFC 1035 §4.2).
const dnsPort = 53

// setDNS serves the zone inside every DNS pod.
func (s *server) setDNS(_ context.Context, d Desired) (datapath.Diff, error) {
	want := map[string]Pod{}
	for _, p := range d.Pods {
		if p.Kind == topology.PodDNS {
			want[p.Key()] = p
		}
	}
	var diff datapath.Diff
	for _, key := range ordered.Keys(s.dns) {
		have, p := s.dns[key], want[key]
		if have.inode == p.Inode && have.addr.Addr() == p.Address {
			delete(want, key)
			continue
		}
		have.close()
		delete(s.dns, key)
		diff = append(diff, datapath.Change{Node: "slipwayd", Action: datapath.Remove, Object: "dns", Command: "slipwayd: cluster DNS in " + key})
	}
	var errs []error
	for _, key := range ordered.Keys(want) {
		if err := s.startDNS(want[key]); err != nil {
			errs = append(errs, fmt.Errorf("cluster DNS in %s: %w", key, err))
			continue
		}
		diff = append(diff, datapath.Change{Node: "slipwayd", Action: datapath.Add, Object: "dns", Command: "slipwayd: cluster DNS in " + key})
	}
	return diff, errors.Join(errs...)
}

func (s *server) startDNS(p Pod) error {
	ns, err := netns.Open(p.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // the sockets stay in the namespace
	addr := netip.AddrPortFrom(p.Address, dnsPort)
	var l *clusterdns.Listener
	if l, err = s.zone.Serve(ns, addr); err != nil {
		return err
	}
	s.dns[p.Key()] = &dnsServer{inode: p.Inode, addr: addr, close: l.Close}
	return nil
}
