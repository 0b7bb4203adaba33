package agent

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath/linux"
)

// watch wakes the agent when the kernel tells of a change to what is the
// agent's, so that what somebody deletes comes back at once. What it does not
// see, such as rules, is found at the next resync.
func (a *agent) watch(ctx context.Context) error {
	for {
		err := a.listen(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.log.Warn("watch the kernel: again", "err", err)
		a.wake() // changes may have been missed
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(firstRest):
		}
	}
}

// listen hears netlink's notifications until something fails.
func (a *agent) listen(ctx context.Context) error {
	var sock *nl.NetlinkSocket
	err := a.ns.Do(func() (err error) {
		sock, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_NEIGH)
		return err
	})
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	stop := context.AfterFunc(ctx, sock.Close)
	defer func() {
		if stop() {
			sock.Close()
		}
	}()
	names := map[int32]string{} // of links, as they were told
	for {
		msgs, _, err := sock.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("receive: %w", err)
		}
		relevant := err != nil // messages were lost
		for _, m := range msgs {
			relevant = a.concerns(m, names) || relevant
		}
		if relevant {
			a.wake()
		}
	}
}

// concerns reports whether a notification is of something that the agent made,
// or of the node's addresses.
func (a *agent) concerns(m syscall.NetlinkMessage, names map[int32]string) bool {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return true
		}
		l, err := netlink.LinkDeserialize(&unix.NlMsghdr{Type: m.Header.Type}, m.Data)
		if err != nil {
			return true
		}
		names[int32(l.Attrs().Index)] = l.Attrs().Name
		return linux.OwnsLink(l.Attrs().Name)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return true
	case unix.RTM_DELROUTE:
		if len(m.Data) < unix.SizeofRtMsg {
			return true
		}
		// Pods come and go with host routes of their own.
		r := nl.DeserializeRtMsg(m.Data)
		return r.Table == unix.RT_TABLE_MAIN && r.Protocol != unix.RTPROT_KERNEL && r.Dst_len < 32
	case unix.RTM_DELNEIGH:
		if len(m.Data) < unix.SizeofNdMsg {
			return true
		}
		index := int32(nl.NativeEndian().Uint32(m.Data[4:])) // struct ndmsg, ndm_ifindex
		name, known := names[index]
		return !known || linux.OwnsLink(name)
	default:
		return false
	}
}
