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
	node *netns.NS
}

// OpenExec prepares to run plugin inside node, remembering attachments below
// cacheDir. The namespace must stay open as long as the Exec is used.
func OpenExec(node *netns.NS, plugin, cacheDir string) (*Exec, error) {
	if plugin == "" || cacheDir == "" {
		return nil, errors.New("run the CNI plugin: needs the plugin's binary and a cache directory")
	}
	return &Exec{rt: Runtime{Plugin: plugin, CacheDir: cacheDir}, node: node}, nil
}

// Close does nothing: there is nothing to let go of.
func (e *Exec) Close() error { return nil }

// Attach plugs a pod in with ADD, unless CHECK says that it is plugged in as it
// should be. The pod must be a named namespace, because plugins are given paths.
func (e *Exec) Attach(ctx context.Context, pod *netns.NS, port datapath.PodPort) (changed bool, err error) {
	path := netns.Path(pod.Name())
	if err := e.rt.Check(ctx, e.node, path, port); err == nil || ctx.Err() != nil {
		return false, ctx.Err()
	}
	if _, err := e.rt.Add(ctx, e.node, path, port); err != nil {
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
	n, err := OpenNode(e.node)
	if err != nil {
		return false, err
	}
	defer n.Close() //nolint:errcheck // sockets only
	_, missing := n.rt.link(port.HostIf)
	return missing == nil, e.rt.Del(ctx, e.node, path, port)
}

// Check verifies a pod's attachment with CHECK.
func (e *Exec) Check(ctx context.Context, pod *netns.NS, port datapath.PodPort) error {
	return e.rt.Check(ctx, e.node, netns.Path(pod.Name()), port)
}
