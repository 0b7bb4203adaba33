package udptun

import "encoding/binary"

// struct virtio_net_hdr (linux include/uapi/linux/virtio_net.h), which precedes
// each packet on a TUN opened with IFF_VNET_HDR.
const (
	vnetLen = 10

	vnetNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone = 0    // VIRTIO_NET_HDR_GSO_NONE
	gsoTCP4 = 1    // VIRTIO_NET_HDR_GSO_TCPV4
	gsoUDP  = 5    // VIRTIO_NET_HDR_GSO_UDP_L4
	gsoECN  = 0x80 // VIRTIO_NET_HDR_GSO_ECN: the first segment carries CWR
)

// vnetHeader is a decoded struct virtio_net_hdr.
type vnetHeader struct {
	flags, gso                  byte
	hdrLen, gsoSize             uint16
	checksumStart, checksumOffs uint16
}

func parseVnet(b []byte) vnetHeader {
	ne := binary.NativeEndian
	return vnetHeader{
		flags: b[0], gso: b[1], hdrLen: ne.Uint16(b[2:]), gsoSize: ne.Uint16(b[4:]),
		checksumStart: ne.Uint16(b[6:]), checksumOffs: ne.Uint16(b[8:]),
	}
}

func (v vnetHeader) put(b []byte) {
	ne := binary.NativeEndian
	b[0], b[1] = v.flags, v.gso
	ne.PutUint16(b[2:], v.hdrLen)
	ne.PutUint16(b[4:], v.gsoSize)
	ne.PutUint16(b[6:], v.checksumStart)
	ne.PutUint16(b[8:], v.checksumOffs)
}

// finishChecksum completes the checksum that the kernel left to the device: the
// field holds the pseudo-header's sum already. False if it does not lie in p.
func finishChecksum(v vnetHeader, p []byte) bool {
	if v.flags&vnetNeedsCsum == 0 {
		return true
	}
	start := int(v.checksumStart)
	field := start + int(v.checksumOffs)
	if start > len(p) || field+2 > len(p) {
		return false
	}
	c := ^fold(sum(0, p[start:]))
	if p[offProto] == protoUDP {
		putUDPSum(p[field:], c)
	} else {
		putSum(p[field:], c)
	}
	return true
}
