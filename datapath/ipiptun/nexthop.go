package ipiptun

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/nl"
)

// maxNextHops bounds the cache; when it is full it starts afresh. A node talks
// to at most as many pods at a time.
const maxNextHops = 8192

// nextHops answers through which node a destination is reached, asking the
// kernel's FIB once per destination and forgetting all when any route changes.
type nextHops struct {
	rtnl    *nl.Handle
	tunnel  int      // ifindex
	changes *os.File // netlink socket that hears of IPv4 routes

	mu      sync.Mutex
	known   map[netip.Addr]netip.Addr // invalid value: no way
	version uint64                    // of the routing table
}

func openNextHops(ns *netns.NS, tunnel int) (*nextHops, error) {
	rtnl, err := nl.At(ns)
	if err != nil {
		return nil, err
	}
	var fd int
	err = ns.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		rtnl.Close()
		return nil, fmt.Errorf("open route notifications in %s: %w", ns.Name(), err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_LINK})
	if err != nil {
		rtnl.Close()
		return nil, errors.Join(fmt.Errorf("subscribe to routes of %s: %w", ns.Name(), err), unix.Close(fd))
	}
	return &nextHops{
		rtnl:    rtnl,
		tunnel:  tunnel,
		changes: os.NewFile(uintptr(fd), "rtnetlink"),
		known:   map[netip.Addr]netip.Addr{},
	}, nil
}

func (n *nextHops) close() error {
	n.rtnl.Close()
	return n.changes.Close()
}

// to returns the gateway of the route through the tunnel, false if there is none.
func (n *nextHops) to(dst netip.Addr) (netip.Addr, bool) {
	n.mu.Lock()
	gw, ok := n.known[dst]
	version := n.version
	n.mu.Unlock()
	if ok {
		return gw, gw.IsValid()
	}
	gw = n.ask(dst)
	n.mu.Lock()
	defer n.mu.Unlock()
	if version == n.version { // else the answer may be of yesterday
		if len(n.known) >= maxNextHops {
			clear(n.known)
		}
		n.known[dst] = gw
	}
	return gw, gw.IsValid()
}

func (n *nextHops) ask(dst netip.Addr) netip.Addr {
	routes, err := n.rtnl.RouteGetWithOptions(net.IP(dst.AsSlice()), &netlink.RouteGetOptions{OifIndex: n.tunnel})
	if err != nil || len(routes) == 0 || routes[0].LinkIndex != n.tunnel {
		return netip.Addr{}
	}
	gw, _ := netip.AddrFromSlice(routes[0].Gw.To4())
	return gw
}

// follow forgets what is known at each change of the routing table, until close.
func (n *nextHops) follow() error {
	buf := make([]byte, os.Getpagesize())
	for {
		_, err := n.changes.Read(buf)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		// ENOBUFS: more changed than the socket could hold, which is a change too.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("follow routes: %w", err)
		}
		n.mu.Lock()
		clear(n.known)
		n.version++
		n.mu.Unlock()
	}
}
