package lab

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/lab/journal"
	"slipway/topology"
)

// removeOld takes away what the lab had and the new plan has not: first pods are
// unplugged as the old snapshot tells, then every namespace goes that the
// journal knows and nobody wants. The journal, and not the old snapshot alone,
// because a command that was cut off may have written a newer one already.
func (b *box) removeOld(ctx context.Context, old *topology.Snapshot, p *plan, u *underlay, path CNIPath, exe string) (datapath.Diff, error) {
	if old == nil {
		return nil, nil
	}
	ended, err := b.removeNodes(ctx, p)
	if err != nil {
		return ended, err
	}
	before := p
	if !reflect.DeepEqual(old, p.snapshot) {
		if before, err = makePlan(old); err != nil {
			return nil, fmt.Errorf("plan of the lab as it was: %w", err)
		}
	}
	diff, err := b.unplugOld(ctx, before.ports(), p.ports(), path, exe)
	diff = append(ended, diff...)
	if err != nil {
		return diff, err
	}
	did, err := b.pruneNamespaces(p, u)
	return append(diff, did...), err
}

// pruneNamespaces deletes what the lab once made and is no longer planned.
func (b *box) pruneNamespaces(p *plan, u *underlay) (datapath.Diff, error) {
	want := map[string]bool{NSOfMachine(b.lab, fabricName): true}
	for _, m := range u.machines {
		want[NSOfMachine(b.lab, m.name)] = true
	}
	for _, pod := range p.snapshot.Pods {
		want[NSOfPod(b.lab, pod.Key())] = true
	}
	known := b.journal.Live(journal.NetNS)
	slices.SortFunc(known, podsFirst)
	var diff datapath.Diff
	for _, ns := range known {
		if want[ns] {
			continue
		}
		ours, err := b.isOurs(ns)
		if err != nil {
			return diff, err
		}
		if !ours {
			continue
		}
		object := "namespace"
		if isPod(ns) {
			object = "pod"
		}
		diff = append(diff, datapath.Change{Node: b.lab, Action: datapath.Remove, Object: object, Command: "ip netns del " + ns})
		if err := b.deleteNamespace(ns); err != nil {
			return diff, err
		}
	}
	return diff, nil
}

// isOurs reports whether a name is the lab's: a namespace with its mark is, and a
// file that a crash left unbound, if the journal knows it.
func (b *box) isOurs(name string) (bool, error) {
	p, err := openPlace(name)
	if errors.Is(err, netns.ErrNotExist) {
		return b.journal.Has(journal.NetNS, name), nil
	}
	if err != nil {
		return false, err
	}
	defer p.close()
	var foreign *ForeignError
	err = b.checkMark(p, name)
	if errors.As(err, &foreign) {
		return false, nil
	}
	return err == nil, err
}
