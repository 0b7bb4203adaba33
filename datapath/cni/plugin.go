package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"slipway/datapath"
	"slipway/internal/netns"
	"slipway/internal/nl"
)

// Invoked reports whether this process was started as a CNI plugin: a runtime
// sets CNI_COMMAND and gives no arguments (CNI specification, section 2).
func Invoked() bool { return os.Getenv("CNI_COMMAND") != "" && len(os.Args) == 1 }

// PluginMain serves one CNI call from the environment and stdin and ends the
// process with its exit code. The node is the namespace it is started in.
func PluginMain() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: cmdAdd, Del: cmdDel, Check: cmdCheck, GC: cmdGC, Status: cmdStatus},
		version.PluginSupports("0.4.0", "1.0.0", "1.1.0"), "CNI plugin slipway")
}

// call is one CNI call with what all of them need.
type call struct {
	conf netConf
	args *skel.CmdArgs
	node *Node
	pod  *netns.NS // nil where there is none
}

// begin reads the configuration and opens the node and, if named, the pod. A
// pod that is gone is left nil.
func begin(args *skel.CmdArgs) (*call, error) {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return nil, err
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	node, err := openNode(ns, conf.Name)
	if err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	c := &call{conf: conf, args: args, node: node}
	if args.Netns != "" {
		c.pod, err = netns.OpenPath(args.Netns)
		if err != nil && !errors.Is(err, netns.ErrNotExist) {
			c.end()
			return nil, err
		}
	}
	return c, nil
}

func (c *call) end() {
	_ = c.node.Close()
	_ = c.node.ns.Close()
	if c.pod != nil {
		_ = c.pod.Close()
	}
}

func (c *call) needPod() error {
	if c.pod == nil {
		return types.NewError(types.ErrInvalidNetNS, fmt.Sprintf("%s is not a network namespace", c.args.Netns), "")
	}
	return nil
}

// delegated reports whether addresses come from an IPAM plugin.
func (c *call) delegated() bool { return len(c.conf.RuntimeConfig.IPs) == 0 && c.conf.IPAM.Type != "" }

func cmdAdd(args *skel.CmdArgs) error {
	c, err := begin(args)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.conf.programmed(types.ErrTryAgainLater); err != nil {
		return err
	}
	if err := c.needPod(); err != nil {
		return err
	}
	port, err := c.conf.port(args)
	if err != nil {
		return err
	}
	ctx := context.Background()
	extra := &current.Result{}
	if c.delegated() {
		if extra, err = c.allocate(ctx, &port); err == nil {
			defer func() {
				if err != nil { // give the address back
					_ = invoke.DelegateDel(ctx, c.conf.IPAM.Type, args.StdinData, nil)
				}
			}()
		}
	} else {
		err = c.conf.setAddress(&port)
	}
	if err != nil {
		return err
	}
	if _, err = c.node.Attach(ctx, c.pod, port); err != nil {
		return asCNI(err)
	}
	var res *current.Result
	if res, err = c.result(port); err != nil {
		return err
	}
	res.DNS = extra.DNS
	err = types.PrintResult(res, c.conf.CNIVersion)
	return err
}

// allocate asks the IPAM plugin for an address.
func (c *call) allocate(ctx context.Context, port *datapath.PodPort) (*current.Result, error) {
	r, err := invoke.DelegateAdd(ctx, c.conf.IPAM.Type, c.args.StdinData, nil)
	if err != nil {
		return nil, err
	}
	res, err := current.NewResultFromResult(r)
	if err == nil && len(res.IPs) != 1 {
		err = types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("IPAM plugin %s gave %d addresses, want one", c.conf.IPAM.Type, len(res.IPs)), "")
	}
	if err == nil {
		ip := res.IPs[0]
		ones, _ := ip.Address.Mask.Size()
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		err = c.conf.useAddress(port, netip.PrefixFrom(a.Unmap(), ones))
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok && !port.Gateway.IsValid() {
			port.Gateway = gw.Unmap()
		}
	}
	if err != nil {
		return nil, errors.Join(err, invoke.DelegateDel(ctx, c.conf.IPAM.Type, c.args.StdinData, nil))
	}
	return res, nil
}

// result describes the attachment as the specification wants it, with the MACs
// that the links really have.
func (c *call) result(port datapath.PodPort) (*current.Result, error) {
	host, err := c.node.rt.link(port.HostIf)
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", port.HostIf, err)
	}
	p, err := nl.At(c.pod)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	eth, err := p.LinkByName(port.ContainerIf)
	if err != nil {
		return nil, fmt.Errorf("read link %s: %w", port.ContainerIf, err)
	}
	index := 1
	res := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{
			{Name: port.HostIf, Mac: host.HardwareAddr.String(), Mtu: host.MTU},
			{Name: port.ContainerIf, Mac: eth.Attrs().HardwareAddr.String(), Mtu: eth.Attrs().MTU, Sandbox: c.args.Netns},
		},
		IPs: []*current.IPConfig{{Interface: &index, Address: *ipNet(port.Address), Gateway: port.Gateway.AsSlice()}},
	}
	if port.Gateway.IsValid() {
		all := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		res.Routes = []*types.Route{{Dst: *ipNet(all), GW: port.Gateway.AsSlice()}}
	}
	return res, nil
}

