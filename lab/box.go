package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/lab/journal"
)

// box is the machine as one command works on it: the lab's lock and journal,
// and the namespaces it has open. Everything is closed with it.
type box struct {
	lab, id string
	lock    *lockFile
	journal *journal.Journal

	mu   sync.Mutex
	open map[string]*place
}

// place is an open namespace with its netlink handle.
type place struct {
	ns *netns.NS
	h  *nl.Handle
}

func (p *place) close() {
	p.h.Close()
	_ = p.ns.Close()
}

// openBox takes the lab's lock and opens its journal. fresh says that the lab
// did not exist before.
func openBox(ctx context.Context, lab string) (b *box, fresh bool, err error) {
	if os.Geteuid() != 0 {
		return nil, false, &PrivilegeError{}
	}
	if err := claimDir(lab); err != nil {
		return nil, false, err
	}
	l, err := lock(ctx, filesOf(lab).lock())
	if err != nil {
		return nil, false, fmt.Errorf("lab %s: %w", lab, err)
	}
	id, fresh, err := identity(lab)
	if err != nil {
		return nil, false, errors.Join(err, l.release())
	}
	j, err := journal.Open(filesOf(lab).journal())
	if err != nil {
		return nil, false, errors.Join(err, l.release())
	}
	return &box{lab: lab, id: id, lock: l, journal: j, open: map[string]*place{}}, fresh, nil
}

// maxSocketPath is how many bytes the path of a UNIX socket may have (unix(7):
// sun_path, less its final zero).
const maxSocketPath = 107

// PathError says that the daemon's socket, or a node's, cannot have its path.
type PathError struct{ Path string }

// Error says what to do.
func (e *PathError) Error() string {
	return fmt.Sprintf("the socket %s would have a path of %d bytes, and %d is the limit: choose a shorter lab name or %s", e.Path, len(e.Path), maxSocketPath, StateDirEnv)
}

// claimDir refuses a name that is no lab's, or whose directory is somebody else's.
func claimDir(lab string) error {
	if err := CheckName(lab); err != nil {
		return err
	}
	if s := SocketPath(lab); len(s) > maxSocketPath {
		return &PathError{Path: s}
	}
	dir := filesOf(lab).dir
	ours, err := isLabDir(dir) // looked at once: other commands make and remove it meanwhile
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("lab %s: %w", lab, err)
	case !ours:
		return fmt.Errorf("lab %s: directory %s exists and is not a lab's: it is left alone (choose another name, or another %s)", lab, dir, StateDirEnv)
	}
	return nil
}

// openExisting opens the box of a lab that must still be there once the lock is
// ours: a `down` may have come first.
func openExisting(ctx context.Context, lab string) (*box, error) {
	b, fresh, err := openBox(ctx, lab)
	if err == nil && fresh {
		err = errors.Join(fmt.Errorf("lab %q: %w", lab, ErrNoLab), b.undoNew(ctx), b.close())
		return nil, err
	}
	return b, err
}

func (b *box) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.open {
		p.close()
	}
	b.open = nil
	return errors.Join(b.journal.Close(), b.lock.release())
}

// PrivilegeError says that the command needs root.
type PrivilegeError struct{}

// Error names what is missing and what to do.
func (*PrivilegeError) Error() string {
	return "this needs root: network namespaces are made with CAP_SYS_ADMIN and CAP_NET_ADMIN (run it with sudo)"
}

// machinePlace opens a machine's or the fabric's namespace and keeps it open;
// it must exist.
func (b *box) machinePlace(name string) (*place, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.open[name]; p != nil {
		return p, nil
	}
	p, err := openPlace(name)
	if err != nil {
		return nil, err
	}
	b.open[name] = p
	return p, nil
}

