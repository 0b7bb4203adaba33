package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"slipway/lab/cgroup"
	"slipway/lab/journal"
)

// labCgroup is the control group that holds those of a lab's nodes.
func labCgroup(lab string) string { return nsPrefix + lab }

func nodeCgroup(lab, node string) string { return labCgroup(lab) + "/" + node }

// initCgroup is the group of a node's own processes, below the node's: in the
// unified hierarchy, a group that has groups holds no processes itself
// (linux Documentation/admin-guide/cgroup-v2.rst, "No Internal Process Constraint").
const initCgroup = "init"

// prepareCgroups announces the lab's group, unless somebody else's is there, and
// makes sure that the unified hierarchy hands its controllers down.
func (b *box) prepareCgroups() ([]cgroup.Hierarchy, error) {
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return nil, err
	}
	group := labCgroup(b.lab)
	if !b.journal.Has(journal.Cgroup, group) {
		there, err := cgroup.Exists(hs, group)
		if err != nil {
			return nil, err
		}
		if there {
			return nil, fmt.Errorf("control group %s exists and is not this lab's: it is left alone (remove it if nobody needs it, or choose another lab name)", group)
		}
		if err := b.journal.Before(journal.Cgroup, group); err != nil {
			return nil, err
		}
	}
	for _, c := range cgroup.Withheld(hs) {
		if err := b.journal.Before(journal.Controller, c); err != nil {
			return nil, err
		}
		// One that cannot be handed down (cpu, beside realtime processes) is missed
		// by those who need it, who say so.
		_ = cgroup.Hand(hs, c, true)
	}
	return hs, nil
}

// enterCgroups makes a node's groups and returns those that its first process has
// to enter.
func (b *box) enterCgroups(hs []cgroup.Hierarchy, node string) ([]string, error) {
	dirs, err := cgroup.Make(hs, nodeCgroup(b.lab, node))
	if err != nil {
		return nil, err
	}
	if !cgroup.OnlyUnified(hs) {
		return dirs, nil
	}
	var out []string
	for _, d := range dirs {
		own := filepath.Join(d, initCgroup)
		if err := unix.Mkdir(own, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return nil, fmt.Errorf("make control group %s: %w", own, err)
		}
		out = append(out, own)
	}
	return out, nil
}

// removeNodeCgroup removes the groups of a node whose processes have ended.
func (b *box) removeNodeCgroup(ctx context.Context, node string) error {
	if !b.journal.Has(journal.Cgroup, labCgroup(b.lab)) {
		return nil
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	return cgroup.Remove(ctx, hs, nodeCgroup(b.lab, node))
}

// removeCgroups removes all groups of the lab, whose processes have ended.
func (b *box) removeCgroups(ctx context.Context) error {
	group := labCgroup(b.lab)
	if !b.journal.Has(journal.Cgroup, group) {
		return nil
	}
	hs, err := cgroup.Hierarchies()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, downPatience)
	defer cancel()
	if err := cgroup.Remove(ctx, hs, group); err != nil {
		return err
	}
	if err := b.journal.Undone(journal.Cgroup, group); err != nil {
		return err
	}
	controllers := b.journal.Live(journal.Controller)
	slices.Sort(controllers)
	for _, c := range controllers {
		// EBUSY: another lab's groups, or somebody else's, have come to need it.
		if err := cgroup.Hand(hs, c, false); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
		if err := b.journal.Undone(journal.Controller, c); err != nil {
			return err
		}
	}
	return nil
}
