package trace

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"slipway/datapath"
	"slipway/topology"
)

// parseNode reads "node NAME down".
func parseNode(w *words) (Edit, error) {
	name, err := w.take("a node's name")
	if err != nil {
		return Edit{}, err
	}
	if _, err := w.choose("down"); err != nil {
		return Edit{}, err
	}
	on := func(p Place) bool { return !p.Wire && (p.Label == name || p.Node == name) }
	return Edit{
		note: name + " has only just died: routes that others learnt from it by BGP are still there (its peers' hold timers " +
			"run), and so are its pods among the services' endpoints (Kubernetes takes them out after about 40 s)",
		check: func(s *topology.Snapshot) error {
			if _, ok := s.NodeByName(name); !ok {
				return fmt.Errorf("there is no node %q", name)
			}
			return nil
		},
		state: func(c *editing) error {
			if on(c.place) {
				for i := range c.Devices {
					c.takeDown(&c.Devices[i])
				}
			}
			return nil
		},
		cut: func(far Place, _ string) bool { return on(far) },
	}, nil
}

// parseLink reads "link NODE DEVICE up|down".
func parseLink(w *words) (Edit, error) {
	place, err := w.take("a node")
	if err != nil {
		return Edit{}, err
	}
	device, err := w.take("a device")
	if err != nil {
		return Edit{}, err
	}
	to, err := w.choose("up", "down")
	if err != nil {
		return Edit{}, err
	}
	e := Edit{place: place, state: func(c *editing) error {
		d, err := c.device(device)
		if err != nil {
			return err
		}
		if to == "down" {
			c.takeDown(d)
			return nil
		}
		d.Up, d.Carrier = true, true
		if d.Port != nil {
			d.Port.State = portForwarding
		}
		return nil
	}}
	if to == "up" {
		e.note = "the other end of " + device + " is up; routes that were lost when it went down do not come back by themselves"
		return e, nil
	}
	e.cut = func(far Place, d string) bool { return far.Label == place && d == device }
	return e, nil
}

// parseSegment reads "segment NAME down".
func parseSegment(w *words) (Edit, error) {
	name, err := w.take("a segment's name")
	if err != nil {
		return Edit{}, err
	}
	if _, err := w.choose("down"); err != nil {
		return Edit{}, err
	}
	return Edit{
		note: "segment " + name + " is a switch without power: every machine on it loses the carrier",
		check: func(s *topology.Snapshot) error {
			if _, ok := s.SegmentByName(name); !ok {
				return fmt.Errorf("there is no segment %q", name)
			}
			return nil
		},
		state: func(c *editing) error {
			for _, leg := range legs(c.cluster, c.place.Label, name) {
				if d := c.Device(leg); d != nil {
					c.loseCarrier(d)
				}
			}
			return nil
		},
	}, nil
}

// legs lists the devices by which a machine is in a segment.
func legs(s *topology.Snapshot, machine, segment string) []string {
	if machine == externalPlace && s.Segments[0].Name == segment { // where the lab puts the client
		return []string{"eth0"}
	}
	if n, ok := s.NodeByName(machine); ok && n.Interface.Segment == segment {
		return []string{n.Interface.Name}
	}
	var out []string
	for _, r := range s.Routers {
		for _, i := range r.Interfaces {
			if r.Name == machine && i.Segment == segment {
				out = append(out, i.Name)
			}
		}
	}
	return out
}

// parseMTU reads "mtu NODE DEVICE BYTES".
func parseMTU(w *words) (Edit, error) {
	place, err := w.take("a node")
	if err != nil {
		return Edit{}, err
	}
	device, err := w.take("a device")
	if err != nil {
		return Edit{}, err
	}
	// RFC 791 §3.2: every link carries 68 bytes; an IP packet has at most 65535.
	n, err := w.number("an MTU in bytes", 68, 65535)
	if err != nil {
		return Edit{}, err
	}
	return Edit{place: place, state: func(c *editing) error {
		d, err := c.device(device)
		if err == nil {
			d.MTU = n
		}
		return err
	}}, nil
}

// device finds a device of the edited namespace.
func (c *editing) device(name string) (*datapath.Device, error) {
	if d := c.Device(name); d != nil {
		return d, nil
	}
	have := make([]string, len(c.Devices))
	for i, d := range c.Devices {
		have[i] = d.Name
	}
	return nil, fmt.Errorf("%s has no device %s; it has %s", c.place.Label, name, strings.Join(have, ", "))
}

// States of a bridge port (linux include/uapi/linux/if_bridge.h, BR_STATE_…).
const (
	portDisabled   = "disabled"
	portForwarding = "forwarding"
)

// loseCarrier does what the kernel does when a wire's other end dies: a bridge
// stops using the port and forgets what it learnt there (net/bridge/br_stp_if.c,
// br_stp_disable_port). Routes stay.
func (c *editing) loseCarrier(d *datapath.Device) {
	d.Carrier = false
	if d.Port == nil {
		return
	}
	d.Port.State = portDisabled
	name := d.Name
	c.FDB = slices.DeleteFunc(c.FDB, func(f datapath.FDBState) bool {
		return f.Dev == name && f.Master != "" && !f.Local
	})
}

