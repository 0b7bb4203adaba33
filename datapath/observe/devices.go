package observe

import (
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
)

// Device is a network device of a place.
type Device struct {
	Name        string
	Index       int
	LinkType    LinkType
	Description string // its kind and addresses
}

// Devices lists the devices of a place as they are now.
func Devices(p Place) ([]Device, error) {
	h, err := nl.At(p.NS)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	links, err := nl.Dump(h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices of %s: %w", p.Label, err)
	}
	addrs, err := nl.Dump(func() ([]netlink.Addr, error) { return h.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", p.Label, err)
	}
	of := map[int][]string{}
	for _, a := range addrs {
		of[a.LinkIndex] = append(of[a.LinkIndex], a.IPNet.String())
	}
	var out []Device
	for _, l := range links {
		a := l.Attrs()
		out = append(out, Device{
			Name: a.Name, Index: a.Index, LinkType: encapLinkType(a.EncapType),
			Description: strings.Join(append([]string{l.Type()}, of[a.Index]...), " "),
		})
	}
	return out, nil
}

// encapLinkType maps the names that netlink (nl.IfInfomsg.EncapType) gives the
// hardware types of linkType.
func encapLinkType(name string) LinkType {
	switch name {
	case "none", "ipip", "gre", "ppp", "unknown519": // 519 is ARPHRD_RAWIP
		return LinkRaw
	default:
		return LinkEthernet
	}
}
