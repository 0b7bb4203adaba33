package cni

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	nlh "slipway/internal/nl"
)

// Constants that neither netlink library nor x/sys names.
const (
	vethInfoPeer        = 1      // VETH_INFO_PEER, linux include/uapi/linux/veth.h
	rtextFilterSkipStat = 1 << 3 // RTEXT_FILTER_SKIP_STATS, linux include/uapi/linux/rtnetlink.h
	nlaTypeMask         = 0x3fff // NLA_TYPE_MASK, linux include/uapi/linux/netlink.h
	inetConf            = 1      // IFLA_INET_CONF, linux include/uapi/linux/if_link.h
	ndtaName            = 1      // NDTA_NAME, linux include/uapi/linux/neighbour.h
	ndtaParms           = 6      // NDTA_PARMS
	ndtpaIfindex        = 1      // NDTPA_IFINDEX
	ndtpaProxyDelay     = 13     // NDTPA_PROXY_DELAY
)

// rtnl is a NETLINK_ROUTE socket for the two requests that the netlink library
// has no words for: a veth pair made whole in one message, and a link read
// together with its bridge port attributes without dumping all ports.
type rtnl struct {
	sockets map[int]*nl.SocketHandle
}

func openRTNL(ns *netns.NS) (*rtnl, error) {
	r := &rtnl{}
	err := ns.Do(func() error {
		s, err := nl.Subscribe(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		r.sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return r, nil
}

func (r *rtnl) close() {
	for _, s := range r.sockets {
		s.Close()
	}
}

func (r *rtnl) request(kind, flags int) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Sockets = r.sockets
	return req
}

// addVeth makes a veth pair: the host end here, with its master, the other end
// in the namespace of podFd from its first moment on. Both are down: a host end
// that is up without a carrier makes the kernel wait for an RCU grace period
// when it is asked about (linkwatch_sync_dev, dev_deactivate).
func (r *rtnl) addVeth(w want, podFd, master int) error {
	req := r.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	req.AddData(msg)
	for _, a := range endAttrs(w.HostIf, w.hostMAC, w.MTU) {
		req.AddData(a)
	}
	if master != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(master))))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("veth"))
	peer := info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(vethInfoPeer, nil)
	nl.NewIfInfomsgChild(peer, unix.AF_UNSPEC)
	for _, a := range endAttrs(w.ContainerIf, w.podMAC, w.MTU) {
		peer.AddChild(a)
	}
	peer.AddRtAttr(unix.IFLA_NET_NS_FD, nl.Uint32Attr(uint32(podFd)))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// dress sets up the host end with what a link cannot be made with: its alias,
// hairpin mode on a bridge port, and the per-device IPv4 settings of a routed end.
func (r *rtnl) dress(index int, w want) error {
	req := r.request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index, msg.Flags, msg.Change = int32(index), unix.IFF_UP, unix.IFF_UP
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(w.alias)))
	if w.Hairpin && !w.routed() {
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
		info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(nl.IFLA_BRPORT_MODE, nl.Uint8Attr(1))
		req.AddData(info)
	}
	if w.routed() {
		req.AddData(devconfAttr(routedDevconf))
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func (r *rtnl) change(index int) *nl.NetlinkRequest {
	req := r.request(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	req.AddData(msg)
	return req
}

// setDevconf sets per-device IPv4 settings: the same values as below
// /proc/sys/net/ipv4/conf/DEV, without entering the namespace.
func (r *rtnl) setDevconf(index int, conf []devconf) error {
	req := r.change(index)
	req.AddData(devconfAttr(conf))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func devconfAttr(conf []devconf) *nl.RtAttr {
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	inet := spec.AddRtAttr(unix.AF_INET, nil).AddRtAttr(inetConf, nil)
	for _, c := range conf {
		inet.AddRtAttr(c.id, nl.Uint32Attr(c.value))
	}
	return spec
}

// setProxyDelay sets how long the device waits, at random up to this, before it
// answers ARP by proxy: /proc/sys/net/ipv4/neigh/DEV/proxy_delay.
func (r *rtnl) setProxyDelay(index int, milliseconds uint64) error {
	req := r.request(unix.RTM_SETNEIGHTBL, unix.NLM_F_ACK)
	req.AddRawData([]byte{unix.AF_INET, 0, 0, 0}) // struct ndtmsg
	name := nl.NewRtAttr(ndtaName, nl.ZeroTerminated("arp_cache"))
	parms := nl.NewRtAttr(ndtaParms, nil)
	parms.AddRtAttr(ndtpaIfindex, nl.Uint32Attr(uint32(index)))
	parms.AddRtAttr(ndtpaProxyDelay, nl.Uint64Attr(milliseconds))
	req.AddRawData(name.Serialize())
	req.AddRawData(parms.Serialize())
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// proxyDelays reads what setProxyDelay sets, in milliseconds by link index: of
// all devices, because the kernel tells them only together.
func (r *rtnl) proxyDelays() (map[int]uint64, error) {
	req := r.request(unix.RTM_GETNEIGHTBL, unix.NLM_F_DUMP)
	req.AddRawData([]byte{unix.AF_INET, 0, 0, 0})
	msgs, err := nlh.Dump(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGHTBL) })
	if err != nil {
		return nil, err
	}
	out := map[int]uint64{}
	for _, m := range msgs {
		parms, err := nested(m[4:], ndtaParms)
		if err != nil {
			return nil, err
		}
		index, err := nested(parms, ndtpaIfindex)
		if err != nil {
			return nil, err
		}
		delay, err := nested(parms, ndtpaProxyDelay)
		if err != nil {
			return nil, err
		}
		if len(index) >= 4 && len(delay) >= 8 { // the table's defaults have no index
			out[int(nl.NativeEndian().Uint32(index))] = nl.NativeEndian().Uint64(delay)
		}
	}
	return out, nil
}

// endAttrs describes one end. It has one queue each way, as veths have unless
// told otherwise; saying so spares the kernel to make one for each CPU and wait
// for an RCU grace period to take them back (veth_init_queues).
func endAttrs(name string, mac net.HardwareAddr, mtu int) []*nl.RtAttr {
	out := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_NUM_TX_QUEUES, nl.Uint32Attr(1)),
		nl.NewRtAttr(unix.IFLA_NUM_RX_QUEUES, nl.Uint32Attr(1)),
	}
	if mac != nil {
		out = append(out, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	if mtu > 0 {
		out = append(out, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu))))
	}
	return out
}

