package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
)

// The plugin's modes, as written in its configuration.
const (
	modeBridge = "bridge" // behind a bridge, as flannel
	modeRouted = "routed" // a /32 and proxy ARP, as calico
)

// netConf is the plugin's configuration: the network's own part, and below
// runtimeConfig what the runtime adds for one pod (capabilities "ips" and "mac").
type netConf struct {
	types.PluginConf
	Mode    string `json:"mode"`
	Bridge  string `json:"bridge,omitempty"`
	MTU     int    `json:"mtu,omitempty"` // bytes of IP packet
	Gateway string `json:"gateway,omitempty"`
	Hairpin bool   `json:"hairpin,omitempty"`
	// Ready, if set, is a file without which nothing is plugged in: whoever
	// programs the node makes it then, where a reboot takes it away.
	Ready         string        `json:"ready,omitempty"`
	RuntimeConfig runtimeConfig `json:"runtimeConfig,omitzero"`
}

type runtimeConfig struct {
	IPs []netip.Prefix `json:"ips,omitempty"`
	MAC string         `json:"mac,omitempty"`
}

// podArgs are the CNI_ARGS that the plugin understands. Kubernetes' runtimes set
// the first two; the lab says the names that its plan chose.
type podArgs struct {
	types.CommonArgs
	K8S_POD_NAMESPACE types.UnmarshallableString //nolint:revive // the name is the protocol's
	K8S_POD_NAME      types.UnmarshallableString //nolint:revive // the name is the protocol's
	SLIPWAY_HOST_IF   types.UnmarshallableString //nolint:revive // as its neighbours
	SLIPWAY_HOST_MAC  types.UnmarshallableString //nolint:revive // as its neighbours
}

// programmed reports an error of the given code until the node is programmed.
func (c netConf) programmed(code uint) error {
	if c.Ready == "" {
		return nil
	}
	if _, err := os.Stat(c.Ready); err != nil {
		return types.NewError(code, "the node's network is not programmed yet", err.Error())
	}
	return nil
}

func parseConf(stdin []byte) (netConf, error) {
	c := netConf{}
	if err := json.Unmarshal(stdin, &c); err != nil {
		return c, types.NewError(types.ErrDecodingFailure, "read network configuration", err.Error())
	}
	var errs []error
	switch c.Mode {
	case modeBridge:
		if c.Bridge == "" {
			errs = append(errs, errors.New(`mode "bridge" needs "bridge", the bridge's name`))
		}
	case modeRouted:
		if c.Bridge != "" || c.Hairpin {
			errs = append(errs, errors.New(`mode "routed" has no "bridge" and no "hairpin"`))
		}
		if c.Gateway == "" {
			c.Gateway = calico.Gateway.String()
		}
	default:
		errs = append(errs, fmt.Errorf(`mode %q: must be "bridge" or "routed"`, c.Mode))
	}
	if c.Gateway != "" {
		if _, err := netip.ParseAddr(c.Gateway); err != nil {
			errs = append(errs, fmt.Errorf("gateway: %w", err))
		}
	}
	if len(errs) > 0 {
		return c, types.NewError(types.ErrInvalidNetworkConfig, "network "+c.Name, errors.Join(errs...).Error())
	}
	return c, nil
}

// port is the attachment that a CNI call is about, but for its address.
func (c netConf) port(args *skel.CmdArgs) (datapath.PodPort, error) {
	a := podArgs{}
	a.IgnoreUnknown = true
	if args.Args != "" {
		if err := types.LoadArgs(args.Args, &a); err != nil {
			return datapath.PodPort{}, types.NewError(types.ErrInvalidEnvironmentVariables, "CNI_ARGS", err.Error())
		}
	}
	p := datapath.PodPort{
		Pod:    args.ContainerID,
		HostIf: string(a.SLIPWAY_HOST_IF), HostMAC: string(a.SLIPWAY_HOST_MAC),
		ContainerIf: args.IfName, ContainerMAC: c.RuntimeConfig.MAC,
		Bridge: c.Bridge, Hairpin: c.Hairpin, MTU: c.MTU,
	}
	if p.HostIf == "" {
		p.HostIf = c.hostIf(args, a)
		if c.Mode == modeRouted {
			p.HostMAC = calico.HostMAC
		}
	}
	if c.Gateway != "" {
		p.Gateway = netip.MustParseAddr(c.Gateway) // parseConf has looked at it
	}
	return p, nil
}

// hostIf names the host end where the runtime does not, as the planners do:
// after the pod, or after the container where no pod is named.
func (c netConf) hostIf(args *skel.CmdArgs, a podArgs) string {
	id := args.ContainerID + "/" + args.IfName
	if a.K8S_POD_NAME != "" {
		id = string(a.K8S_POD_NAMESPACE) + "/" + string(a.K8S_POD_NAME)
	}
	if c.Mode == modeRouted {
		return calico.HostIf(id)
	}
	return flannel.HostIf(id)
}

// setAddress takes the pod's address from runtimeConfig's ips, of which there
// must be one.
func (c netConf) setAddress(p *datapath.PodPort) error {
	if n := len(c.RuntimeConfig.IPs); n != 1 {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("runtimeConfig.ips has %d addresses, want one", n), "")
	}
	return c.useAddress(p, c.RuntimeConfig.IPs[0])
}

func (c netConf) useAddress(p *datapath.PodPort, a netip.Prefix) error {
	if !a.Addr().Is4() {
		return types.NewError(types.ErrUnsupportedField, "address "+a.String(), "only IPv4 is supported")
	}
	if c.Mode == modeRouted {
		a = netip.PrefixFrom(a.Addr(), a.Addr().BitLen())
	}
	p.Address = a
	return nil
}
