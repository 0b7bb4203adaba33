package lab

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/lab/journal"
	"slipway/topology"
)

// plugOrPin makes the pods' namespaces and plugs them in, or names those that are
// plugged in already. It returns the namespaces' inodes.
func (b *box) plugOrPin(ctx context.Context, p *plan, st *State, exe string, step func()) (datapath.Diff, map[string]uint64, error) {
	if !p.agents() {
		return b.plugAll(ctx, p, st.CNI, exe, step)
	}
	var sandboxes map[string]string
	if st.Live != nil {
		sandboxes = st.Live.Sandboxes
	}
	return b.pinAll(ctx, p.snapshot, sandboxes)
}

// pinAll gives the network namespaces that a container runtime made for pods the
// names that a lab's pods have, by which every command finds them. It returns
// their inodes. A sandbox that is gone by now loses its name.
func (b *box) pinAll(ctx context.Context, s *topology.Snapshot, sandboxes map[string]string) (datapath.Diff, map[string]uint64, error) {
	var diff datapath.Diff
	inodes := map[string]uint64{}
	for _, pod := range s.Pods {
		if err := ctx.Err(); err != nil {
			return diff, inodes, err
		}
		path := sandboxes[pod.Key()]
		if path == "" {
			continue // it has an address, and is not known by its namespace yet
		}
		did, inode, err := b.pin(NSOfPod(b.lab, pod.Key()), path)
		if err != nil {
			return diff, inodes, fmt.Errorf("name the network namespace of pod %s: %w", pod.Key(), err)
		}
		if did != "" {
			diff = append(diff, datapath.Change{Node: pod.Node, Action: did, Object: "pod", Command: pinCommand(did, path, NSOfPod(b.lab, pod.Key()))})
		}
		if inode != 0 {
			inodes[NSOfPod(b.lab, pod.Key())] = inode
		}
	}
	return diff, inodes, nil
}

func pinCommand(did datapath.ChangeAction, path, name string) string {
	if did == datapath.Remove {
		return "ip netns del " + name
	}
	return "mount --bind " + path + " " + netns.Path(name)
}

// pin binds a namespace to a name. The inode is 0 if the namespace is not there.
func (b *box) pin(name, path string) (did datapath.ChangeAction, inode uint64, err error) {
	var st unix.Stat_t
	there := unix.Stat(path, &st) == nil
	did = datapath.Add
	have, err := b.pinned(name)
	switch {
	case errors.Is(err, netns.ErrNotExist):
		if !there {
			return "", 0, nil
		}
	case err != nil || there && have == st.Ino:
		return "", have, err
	default: // the pod has another sandbox now, or none
		did = datapath.Update
		if err := b.deleteNamespace(name); err != nil || !there {
			return datapath.Remove, 0, err
		}
	}
	if err := errors.Join(b.journal.Before(journal.Pin, name), b.journal.Before(journal.NetNS, name)); err != nil {
		return "", 0, err
	}
	if err := netns.Delete(name); err != nil { // a stray file that a crash left
		return "", 0, err
	}
	if err := netns.Pin(path, name); err != nil {
		return "", 0, err
	}
	inode, err = b.pinned(name)
	return did, inode, err
}

// pinned makes sure that what a pod's name is bound to is the lab's, and returns
// its inode.
func (b *box) pinned(name string) (uint64, error) {
	p, err := openPlace(name)
	if err != nil {
		return 0, err
	}
	defer p.close()
	if err := b.checkMark(p, name); err != nil {
		return 0, err
	}
	return p.ns.Inode()
}
