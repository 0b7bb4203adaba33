package lab

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
)

// linkPatience bounds the wait for the kernel's link watch, which runs urgent
// events at once and others within a second (linux net/core/link_watch.c).
const linkPatience = 3 * time.Second

// awaitLinks returns when every veth end in the machines really sends. Of a pair
// the end that was set up first has no queue until the kernel's link watch has
// run, some milliseconds later; what is sent before vanishes, and a vanished SYN
// costs its connection a second.
func (b *box) awaitLinks(ctx context.Context, machines []machine) error {
	ctx, cancel := context.WithTimeout(ctx, linkPatience)
	defer cancel()
	for _, m := range machines {
		p, err := b.machinePlace(NSOfMachine(b.lab, m.name))
		if err != nil {
			return err
		}
		var waiting string
		err = waitFor(ctx, time.Millisecond, func() (bool, error) {
			waiting, err = sleepingVeth(p.h)
			return waiting == "", err
		})
		if err != nil {
			return fmt.Errorf("wait for %s of %s to come up: %w", waiting, m.name, err)
		}
	}
	return nil
}

// sleepingVeth names a veth end that is set up, has a carrier and does not send
// yet; "" if there is none.
func sleepingVeth(h *nl.Handle) (string, error) {
	links, err := nl.Dump(h.LinkList)
	if err != nil {
		return "", err
	}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() == "veth" && a.Flags&net.FlagUp != 0 && a.OperState != netlink.OperUp {
			return a.Name, nil
		}
	}
	return "", nil
}
