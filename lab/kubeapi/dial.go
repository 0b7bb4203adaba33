package kubeapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"slipway/internal/netns"
	"slipway/lab"
	"slipway/topology"
)

// apiPort is the API servers' (https://kubernetes.io/docs/reference/networking/ports-and-protocols/).
const apiPort = 6443

// patience is how long one API server may take to accept a connection before
// the next is tried: far longer than any wire of a lab, and short for who waits.
const patience = time.Second

// way is an address of the API with the machine from which it is dialled.
type way struct {
	from string
	to   netip.AddrPort
}

// waysOf lists the ways to a lab's API, the best first: the floating address of
// an external load balancer, from the machine outside the cluster, then each
// master's own, from the master itself, which needs nothing of the underlay.
// (A node-local balancer has no address that is one from outside the nodes.)
func waysOf(st *lab.State) ([]way, error) {
	if st.Snapshot == nil || st.Cluster == nil {
		return nil, fmt.Errorf("lab %s is only partly up", st.Lab)
	}
	var out []way
	if vip := st.Cluster.Spec.ControlPlane.LoadBalancer.VIP; vip.IsValid() {
		out = append(out, way{lab.ExternalName, netip.AddrPortFrom(vip, apiPort)})
	}
	masters := 0
	for _, n := range st.Snapshot.Nodes {
		if n.HasRole(topology.RoleControlPlane) {
			out = append(out, way{n.Name, netip.AddrPortFrom(n.Interface.Prefix.Addr(), apiPort)})
			masters++
		}
	}
	if masters == 0 {
		return nil, fmt.Errorf("lab %s has no node with the role %s", st.Lab, topology.RoleControlPlane)
	}
	return out, nil
}

// dialer connects to a lab's API servers, first to the one that answered last.
type dialer struct {
	lab      string
	closeAll func()

	mu   sync.Mutex
	last way
	left bool // the last one is to be tried last
}

// Dial connects to a lab's API, whichever of its servers answers.
func Dial(ctx context.Context, labName string) (net.Conn, error) {
	d := dialer{lab: labName}
	return d.dial(ctx, "tcp", "")
}

// leave ends all connections and begins with another server.
func (d *dialer) leave() {
	d.mu.Lock()
	d.left = true
	d.mu.Unlock()
	d.closeAll()
}

// dial tries all servers; which one is asked for is no matter.
func (d *dialer) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	st, err := lab.ReadState(d.lab) // masters come and go
	if err != nil {
		return nil, err
	}
	ways, err := waysOf(st)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, w := range d.order(ways) {
		c, err := w.dial(ctx, d.lab)
		if err == nil {
			d.mu.Lock()
			d.last, d.left = w, false
			d.mu.Unlock()
			return c, nil
		}
		if errs = append(errs, err); ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// order begins with the way that worked last, or if that was left, with the one
// after it.
func (d *dialer) order(ways []way) []way {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(ways, d.last)
	if i < 0 {
		return ways
	}
	if d.left {
		i++
	}
	return append(slices.Clone(ways[i:]), ways[:i]...)
}

func (w way) dial(ctx context.Context, labName string) (c net.Conn, err error) {
	ns, err := netns.Open(lab.NSOfMachine(labName, w.from))
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // the connection stays in the namespace
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = ns.Do(func() error {
		var nd net.Dialer
		c, err = nd.DialContext(ctx, "tcp", w.to.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", w.from, err)
	}
	return c, nil
}
