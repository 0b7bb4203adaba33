package nl

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

// carrierPoll is how often AwaitCarrier looks.
const carrierPoll = time.Millisecond

// AwaitCarrier returns when a device that has just got its carrier also sends:
// after a process attached to a TUN or TAP, the kernel drops what is sent until
// its link watch has run, which may be a second later (linux
// net/core/link_watch.c; from 6.7 on, asking for the link runs it at once). A
// device that is not up is left to its being set up.
func (h *Handle) AwaitCarrier(ctx context.Context, name string) error {
	for {
		l, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("await carrier of %s in %s: %w", name, h.ns, err)
		}
		a := l.Attrs()
		if a.Flags&net.FlagUp == 0 || a.OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("await carrier of %s in %s, which is %s: %w", name, h.ns, a.OperState, ctx.Err())
		case <-time.After(carrierPoll):
		}
	}
}
