package linux

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
)

// IFLA_EXT_MASK's bit that leaves statistics out, which nobody asked for
// (linux include/uapi/linux/rtnetlink.h, RTEXT_FILTER_SKIP_STATS).
const skipStats = 1 << 3

// What the vendored tables lack (linux include/uapi/linux/if_link.h).
const (
	ifInfoLen          = 16 // struct ifinfomsg
	brNFCallIPTables   = 36 // IFLA_BR_NF_CALL_IPTABLES
	inetConf           = 1  // IFLA_INET_CONF
	xdpAttached        = 2  // IFLA_XDP_ATTACHED
	portStateForwarded = 3  // BR_STATE_FORWARDING
)

// links reads the devices. Their IPv4 settings come with them, as IFLA_AF_SPEC,
// which spares a file of /proc per device and setting.
func (c *collection) links() error {
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETLINK, vnl.NewIfInfomsg(unix.AF_UNSPEC),
		vnl.NewRtAttr(unix.IFLA_EXT_MASK, vnl.Uint32Attr(skipStats)))
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var masters []int
	for _, m := range messages {
		attrs, err := body(m, ifInfoLen)
		if err != nil {
			return fmt.Errorf("list links: %w", err)
		}
		d := datapath.Device{Index: int(u32(m[4:])), PeerNSID: -1}
		master := deviceAttrs(&d, u32(m[8:]), attrs)
		c.names[d.Index] = d.Name
		c.st.Devices = append(c.st.Devices, d)
		masters = append(masters, master)
	}
	for i, m := range masters {
		d := &c.st.Devices[i]
		d.Master = c.device(m)
		if d.VXLAN != nil {
			d.VXLAN.Device = c.device(d.PeerIndex)
		}
		if d.Kind != "veth" && d.Kind != "netkit" { // others name a lower device there
			d.PeerIndex, d.PeerNSID = 0, -1
		}
	}
	return nil
}

// deviceAttrs fills in what one message says and returns the master's index.
func deviceAttrs(d *datapath.Device, flags uint32, attrs []byte) (master int) {
	d.Up, d.Carrier = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	d.NoARP, d.Promisc = flags&unix.IFF_NOARP != 0, flags&unix.IFF_PROMISC != 0
	d.Kind = "device"
	if flags&unix.IFF_LOOPBACK != 0 {
		d.Kind = "loopback"
	}
	for kind, v := range attributes(attrs) {
		switch kind {
		case unix.IFLA_IFNAME:
			d.Name = text(v)
		case unix.IFLA_MTU:
			d.MTU = int(u32(v))
		case unix.IFLA_ADDRESS:
			if len(v) == 6 {
				d.MAC = mac(v)
			}
		case unix.IFLA_MASTER:
			master = int(u32(v))
		case unix.IFLA_LINK:
			d.PeerIndex = int(u32(v))
		case unix.IFLA_LINK_NETNSID:
			d.PeerNSID = int(int32(u32(v)))
		case unix.IFLA_LINKINFO:
			linkInfo(d, v)
		case unix.IFLA_AF_SPEC:
			d.Conf = inetConfOf(v)
		case unix.IFLA_XDP:
			for k, x := range attributes(v) {
				if k == xdpAttached && u8(x) != 0 {
					d.Ingress = append(d.Ingress, "xdp")
				}
			}
		}
	}
	return master
}

func linkInfo(d *datapath.Device, info []byte) {
	slave := ""
	for kind, v := range attributes(info) {
		switch kind {
		case vnl.IFLA_INFO_KIND:
			d.Kind = text(v)
		case vnl.IFLA_INFO_SLAVE_KIND:
			slave = text(v)
		case vnl.IFLA_INFO_SLAVE_DATA:
			if slave == "bridge" {
				d.Port = bridgePort(v)
			}
		case vnl.IFLA_INFO_DATA:
			switch d.Kind { // which comes first
			case "vxlan":
				d.VXLAN, d.PeerIndex = vxlanAttrs(v)
			case "bridge":
				d.Bridge = bridgeAttrs(v)
			case "tun":
				for k, x := range attributes(v) {
					if k == vnl.IFLA_TUN_TYPE {
						d.Kind = netlink.TuntapMode(u8(x)).String()
					}
				}
			}
		}
	}
}

