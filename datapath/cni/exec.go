package cni

import (
	"context"
	"errors"

	"slipway/datapath"
	"slipway/internal/netns"
)

// Exec plugs the pods of one node in by running the plugin binary, with the
// methods that [Node] has.
type Exec struct {
	rt   Runtime
	node *Node // to look, not to touch
}

// OpenExec prepares to run plugin inside node, remembering attachments below
// cacheDir, which must be the node's own. The namespace must stay open as long as the Exec is used.
func OpenExec(node *netns.NS, plugin, cacheDir string) (*Exec, error) {
	if plugin == "" || cacheDir == "" {
		return nil, errors.New("run the CNI plugin: needs the plugin's binary and a cache directory")
	}
	n, err := OpenNode(node)
	if err != nil {
		return nil, err
	}
	return &Exec{rt: Runtime{Plugin: plugin, CacheDir: cacheDir}, node: n}, nil
}

// Close lets go of the sockets in the node.
func (e *Exec) Close() error { return e.node.Close() }

// plugged reports whether the pod's host end is there at all.
func (e *Exec) plugged(port datapath.PodPort) bool {
	_, err := e.node.rt.link(port.HostIf)
	return err == nil
}

// Attach plugs a pod in with ADD, unless CHECK says that it is plugged in as it
// should be. The pod must be a named namespace, because plugins are given paths.
func (e *Exec) Attach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error) {
	path := netns.Path(pod.Name())
	if e.plugged(port) {
		if err := e.rt.Check(ctx, e.node.ns, path, port); err == nil || ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	if _, err := e.rt.Add(ctx, e.node.ns, path, port); err != nil {
		return true, err
	}
	return true, nil
}

// Detach unplugs a pod with DEL; pod may be nil when its namespace is gone.
// Whether there was anything to unplug is read from the node's links.
func (e *Exec) Detach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error) {
	path := ""
	if pod != nil {
		path = netns.Path(pod.Name())
	}
	changed = e.plugged(port)
	return changed, e.rt.Del(ctx, e.node.ns, path, port)
}

// Check verifies a pod's attachment with CHECK.
func (e *Exec) Check(ctx context.Context, pod *netns.NS, port datapath.PodPort) error {
	return e.rt.Check(ctx, e.node.ns, netns.Path(pod.Name()), port)
}
