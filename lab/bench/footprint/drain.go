package footprint

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
)

// drainPatience bounds the wait for the kernel to tear down what was let go of.
const drainPatience = 30 * time.Second

// Drain waits until the kernel has torn down the namespaces that were let go of
// before. It does so on a thread of its own, in the order in which they were let
// go of and in batches (linux net/core/net_namespace.c, cleanup_net): one more
// namespace is let go of, and gone are those of batches before its own when its
// device is; the second time those of the first one's batch are gone, too. If it
// takes very long it returns nevertheless.
func Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drainPatience)
	defer cancel()
	for range 2 {
		if err := letGo(ctx); err != nil {
			return fmt.Errorf("wait for namespaces to be torn down: %w", err)
		}
	}
	return nil
}

// letGo makes a namespace with one end of a veth pair, lets go of it and waits
// until the other end is gone.
func letGo(ctx context.Context) error {
	stays, err := netns.Anonymous()
	if err != nil {
		return err
	}
	defer stays.Close() //nolint:errcheck // the namespace ends with it
	goes, err := netns.Anonymous()
	if err != nil {
		return err
	}
	h, err := nl.At(stays)
	if err != nil {
		return err
	}
	defer h.Close()
	err = h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there", PeerNamespace: netlink.NsFd(goes.Fd())})
	if e := goes.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return poll(ctx, drainPatience, time.Millisecond, func() (bool, error) {
		switch _, err := h.LinkByName("here"); {
		case nl.Missing(err):
			return true, nil
		default:
			return false, err
		}
	})
}
