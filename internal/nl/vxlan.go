package nl

import (
	"encoding/binary"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// iflaVXLANGPE makes a VXLAN device one of the generic protocol extension, which
// carries IP packets without Ethernet (linux include/uapi/linux/if_link.h,
// IFLA_VXLAN_GPE). The netlink library does not know it.
const iflaVXLANGPE = 27

// AddExternalGPE makes, in the namespace that the calling thread is in, the
// device of
//
//	ip link add NAME mtu MTU type vxlan gpe external dstport PORT
//
// It receives the packets of every VNI from every sender, and sends only what a
// program or a route tells it where to.
func AddExternalGPE(name string, mtu, port int) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if mtu != 0 {
		req.AddData(nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(mtu)))) //nolint:gosec // checked by the cluster file
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("vxlan"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	data.AddRtAttr(nl.IFLA_VXLAN_FLOWBASED, []byte{1})
	data.AddRtAttr(nl.IFLA_VXLAN_LEARNING, []byte{0})
	data.AddRtAttr(nl.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, uint16(port))) //nolint:gosec // checked by the cluster file
	data.AddRtAttr(iflaVXLANGPE, nil)
	req.AddData(info)
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("add VXLAN-GPE device %s: %w", name, err)
	}
	return nil
}