func openPlace(name string) (*place, error) {
	ns, err := netns.Open(name)
	if err != nil {
		return nil, err
	}
	h, err := nl.At(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	return &place{ns: ns, h: h}, nil
}

// forget closes a namespace that is about to go.
func (b *box) forget(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.open[name]; p != nil {
		p.close()
		delete(b.open, name)
	}
}

// ensureNamespace opens the namespace if it is there and ours, and makes it
// otherwise. made says which.
func (b *box) ensureNamespace(name string) (p *place, made bool, err error) {
	p, err = openPlace(name)
	if err == nil {
		if err := b.checkMark(p, name); err != nil {
			p.close()
			return nil, false, err
		}
		return p, false, nil
	}
	if !errors.Is(err, netns.ErrNotExist) {
		return nil, false, err
	}
	p, err = b.makeNamespace(name)
	return p, true, err
}

// makeNamespace announces, creates and marks a namespace. Its loopback is up.
// In a machine IPv6 is off, which keeps router solicitations and duplicate
// address detection out of captures; pods have the CNI plugin for that.
func (b *box) makeNamespace(name string) (*place, error) {
	if b.journal.Has(journal.NetNS, name) {
		if err := netns.Delete(name); err != nil { // a stray file that a crash left
			return nil, err
		}
	} else if err := b.journal.Before(journal.NetNS, name); err != nil {
		return nil, err
	}
	ns, err := netns.Create(name)
	if err != nil {
		return nil, err
	}
	h, err := nl.At(ns)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	p := &place{ns: ns, h: h}
	if err := b.initNamespace(p); err != nil {
		p.close()
		return nil, fmt.Errorf("set up netns %s: %w", name, err)
	}
	return p, nil
}

// loIndex is the loopback's index in every namespace (linux include/net/net_namespace.h, LOOPBACK_IFINDEX).
const loIndex = 1

func (b *box) initNamespace(p *place) error {
	lo := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: loIndex}}
	if !isPod(p.ns.Name()) {
		if err := p.ns.Do(disableIPv6); err != nil {
			return err
		}
	}
	if err := p.h.LinkSetUp(lo); err != nil {
		return err
	}
	// Last: what carries the mark is whole.
	return p.h.LinkSetAlias(lo, mark(b.lab, b.id))
}

func disableIPv6() error {
	for _, c := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+c+"/disable_ipv6", []byte("1"), 0o644)
		if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6 has nothing to switch off
			return err
		}
	}
	return nil
}

// ForeignError says that something of that name is there which is not the lab's.
type ForeignError struct{ Name string }

// Error says what to do.
func (e *ForeignError) Error() string {
	return fmt.Sprintf("network namespace %s exists and does not carry this lab's mark: it is left alone (remove it with `ip netns del %s` if nobody needs it, or choose another lab name)", e.Name, e.Name)
}

// checkMark makes sure that an existing namespace is ours. One that is
// announced but not yet marked is what a crash left between the two; it can
// hold nothing but its loopback.
func (b *box) checkMark(p *place, name string) error {
	lo, err := p.h.LinkByIndex(loIndex)
	if err != nil {
		return err
	}
	if lo.Attrs().Alias == mark(b.lab, b.id) {
		return nil
	}
	if lo.Attrs().Alias == "" && b.journal.Has(journal.Pin, name) {
		return p.h.LinkSetAlias(lo, mark(b.lab, b.id))
	}
	links, err := p.h.LinkList()
	if err != nil {
		return err
	}
	if lo.Attrs().Alias == "" && len(links) == 1 && b.journal.Has(journal.NetNS, name) {
		return b.initNamespace(p)
	}
	return &ForeignError{Name: name}
}

// deleteNamespace unbinds a name that is ours.
func (b *box) deleteNamespace(name string) error {
	b.forget(name)
	if err := netns.Delete(name); err != nil {
		return err
	}
	if b.journal.Has(journal.Pin, name) {
		if err := b.journal.Undone(journal.Pin, name); err != nil {
			return err
		}
	}
	return b.journal.Undone(journal.NetNS, name)
}

// waitFor polls until ok or the context ends.
func waitFor(ctx context.Context, every time.Duration, ok func() (bool, error)) error {
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}
