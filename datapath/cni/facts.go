package cni

import (
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// factsAge is for how long what was read of a whole node is taken as true. It
// spares a run over many pods from reading it for each of them again.
const factsAge = time.Second

// facts are read of a node as a whole.
type facts struct {
	delaysAt time.Time
	delays   map[int]uint64 // proxy_delay in milliseconds by link index

	gatewayAt time.Time
	gateway   string
	outBy     int // index of the device that gateway is routed out of; 0: none
}

func (n *Node) forgetFacts() {
	n.mu.Lock()
	n.facts = facts{}
	n.mu.Unlock()
}

// proxyDelay returns a device's proxy_delay in milliseconds.
func (n *Node) proxyDelay(index int) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &n.facts
	if _, ok := f.delays[index]; !ok || time.Since(f.delaysAt) > factsAge {
		delays, err := n.rt.proxyDelays()
		if err != nil {
			return 0, fmt.Errorf("read proxy_delay: %w", err)
		}
		f.delays, f.delaysAt = delays, time.Now()
	}
	return f.delays[index], nil
}

// setProxyDelay sets it.
func (n *Node) setProxyDelay(index int, milliseconds uint64) error {
	n.mu.Lock()
	delete(n.facts.delays, index)
	n.mu.Unlock()
	return n.rt.setProxyDelay(index, milliseconds)
}

// covers reports nil if the node routes addr, by a device other than but, so
// that it answers ARP for addr there by proxy.
func (n *Node) covers(addr net.IP, but int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := &n.facts
	if f.outBy == 0 || f.gateway != addr.String() || time.Since(f.gatewayAt) > factsAge {
		out, err := n.routedBy(addr)
		if err != nil {
			return err
		}
		f.gateway, f.outBy, f.gatewayAt = addr.String(), out, time.Now()
	}
	if f.outBy == 0 || f.outBy == but {
		return fmt.Errorf("%w: %s (add one such as \"%s dev eth0 scope link\")", ErrGatewayUncovered, addr, addr)
	}
	return nil
}

// routedBy returns the index of the device that addr is routed out of, 0 if it
// is not, or not as another machine's address.
func (n *Node) routedBy(addr net.IP) (int, error) {
	got, err := n.h.RouteGet(addr)
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look up the route to %s: %w", addr, err)
	}
	if len(got) == 0 || got[0].Type != unix.RTN_UNICAST {
		return 0, nil
	}
	return got[0].LinkIndex, nil
}
