package cni

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"slipway/datapath"
	"slipway/internal/netns"
)

// pluginType is the plugin's name in network configurations.
const pluginType = "slipway"

// Runtime plugs pods by running the plugin binary through libcni, as a container
// runtime does, with the plugin started inside the node's namespace.
type Runtime struct {
	// Plugin is the plugin's binary.
	Plugin string
	// Path lists directories with further plugins (IPAM), as CNI_PATH.
	Path []string
	// CacheDir is where libcni remembers what it attached; it must be private
	// to the lab.
	CacheDir string
	// Network is the network's name; NetworkName unless set.
	Network string
}

// Add plugs a pod in. podNS is the path of its namespace.
func (r Runtime) Add(ctx context.Context, node *netns.NS, podNS string, port datapath.PodPort) (*current.Result, error) {
	c, list, rt, err := r.prepare(node, podNS, port)
	if err == nil {
		var res types.Result
		if res, err = c.AddNetworkList(ctx, list, rt); err == nil {
			return current.NewResultFromResult(res)
		}
	}
	return nil, fmt.Errorf("CNI ADD %s on %s: %w", port.Pod, node.Name(), err)
}

// Del unplugs a pod; podNS may be empty when its namespace is gone.
func (r Runtime) Del(ctx context.Context, node *netns.NS, podNS string, port datapath.PodPort) error {
	c, list, rt, err := r.prepare(node, podNS, port)
	if err == nil {
		err = c.DelNetworkList(ctx, list, rt)
	}
	if err != nil {
		return fmt.Errorf("CNI DEL %s on %s: %w", port.Pod, node.Name(), err)
	}
	return nil
}

// Check verifies a pod's attachment, which Add must have made with the same cache.
func (r Runtime) Check(ctx context.Context, node *netns.NS, podNS string, port datapath.PodPort) error {
	c, list, rt, err := r.prepare(node, podNS, port)
	if err == nil {
		err = c.CheckNetworkList(ctx, list, rt)
	}
	if err != nil {
		return fmt.Errorf("CNI CHECK %s on %s: %w", port.Pod, node.Name(), err)
	}
	return nil
}

// GC unplugs everything on the node but the valid attachments. One of them, or
// any other port of the node, must be given as like, to say how the network is
// configured. The cache must hold this node's attachments alone: libcni unplugs
// everything in it that is not valid.
func (r Runtime) GC(ctx context.Context, node *netns.NS, like datapath.PodPort, valid []datapath.PodPort) error {
	c, list, _, err := r.prepare(node, "", like)
	if err == nil {
		args := &libcni.GCArgs{}
		for _, p := range valid {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: ContainerID(p.Pod), IfName: p.ContainerIf})
		}
		err = c.GCNetworkList(ctx, list, args)
	}
	if err != nil {
		return fmt.Errorf("CNI GC on %s: %w", node.Name(), err)
	}
	return nil
}

// Status asks whether pods like this one could be plugged in on the node.
func (r Runtime) Status(ctx context.Context, node *netns.NS, like datapath.PodPort) error {
	c, list, _, err := r.prepare(node, "", like)
	if err == nil {
		err = c.GetStatusNetworkList(ctx, list)
	}
	if err != nil {
		return fmt.Errorf("CNI STATUS on %s: %w", node.Name(), err)
	}
	return nil
}

func (r Runtime) prepare(node *netns.NS, podNS string, port datapath.PodPort) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	text, err := r.ConfList(port)
	if err != nil {
		return nil, nil, nil, err
	}
	list, err := libcni.ConfListFromBytes(text)
	if err != nil {
		return nil, nil, nil, err
	}
	path := append([]string{filepath.Dir(r.Plugin)}, r.Path...) // CNI_PATH must not be empty
	c := libcni.NewCNIConfigWithCacheDir(path, r.CacheDir, &nsExec{plugin: r.Plugin, node: node})
	namespace, name, _ := strings.Cut(port.Pod, "/")
	rt := &libcni.RuntimeConf{
		ContainerID: ContainerID(port.Pod), NetNS: podNS, IfName: port.ContainerIf,
		Args: [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", name},
			{"SLIPWAY_HOST_IF", port.HostIf}, {"SLIPWAY_HOST_MAC", port.HostMAC},
		},
		CapabilityArgs: map[string]any{"mac": port.ContainerMAC},
	}
	if port.Address.IsValid() { // DEL does without
		rt.CapabilityArgs["ips"] = []string{port.Address.String()}
	}
	return c, list, rt, nil
}

// ConfList is the network configuration list that a port's node has, as it
// would lie in /etc/cni/net.d.
func (r Runtime) ConfList(port datapath.PodPort) ([]byte, error) {
	name := r.Network
	if name == "" {
		name = NetworkName
	}
	plugin := map[string]any{
		"type": pluginType, "mode": modeRouted, "mtu": port.MTU,
		"capabilities": map[string]bool{"ips": true, "mac": true},
	}
	if port.Bridge != "" {
		plugin["mode"], plugin["bridge"], plugin["hairpin"] = modeBridge, port.Bridge, port.Hairpin
	}
	if port.Gateway.IsValid() {
		plugin["gateway"] = port.Gateway.String()
	}
	return json.MarshalIndent(map[string]any{"cniVersion": current.ImplementedSpecVersion, "name": name, "plugins": []any{plugin}}, "", "  ")
}

// nsExec starts plugins inside a node's namespace. Our own plugin is the one
// binary that it was given; others are looked up.
type nsExec struct {
	version.PluginDecoder
	plugin string
	node   *netns.NS
}

// FindInPath implements invoke.Exec.
func (e *nsExec) FindInPath(plugin string, paths []string) (string, error) {
	if plugin == pluginType {
		return e.plugin, nil
	}
	return invoke.FindInPath(plugin, paths)
}

// ExecPlugin implements invoke.Exec. The plugin inherits the namespace of the
// thread that starts it; its stderr becomes part of the error.
func (e *nsExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) (out []byte, err error) {
	err = e.node.Do(func() error {
		out, err = (&invoke.RawExec{}).ExecPlugin(ctx, path, stdin, environ)
		return err
	})
	return out, err
}