func cmdDel(args *skel.CmdArgs) error {
	c, err := begin(args)
	if err != nil {
		return err
	}
	defer c.end()
	ctx := context.Background()
	if c.delegated() {
		if err := invoke.DelegateDel(ctx, c.conf.IPAM.Type, args.StdinData, nil); err != nil {
			return err
		}
	}
	port, err := c.conf.port(args)
	if err != nil {
		return err
	}
	if other, err := c.othersLink(port); other || err != nil {
		return err
	}
	_, err = c.node.Detach(ctx, c.pod, port)
	return asCNI(err)
}

// othersLink reports whether the link of that name was made for another
// container: links are named after pods, and runtimes delete a pod's former
// container once more when its next one runs already.
func (c *call) othersLink(port datapath.PodPort) (bool, error) {
	host, err := c.node.rt.link(port.HostIf)
	if nl.Missing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read link %s: %w", port.HostIf, err)
	}
	own := alias(c.conf.Name, ContainerID(port.Pod), port.ContainerIf)
	return strings.HasPrefix(host.Alias, c.conf.Name+":") && host.Alias != own, nil
}

func cmdCheck(args *skel.CmdArgs) error {
	c, err := begin(args)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.needPod(); err != nil {
		return err
	}
	port, err := c.conf.port(args)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if c.delegated() {
		if err := invoke.DelegateCheck(ctx, c.conf.IPAM.Type, args.StdinData, nil); err != nil {
			return err
		}
		if err := c.previousAddress(&port); err != nil {
			return err
		}
	} else if err := c.conf.setAddress(&port); err != nil {
		return err
	}
	return asCNI(c.node.Check(ctx, c.pod, port))
}

// previousAddress takes the address from the result of ADD, which CHECK is
// given: an IPAM plugin hands out addresses only once.
func (c *call) previousAddress(port *datapath.PodPort) error {
	raw, err := json.Marshal(c.conf.RawPrevResult)
	if err != nil {
		return fmt.Errorf("read prevResult: %w", err)
	}
	r := current.Result{}
	if err := json.Unmarshal(raw, &r); err != nil || len(r.IPs) != 1 {
		return types.NewError(types.ErrInvalidNetworkConfig, "prevResult must hold one address", fmt.Sprint(err))
	}
	ones, _ := r.IPs[0].Address.Mask.Size()
	a, _ := netip.AddrFromSlice(r.IPs[0].Address.IP)
	if gw, ok := netip.AddrFromSlice(r.IPs[0].Gateway); ok {
		port.Gateway = gw.Unmap()
	}
	return c.conf.useAddress(port, netip.PrefixFrom(a.Unmap(), ones))
}

// cmdGC removes every attachment of this network that is not in the list of
// valid ones: links on this node whose alias says that they are such.
func cmdGC(args *skel.CmdArgs) error {
	c, err := begin(args)
	if err != nil {
		return err
	}
	defer c.end()
	valid := map[string]bool{}
	for _, a := range c.conf.ValidAttachments {
		valid[alias(c.conf.Name, a.ContainerID, a.IfName)] = true
	}
	links, err := nl.Dump(c.node.h.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != "veth" || !strings.HasPrefix(a.Alias, c.conf.Name+":") || valid[a.Alias] {
			continue
		}
		if err := c.node.h.LinkDel(l); err != nil && !nl.Missing(err) {
			errs = append(errs, fmt.Errorf("remove link %s: %w", a.Name, err))
		}
	}
	if c.conf.IPAM.Type != "" {
		errs = append(errs, invoke.DelegateGC(context.Background(), c.conf.IPAM.Type, args.StdinData, nil))
	}
	return errors.Join(errs...)
}

// cmdStatus says whether an ADD could work now: the bridge is there, or the
// gateway is covered, and the IPAM plugin is well.
func cmdStatus(args *skel.CmdArgs) error {
	c, err := begin(args)
	if err != nil {
		return err
	}
	defer c.end()
	if err := c.conf.programmed(types.ErrPluginNotAvailable); err != nil {
		return err
	}
	if c.conf.Mode == modeBridge {
		if _, err := c.node.bridge(c.conf.Bridge, true); err != nil {
			return types.NewError(types.ErrPluginNotAvailable, "the network is not set up on this node", err.Error())
		}
	} else if err := c.node.covers(netip.MustParseAddr(c.conf.Gateway).AsSlice(), 0); err != nil {
		return asCNI(err)
	}
	if c.conf.IPAM.Type != "" {
		return invoke.DelegateStatus(context.Background(), c.conf.IPAM.Type, args.StdinData, nil)
	}
	return nil
}

// asCNI gives an error the code that the specification has for it.
func asCNI(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrGatewayUncovered):
		return types.NewError(types.ErrLimitedConnectivity, ErrGatewayUncovered.Error(), err.Error())
	case errors.Is(err, ErrDiffers):
		return types.NewError(errCheckFailed, "the attachment is not as it was made", err.Error())
	case errors.Is(err, netns.ErrNotExist):
		return types.NewError(types.ErrInvalidNetNS, "no such namespace", err.Error())
	default:
		return types.NewError(types.ErrInternal, err.Error(), "")
	}
}

// errCheckFailed is this plugin's own code for a failed CHECK; those from 100 on
// are the plugins' to define (CNI specification, section "Error").
const errCheckFailed = 100
