package curve

import (
	"context"
	"errors"
	"time"

	"slipway/lab/bench/load"
)

// What stands before the payload of a UDP datagram (RFC 791 §3.1, RFC 768).
const udpHeaders = 20 + 8

var size = &kind{
	name: "size", title: "Datagrams of growing size", unit: "bytes of IP packet", param: "packet", suffix: "B",
	lines: []string{"flannel-host-gw", "flannel-vxlan", "flannel-udp/batched"}, points: []int{64, 128, 256, 512, 1024, 1280, 1450, 1500},
	low: udpHeaders + 16, high: 9000, // the smallest has room for the generator's stamp
	line: isVariant, control: "flannel-host-gw", main: []string{load.PacketRate}, open: openSize, patience: time.Minute,
	notes: []string{
		"Datagrams go as fast as one sender can, in one direction; packets are those that arrived, throughput is their payload. Sizes are of the pods' IP packets, without the tunnel's headers.",
		"What is larger than a mode's MTU would be sent in fragments and is left out there.",
	},
}

func openSize(ctx context.Context, o *Options) (c *curve, err error) {
	var nets networks
	c = &curve{close: nets.down}
	defer func() {
		if err != nil {
			err = errors.Join(err, nets.down(ctx))
		}
	}()
	for _, line := range o.Lines {
		o.Progress.Phase("size: lab of "+line, 0)
		v, err := variantOf(line)
		if err != nil {
			return c, err
		}
		n, err := nets.add(line)
		if err != nil {
			return c, err
		}
		p, _, err := n.pair(ctx, networkOf(v, ""))
		if err != nil {
			return c, err
		}
		for _, bytes := range o.Points {
			if bytes > p.nature.MTU {
				continue
			}
			c.cells = append(c.cells, &cell{line: line, point: bytes, measure: func(ctx context.Context) ([]reading, error) {
				j := p.job(o, load.UDPPackets)
				j.Size = bytes - udpHeaders
				f, err := load.Native{}.Run(ctx, j)
				if err != nil {
					return nil, err
				}
				figures := load.Figures{
					load.PacketRate: f[load.PacketRate], load.Loss: f[load.Loss],
					load.Throughput: f[load.PacketRate] * float64(j.Size) * 8,
				}
				return []reading{{load.UDPPackets, "other-node", "pod", p.nature, figures}}, nil
			}})
		}
	}
	if len(c.cells) == 0 {
		return c, &OptionError{"all packets are larger than the MTU of all modes"}
	}
	return c, nil
}
