package bgp

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// watchKernel signals changed whenever links, addresses or routes that others
// own change in the current namespace, or the speaker's own routes are removed:
// any of them can change the way to a next hop. One signal may stand for many
// changes. It ends with ctx.
func watchKernel(ctx context.Context, changed chan<- struct{}) error {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		return fmt.Errorf("subscribe to route changes: %w", err)
	}
	context.AfterFunc(ctx, sock.Close)
	go func() {
		for ctx.Err() == nil {
			msgs, _, err := sock.Receive()
			relevant := err != nil // ENOBUFS: changes were lost, so look again
			for _, m := range msgs {
				relevant = relevant || !ownAddition(m.Header.Type, m.Data)
			}
			if !relevant {
				continue
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return nil
}

func ownAddition(kind uint16, data []byte) bool {
	return kind == unix.RTM_NEWROUTE && len(data) >= unix.SizeofRtMsg &&
		nl.DeserializeRtMsg(data).Protocol == uint8(datapath.ProtoBird)
}
