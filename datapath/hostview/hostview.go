// Package hostview reads everything on one machine that decides a packet's way:
// its own network namespace and those of all that runs on it, and which devices
// lead from one into another. It is what an agent on a real host sends to who
// traces or captures from afar.
package hostview

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Host is one machine as its kernel describes it.
type Host struct {
	Hostname string `json:"hostname"`
	// Clock is the machine's when it began to look.
	Clock time.Time `json:"clock"`
	// Root is the namespace that the agent runs in: the machine's own.
	Root   uint64            `json:"root"`
	Spaces map[uint64]*Space `json:"spaces"` // by inode
}

// Space is a network namespace.
type Space struct {
	State *datapath.NetState `json:"state,omitempty"`
	// Peers are the other ends of its devices, as far as they are on this machine.
	Peers map[string]End `json:"peers,omitempty"`
	Error string         `json:"error,omitempty"` // why there is no state
}

// End is a device of a namespace.
type End struct {
	Space  uint64 `json:"space"`
	Device string `json:"device"`
}

// Open opens the namespaces that are on this machine, by inode, and says which is
// the caller's. They are to be closed.
func Open() (spaces map[uint64]*netns.NS, root uint64, err error) {
	spaces = map[uint64]*netns.NS{}
	own, err := netns.Current()
	if err != nil {
		return nil, 0, err
	}
	if root, err = own.Inode(); err != nil {
		return nil, 0, errors.Join(err, own.Close())
	}
	spaces[root] = own
	var paths []string
	for _, pattern := range []string{"/proc/[0-9]*/ns/net", netns.Dir + "/*", "/var/run/docker/netns/*"} {
		found, _ := filepath.Glob(pattern) // the patterns are well-formed
		paths = append(paths, found...)
	}
	for _, p := range paths {
		if inode, known := inodeOf(p); known && spaces[inode] != nil {
			continue
		}
		ns, err := netns.OpenPath(p)
		if err != nil {
			continue // it has just ended, or is none
		}
		inode, err := ns.Inode()
		if err != nil || spaces[inode] != nil {
			_ = ns.Close() // read-only descriptor
			continue
		}
		spaces[inode] = ns
	}
	return spaces, root, nil
}

// inodeOf reads it from a link of /proc without opening it: most processes are in
// a namespace that is known.
func inodeOf(path string) (uint64, bool) {
	to, err := os.Readlink(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(to, "net:["), "]"), 10, 64)
	return n, err == nil
}

// Close closes namespaces.
func Close(spaces map[uint64]*netns.NS) {
	for _, ns := range spaces {
		_ = ns.Close() // read-only descriptor
	}
}

// Collect looks at the machine. A namespace that cannot be read says so itself;
// those without any device but loopback are left out, but for the machine's own.
func Collect(ctx context.Context) (*Host, error) {
	h := &Host{Clock: time.Now(), Spaces: map[uint64]*Space{}}
	h.Hostname, _ = os.Hostname() //nolint:errcheck // an empty name is shown
	spaces, root, err := Open()
	if err != nil {
		return nil, err
	}
	defer Close(spaces)
	h.Root = root
	for inode, ns := range spaces {
		s := &Space{}
		s.State, err = collect(ctx, ns)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			s.Error = err.Error()
		case inode != root && len(s.State.Devices) < 2:
			continue
		}
		h.Spaces[inode] = s
	}
	for inode, s := range h.Spaces {
		if s.State == nil {
			continue
		}
		if err := h.follow(inode, s, spaces); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func collect(ctx context.Context, ns *netns.NS) (*datapath.NetState, error) {
	h, err := linux.Open(ns, linux.Options{})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return h.Collect(ctx, linux.CollectOptions{})
}

// follow finds the other ends of a namespace's devices.
func (h *Host) follow(inode uint64, s *Space, spaces map[uint64]*netns.NS) error {
	here, err := nl.At(spaces[inode])
	if err != nil {
		return err
	}
	defer here.Close()
	numbers := map[int]uint64{} // inodes by the numbers that they have here
	for i := range h.Spaces {
		id, err := here.GetNetNsIdByFd(spaces[i].Fd())
		if err != nil {
			return fmt.Errorf("number of a namespace: %w", err)
		}
		numbers[id] = i
	}
	s.Peers = map[string]End{}
	for i := range s.State.Devices {
		d := &s.State.Devices[i]
		there := inode
		if d.PeerIndex == 0 {
			continue
		}
		if d.PeerNSID >= 0 {
			var ok bool
			if there, ok = numbers[d.PeerNSID]; !ok {
				continue // it leads out of what is seen from here
			}
		}
		far := h.Spaces[there]
		if far == nil || far.State == nil {
			continue
		}
		if peer := far.State.DeviceByIndex(d.PeerIndex); peer != nil {
			s.Peers[d.Name] = End{there, peer.Name}
		}
	}
	return nil
}
