package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sync/errgroup"

	"slipway/datapath"
	"slipway/datapath/cni"
	"slipway/internal/netns"
	"slipway/internal/ordered"
)

// plug is one way of running the CNI plugin's code for the pods of one node.
type plug interface {
	Attach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error)
	Detach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error)
	Close() error
}

// openPlug opens the lab's way of plugging pods into a node.
func (b *box) openPlug(node *netns.NS, path CNIPath, self string) (plug, error) {
	if path == CNIExec {
		return cni.OpenExec(node, self, filepath.Join(filesOf(b.lab).cniCache(), node.Name()))
	}
	return cni.OpenNode(node)
}

// unplugOld takes pods off whose port changed kind or node, or that are no
// longer wanted. old may be nil.
func (b *box) unplugOld(ctx context.Context, old, want map[string]podPort, path CNIPath, self string) (datapath.Diff, error) {
	var diff datapath.Diff
	byNode := map[string][]podPort{}
	for key, o := range old {
		w, stays := want[key]
		if stays && w.node == o.node && w.HostIf == o.HostIf && w.Bridge == o.Bridge {
			continue
		}
		byNode[o.node] = append(byNode[o.node], o)
	}
	for _, node := range ordered.Keys(byNode) {
		did, err := b.unplugFrom(ctx, node, byNode[node], path, self)
		diff = append(diff, did...)
		if err != nil {
			return diff, err
		}
	}
	return diff, nil
}

func (b *box) unplugFrom(ctx context.Context, node string, ports []podPort, path CNIPath, self string) (diff datapath.Diff, err error) {
	ns, err := netns.Open(NSOfMachine(b.lab, node))
	if errors.Is(err, netns.ErrNotExist) {
		return nil, nil // the node is gone, and its pods' veths with it
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close() //nolint:errcheck // read-only descriptor
	pl, err := b.openPlug(ns, path, self)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pl.Close()) }()
	for _, p := range ports {
		pod, err := netns.Open(p.NetNS)
		if errors.Is(err, netns.ErrNotExist) {
			pod = nil
		} else if err != nil {
			return diff, err
		}
		changed, err := pl.Detach(ctx, pod, p.PodPort)
		if pod != nil {
			_ = pod.Close()
		}
		if err != nil {
			return diff, fmt.Errorf("unplug pod %s from %s: %w", p.Pod, node, err)
		}
		if changed {
			diff = append(diff, datapath.Change{Node: node, Action: datapath.Remove, Object: "pod", Command: "cni DEL " + p.Pod + " (ip link del " + p.HostIf + ")"})
		}
	}
	return diff, nil
}

// plugAll makes every pod's namespace and plugs it into its node. It returns
// the namespaces' inodes for the daemon.
func (b *box) plugAll(ctx context.Context, p *plan, path CNIPath, self string, step func()) (datapath.Diff, map[string]uint64, error) {
	var mu sync.Mutex
	inodes := map[string]uint64{}
	diffs := make([]datapath.Diff, len(p.nodes))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers)
	for i, cfg := range p.nodes {
		if len(cfg.PodPorts) == 0 {
			continue
		}
		g.Go(func() (err error) {
			node, err := b.machinePlace(NSOfMachine(b.lab, cfg.Node))
			if err != nil {
				return err
			}
			pl, err := b.openPlug(node.ns, path, self)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, pl.Close()) }()
			for _, port := range cfg.PodPorts {
				did, inode, err := b.plugOne(ctx, pl, cfg.Node, port)
				diffs[i] = append(diffs[i], did...)
				if err != nil {
					return err
				}
				mu.Lock()
				inodes[port.NetNS] = inode
				mu.Unlock()
				step()
			}
			return nil
		})
	}
	err := g.Wait()
	var diff datapath.Diff
	for _, d := range diffs {
		diff = append(diff, d...)
	}
	return diff, inodes, err
}

// machineInodes adds the namespaces of the machines and the fabric, by which the
// daemon knows one that was made again under the same name.
func (b *box) machineInodes(u *underlay, inodes map[string]uint64) error {
	names := []string{NSOfMachine(b.lab, fabricName)}
	for _, m := range u.machines {
		names = append(names, NSOfMachine(b.lab, m.name))
	}
	for _, n := range names {
		p, err := b.machinePlace(n)
		if err != nil {
			return err
		}
		if inodes[n], err = p.ns.Inode(); err != nil {
			return err
		}
	}
	return nil
}

func (b *box) plugOne(ctx context.Context, pl plug, node string, port datapath.PodPort) (datapath.Diff, uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	place, made, err := b.ensureNamespace(port.NetNS)
	if err != nil {
		return nil, 0, err
	}
	defer place.close()
	var diff datapath.Diff
	if made {
		diff = append(diff, datapath.Change{Node: node, Action: datapath.Add, Object: "pod", Command: "ip netns add " + port.NetNS})
	}
	changed, err := attach(ctx, pl, place, port)
	if err != nil {
		return diff, 0, fmt.Errorf("plug pod %s into %s: %w", port.Pod, node, err)
	}
	if changed {
		action := datapath.Update
		if made {
			action = datapath.Add
		}
		diff = append(diff, datapath.Change{Node: node, Action: action, Object: "pod", Command: fmt.Sprintf("cni ADD %s (%s %s)", port.Pod, port.HostIf, port.Address)})
	}
	inode, err := place.ns.Inode()
	return diff, inode, err
}

// attach lends the pod's open handle to a plug that can use it.
func attach(ctx context.Context, pl plug, p *place, port datapath.PodPort) (bool, error) {
	if n, ok := pl.(*cni.Node); ok {
		return n.AttachVia(ctx, p.ns, p.h, port)
	}
	return pl.Attach(ctx, p.ns, port)
}

// self is the path of this program, for the parts that it starts of itself.
func self() (string, error) {
	p, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find own program: %w", err)
	}
	return p, nil
}