// vxlanAttrs leaves naming the underlay device to whoever knows all names.
func vxlanAttrs(data []byte) (x *datapath.VXLANAttrs, underlay int) {
	x = &datapath.VXLANAttrs{}
	for kind, v := range attributes(data) {
		switch kind {
		case vnl.IFLA_VXLAN_ID:
			x.VNI = int(u32(v))
		case vnl.IFLA_VXLAN_PORT:
			x.Port = int(be16(v))
		case vnl.IFLA_VXLAN_LOCAL:
			x.Local = ipv4(v)
		case vnl.IFLA_VXLAN_LEARNING:
			x.Learning = u8(v) != 0
		case vnl.IFLA_VXLAN_FLOWBASED:
			x.External = u8(v) != 0
		case vnl.IFLA_VXLAN_LINK:
			underlay = int(u32(v))
		}
	}
	return x, underlay
}

func bridgeAttrs(data []byte) *datapath.BridgeAttrs {
	b := &datapath.BridgeAttrs{}
	for kind, v := range attributes(data) {
		switch kind {
		case vnl.IFLA_BR_VLAN_FILTERING:
			b.VLANFiltering = u8(v) != 0
		case vnl.IFLA_BR_STP_STATE:
			b.STP = u32(v) != 0
		case brNFCallIPTables:
			b.CallIPTables = u8(v) != 0
		}
	}
	return b
}

// portStates are named by BR_STATE_… (linux include/uapi/linux/if_bridge.h).
var portStates = []string{"disabled", "listening", "learning", "forwarding", "blocking"}

func bridgePort(data []byte) *datapath.BridgePort {
	p := &datapath.BridgePort{State: portStates[portStateForwarded]}
	for kind, v := range attributes(data) {
		switch kind {
		case vnl.IFLA_BRPORT_STATE:
			p.State = fmt.Sprintf("state-%d", u8(v))
			if int(u8(v)) < len(portStates) {
				p.State = portStates[u8(v)]
			}
		case vnl.IFLA_BRPORT_MODE:
			p.Hairpin = u8(v) != 0
		case vnl.IFLA_BRPORT_LEARNING:
			p.Learning = u8(v) != 0
		case vnl.IFLA_BRPORT_UNICAST_FLOOD:
			p.Flood = u8(v) != 0
		case vnl.IFLA_BRPORT_ISOLATED:
			p.Isolated = u8(v) != 0
		}
	}
	return p
}

// Where a device's settings stand in IFLA_INET_CONF (linux
// include/uapi/linux/ip.h, IPV4_DEVCONF_…, counted from 1).
const (
	confForwarding   = 1
	confProxyARP     = 3
	confRPFilter     = 8
	confARPIgnore    = 19
	confAcceptLocal  = 23
	confSrcValidMark = 24
	confRouteLocal   = 26
)

func inetConfOf(afSpec []byte) datapath.DeviceConf {
	var values []byte
	for family, v := range attributes(afSpec) {
		if family != unix.AF_INET {
			continue
		}
		for kind, x := range attributes(v) {
			if kind == inetConf {
				values = x
			}
		}
	}
	at := func(i int) int {
		if len(values) < 4*i {
			return 0
		}
		return int(int32(binary.NativeEndian.Uint32(values[4*(i-1):])))
	}
	return datapath.DeviceConf{
		Forwarding: at(confForwarding), RPFilter: at(confRPFilter), ProxyARP: at(confProxyARP),
		AcceptLocal: at(confAcceptLocal), RouteLocal: at(confRouteLocal), ARPIgnore: at(confARPIgnore),
		SrcValidMark: at(confSrcValidMark),
	}
}

const ifAddrLen = 8 // struct ifaddrmsg

func (c *collection) addresses() error {
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETADDR, raw([]byte{unix.AF_INET, 0, 0, 0, 0, 0, 0, 0}))
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, ifAddrLen)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		var local, peer netip.Addr
		for kind, v := range attributes(attrs) {
			switch kind {
			case unix.IFA_LOCAL:
				local = ipv4(v)
			case unix.IFA_ADDRESS: // the other end's on a point-to-point device
				peer = ipv4(v)
			}
		}
		if !local.IsValid() {
			local = peer
		}
		if d := c.st.DeviceByIndex(int(u32(m[4:]))); d != nil && local.IsValid() {
			d.Addresses = append(d.Addresses, netip.PrefixFrom(local, int(m[1])))
		}
	}
	return nil
}
