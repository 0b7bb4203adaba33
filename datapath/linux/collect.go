package linux

import (
	"context"
	"errors"
	"fmt"

	"slipway/datapath"
)

// CollectOptions say how much of a namespace is to be collected.
type CollectOptions struct {
	SkipRules   bool // iptables and nftables
	SkipSockets bool
	// Counters asks for the rules' packet counters, which takes the running of
	// iptables-save.
	Counters bool
	// RuleCache, if set, is a file that keeps the rules as they were last saved,
	// without counters. They are taken from it while the kernel's tables are
	// byte for byte the same, which spares the running of iptables-save.
	RuleCache string
	// SkipConntrack leaves out how full the connection table is as well.
	SkipConntrack bool
	// Conntrack are the connections that are wanted, in either direction.
	Conntrack []ConntrackQuery
}

// Collect reads everything in the host's namespace that decides a packet's way.
// It does not fill in UDPTunnel and IPIP, which the kernel does not know of.
func (h *Host) Collect(ctx context.Context, o CollectOptions) (*datapath.NetState, error) {
	c := &collection{st: &datapath.NetState{Namespace: h.ns.Name()}, names: map[int]string{}}
	if err := h.collect(ctx, c, o); err != nil {
		return nil, fmt.Errorf("collect %s: %w", h.ns.Name(), err)
	}
	return c.st, nil
}

func (h *Host) collect(ctx context.Context, c *collection, o CollectOptions) error {
	var err error
	if c.st.Inode, err = h.ns.Inode(); err != nil {
		return err
	}
	parts := []func() error{
		c.links, c.addresses, c.programs, c.policy, c.routes, c.neighbors, c.fdb, c.sysctls,
	}
	if !o.SkipSockets {
		parts = append(parts, c.sockets)
	}
	// All sockets that the parts open are opened by one thread inside.
	err = h.ns.Do(func() error {
		for _, part := range parts {
			if err := errors.Join(ctx.Err(), part()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !o.SkipRules {
		if err := h.collectRules(ctx, c.st, o); err != nil {
			return err
		}
	}
	if o.SkipConntrack {
		return nil
	}
	return h.ns.Do(func() error { return c.conntrack(o) })
}

// collection is a state while it is being read.
type collection struct {
	st    *datapath.NetState
	names map[int]string // of devices, by index
}

// device names a device; one that came after the list was made by its number.
func (c *collection) device(index int) string {
	if name, ok := c.names[index]; ok || index == 0 {
		return name
	}
	return fmt.Sprintf("if%d", index)
}