// hostLink is the host end as the kernel reports it.
type hostLink struct {
	*netlink.LinkAttrs
	kind              string
	hairpin, isolated bool
	devconf           []byte // u32 values of IPV4_DEVCONF_… from 1 on
}

// conf is the value of one per-device IPv4 setting.
func (l hostLink) conf(id int) (uint32, bool) {
	if end := id * 4; end <= len(l.devconf) {
		return nl.NativeEndian().Uint32(l.devconf[end-4:]), true
	}
	return 0, false
}

// peer is the index of the other end in its own namespace (IFLA_LINK).
func (l hostLink) peer() int { return l.ParentIndex }

// link reads one link by name; a netlink.LinkNotFoundError if there is none.
func (r *rtnl) link(name string) (hostLink, error) {
	req := r.request(unix.RTM_GETLINK, 0)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	// Neither counters nor virtual functions: nobody here reads them.
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(rtextFilterSkipStat)))
	msgs, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if errors.Is(err, unix.ENODEV) || (err == nil && len(msgs) == 0) {
		return hostLink{}, netlink.LinkNotFoundError{}
	}
	if err != nil {
		return hostLink{}, err
	}
	l, err := netlink.LinkDeserialize(nil, msgs[0])
	if err != nil {
		return hostLink{}, err
	}
	out := hostLink{LinkAttrs: l.Attrs(), kind: l.Type()}
	return out, errors.Join(out.parsePort(msgs[0]), out.parseDevconf(msgs[0]))
}

// parseDevconf finds IFLA_AF_SPEC / AF_INET / IFLA_INET_CONF.
func (l *hostLink) parseDevconf(msg []byte) error {
	b, err := nested(msg[unix.SizeofIfInfomsg:], unix.IFLA_AF_SPEC)
	if err == nil {
		b, err = nested(b, unix.AF_INET)
	}
	if err == nil {
		l.devconf, err = nested(b, inetConf)
	}
	if err != nil {
		return fmt.Errorf("parse settings of %s: %w", l.Name, err)
	}
	return nil
}

// parsePort reads the bridge port attributes out of a link message:
// IFLA_LINKINFO / IFLA_INFO_SLAVE_DATA / IFLA_BRPORT_….
func (l *hostLink) parsePort(msg []byte) error {
	b, err := nested(msg[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO)
	if err == nil {
		b, err = nested(b, nl.IFLA_INFO_SLAVE_DATA)
	}
	if err != nil {
		return fmt.Errorf("parse port of %s: %w", l.Name, err)
	}
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return fmt.Errorf("parse port of %s: %w", l.Name, err)
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case nl.IFLA_BRPORT_MODE:
			l.hairpin = a.Value[0] != 0
		case nl.IFLA_BRPORT_ISOLATED:
			l.isolated = a.Value[0] != 0
		}
	}
	return nil
}

// nested returns the payload of the first attribute of a type, nil if absent.
func nested(b []byte, kind uint16) ([]byte, error) {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		if a.Attr.Type&nlaTypeMask == kind {
			return a.Value, nil
		}
	}
	return nil, nil
}