// takeDown does what the kernel does when a device is set down: its routes and
// neighbours are gone, but the addresses stay the host's own
// (net/ipv4/fib_frontend.c, fib_disable_ip; net/core/neighbour.c, neigh_ifdown).
func (c *editing) takeDown(d *datapath.Device) {
	c.loseCarrier(d)
	d.Up = false
	c.forgetDevice(d.Name, func(r datapath.FIBRoute) bool { return r.Type == "local" })
}

// forgetDevice removes routes and neighbours of a device, less the routes that
// stay.
func (c *editing) forgetDevice(name string, stays func(datapath.FIBRoute) bool) {
	c.Routes = slices.DeleteFunc(c.Routes, func(r datapath.FIBRoute) bool { return r.Dev == name && !stays(r) })
	for i := range c.Routes {
		c.Routes[i].NextHops = slices.DeleteFunc(c.Routes[i].NextHops, func(h datapath.NextHop) bool { return h.Dev == name })
	}
	c.Routes = slices.DeleteFunc(c.Routes, func(r datapath.FIBRoute) bool {
		return r.Dev == "" && r.NextHops != nil && len(r.NextHops) == 0
	})
	c.Neighbors = slices.DeleteFunc(c.Neighbors, func(n datapath.NeighborState) bool { return n.Dev == name })
}

// parseSysctl reads "sysctl [NODE] KEY=VALUE".
func parseSysctl(w *words) (Edit, error) {
	place, err := w.optionalPlace(func(s string) bool { return strings.Contains(s, "=") })
	if err != nil {
		return Edit{}, err
	}
	key, value, ok := strings.Cut(w.peek(), "=")
	if !ok || key == "" || value == "" {
		return Edit{}, w.bad("KEY=VALUE such as net.ipv4.ip_forward=0")
	}
	conf, device, field := splitConf(key)
	number, numErr := strconv.Atoi(value)
	if conf && numErr != nil {
		return Edit{}, w.bad("a number after =")
	}
	w.next++
	path := strings.ReplaceAll(key, ".", "/")
	return Edit{place: place, state: func(c *editing) error {
		if path == "net/ipv4/ip_forward" {
			device, field, conf = "all", "forwarding", true
		}
		if conf {
			return c.setConf(device, field, number)
		}
		if _, ok := c.Sysctls[path]; !ok {
			return fmt.Errorf("no prediction depends on %s", key)
		}
		c.Sysctls[path] = value
		return nil
	}}, nil
}

// splitConf takes net.ipv4.conf.DEVICE.FIELD apart, whether dots or slashes
// separate; DEVICE may hold dots itself.
func splitConf(key string) (ok bool, device, field string) {
	for _, sep := range []string{".", "/"} {
		rest, ok := strings.CutPrefix(key, strings.Join([]string{"net", "ipv4", "conf", ""}, sep))
		if !ok {
			continue
		}
		if i := strings.LastIndex(rest, sep); i > 0 {
			device = rest[:i]
			if sep == "." {
				device = strings.ReplaceAll(device, "/", ".") // sysctl(8) writes eth0/100 for eth0.100
			}
			return true, device, rest[i+1:]
		}
	}
	return false, "", ""
}

// setConf sets net/ipv4/conf/DEVICE/FIELD. Forwarding of "all" is every
// device's (net/ipv4/devinet.c, inet_forward_change).
func (c *editing) setConf(device, field string, value int) error {
	set := confField(field)
	if set == nil {
		return fmt.Errorf("no prediction depends on net/ipv4/conf/%s/%s", device, field)
	}
	switch device {
	case "all":
		set(&c.All, value)
		if field != "forwarding" {
			return nil
		}
		set(&c.Default, value)
		for i := range c.Devices {
			set(&c.Devices[i].Conf, value)
		}
		if c.Sysctls != nil {
			c.Sysctls["net/ipv4/ip_forward"] = strconv.Itoa(value)
		}
	case "default":
		set(&c.Default, value)
	default:
		d, err := c.device(device)
		if err != nil {
			return err
		}
		set(&d.Conf, value)
	}
	return nil
}

// confField finds how to set a field of net/ipv4/conf; nil if it is not one
// that a prediction looks at.
func confField(name string) func(*datapath.DeviceConf, int) {
	switch name {
	case "forwarding":
		return func(c *datapath.DeviceConf, v int) { c.Forwarding = v }
	case "rp_filter":
		return func(c *datapath.DeviceConf, v int) { c.RPFilter = v }
	case "proxy_arp":
		return func(c *datapath.DeviceConf, v int) { c.ProxyARP = v }
	case "accept_local":
		return func(c *datapath.DeviceConf, v int) { c.AcceptLocal = v }
	case "route_localnet":
		return func(c *datapath.DeviceConf, v int) { c.RouteLocal = v }
	case "arp_ignore":
		return func(c *datapath.DeviceConf, v int) { c.ARPIgnore = v }
	case "src_valid_mark":
		return func(c *datapath.DeviceConf, v int) { c.SrcValidMark = v }
	}
	return nil
}
