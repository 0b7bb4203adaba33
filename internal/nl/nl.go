// Package nl opens netlink handles inside network namespaces. A handle's
// sockets belong to the namespace they were opened in, so one handle per
// namespace, opened once, serves from any thread.
package nl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
)

// Handle is a netlink handle bound to one namespace.
type Handle struct {
	*netlink.Handle
	ns string
}

// At opens a handle (NETLINK_ROUTE) inside ns. Close it with [Handle.Close].
func At(ns *netns.NS) (*Handle, error) {
	h := &Handle{ns: ns.Name()}
	err := ns.Do(func() error {
		var err error
		h.Handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return h, nil
}

// NSName is the name of the namespace that the handle works in.
func (h *Handle) NSName() string { return h.ns }

// maxDumpTries bounds the repeats of a dump that the kernel says was
// interrupted by a change (NLM_F_DUMP_INTR).
const maxDumpTries = 5

// Dump runs a listing again while the kernel reports that it changed underway.
func Dump[T any](list func() (T, error)) (T, error) {
	var out T
	var err error
	for range maxDumpTries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

// Missing reports whether err says that the object is not there.
func Missing(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, unix.ESRCH) ||
		errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EADDRNOTAVAIL)
}
