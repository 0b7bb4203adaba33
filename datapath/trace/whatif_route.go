package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slipway/datapath"
)

// mainTable is the routing table that `ip route` means unless told otherwise
// (linux include/uapi/linux/rtnetlink.h, RT_TABLE_MAIN).
const mainTable = 254

// routeTypes are those that an edit can add beside unicast.
var routeTypes = []string{"blackhole", "unreachable", "prohibit"}

// parseAddRoute reads what comes after "add route".
func parseAddRoute(w *words) (Edit, error) {
	isSpec := func(s string) bool { _, ok := parsePrefix(s); return ok || slices.Contains(routeTypes, s) }
	place, err := w.optionalPlace(isSpec)
	if err != nil {
		return Edit{}, err
	}
	r := datapath.FIBRoute{Table: mainTable, Type: "unicast", Protocol: datapath.ProtoBoot, Scope: "link"}
	for _, t := range routeTypes {
		if w.is(t) {
			r.Type, r.Scope = t, "global"
		}
	}
	if r.Dst, err = w.prefix(); err != nil {
		return Edit{}, err
	}
	for w.more() {
		if err := routeOption(w, &r); err != nil {
			return Edit{}, err
		}
	}
	switch {
	case r.Type == "unicast" && !r.Via.IsValid() && r.Dev == "":
		return Edit{}, w.bad("via ADDRESS or dev DEVICE")
	case r.Type != "unicast" && (r.Via.IsValid() || r.Dev != ""):
		return Edit{}, fmt.Errorf("a %s route leads nowhere: it has neither via nor dev", r.Type)
	}
	r.Text = printRoute(r)
	return Edit{place: place, state: func(c *editing) error { return c.addRoute(r) }}, nil
}

// routeOption reads one option of `ip route add`.
func routeOption(w *words, r *datapath.FIBRoute) error {
	option, err := w.choose("via", "dev", "src", "metric", "onlink")
	if err != nil {
		return err
	}
	switch option {
	case "via":
		r.Scope = "global"
		r.Via, err = w.address()
	case "dev":
		r.Dev, err = w.take("a device")
	case "src":
		r.Src, err = w.address()
	case "metric":
		r.Priority, err = w.number("a metric", 0, 1<<31-1)
	case "onlink":
		r.Onlink = true
	}
	return err
}

// printRoute is a route as `ip route` prints it.
func printRoute(r datapath.FIBRoute) string {
	var b strings.Builder
	if r.Type != "unicast" {
		b.WriteString(r.Type + " ")
	}
	b.WriteString(printPrefix(r.Dst))
	if r.Via.IsValid() {
		b.WriteString(" via " + r.Via.String())
	}
	if r.Dev != "" {
		b.WriteString(" dev " + r.Dev)
	}
	if r.Scope == "link" {
		b.WriteString(" scope link")
	}
	if r.Src.IsValid() {
		b.WriteString(" src " + r.Src.String())
	}
	if r.Priority != 0 {
		fmt.Fprintf(&b, " metric %d", r.Priority)
	}
	if r.Onlink {
		b.WriteString(" onlink")
	}
	return b.String()
}

// printPrefix is a destination as `ip route` prints it.
func printPrefix(p netip.Prefix) string {
	switch p.Bits() {
	case 0:
		return "default"
	case 32:
		return p.Addr().String()
	}
	return p.String()
}

// addRoute does what `ip route add` does, refusals too.
func (c *editing) addRoute(r datapath.FIBRoute) error {
	for _, old := range c.Routes {
		if old.Table == r.Table && old.Dst == r.Dst && old.TOS == r.TOS && old.Priority == r.Priority {
			return fmt.Errorf("%s has a route to %s already (%s): delete it first", c.place.Label, printPrefix(r.Dst), old.Text)
		}
	}
	if r.Type == "unicast" {
		if err := c.resolve(&r); err != nil {
			return err
		}
	}
	c.Routes = append(c.Routes, r)
	return nil
}

// resolve finds the device of a route's next hop, which must be a neighbour.
func (c *editing) resolve(r *datapath.FIBRoute) error {
	if r.Dev != "" {
		d, err := c.device(r.Dev)
		if err != nil {
			return err
		}
		if !d.Up {
			return fmt.Errorf("%s of %s is down", r.Dev, c.place.Label)
		}
	}
	if !r.Via.IsValid() || r.Onlink {
		return nil
	}
	best := -1
	var dev string
	for _, have := range c.Routes {
		direct := have.Table == mainTable && have.Type == "unicast" && !have.Via.IsValid() && have.Dev != ""
		if direct && have.Dst.Contains(r.Via) && have.Dst.Bits() > best && (r.Dev == "" || have.Dev == r.Dev) {
			best, dev = have.Dst.Bits(), have.Dev
		}
	}
	if best < 0 {
		return fmt.Errorf("%s reaches no next hop %s directly (the kernel says: Nexthop has invalid gateway)", c.place.Label, r.Via)
	}
	if r.Dev == "" {
		r.Dev = dev
		r.Text = printRoute(*r)
	}
	return nil
}

// parseDeleteRoute reads what comes after "delete route".
func parseDeleteRoute(w *words) (Edit, error) {
	place, err := w.optionalPlace(func(s string) bool { _, ok := parsePrefix(s); return ok })
	if err != nil {
		return Edit{}, err
	}
	dst, err := w.prefix()
	if err != nil {
		return Edit{}, err
	}
	return Edit{place: place, state: func(c *editing) error {
		var have []string
		for _, r := range c.Routes {
			if r.Table == mainTable {
				have = append(have, printPrefix(r.Dst))
			}
		}
		was := len(c.Routes)
		c.Routes = slices.DeleteFunc(c.Routes, func(r datapath.FIBRoute) bool { return r.Table == mainTable && r.Dst == dst })
		if len(c.Routes) == was {
			return c.missing("route to "+printPrefix(dst), have)
		}
		return nil
	}}, nil
}

// parseDeleteNeighbor reads what comes after "delete neighbor".
func parseDeleteNeighbor(w *words) (Edit, error) {
	place, err := w.optionalPlace(func(s string) bool { _, err := netip.ParseAddr(s); return err == nil })
	if err != nil {
		return Edit{}, err
	}
	a, err := w.address()
	if err != nil {
		return Edit{}, err
	}
	return Edit{
		place: place,
		note:  "ARP may find " + a.String() + " again, where the device does ARP and somebody answers",
		state: func(c *editing) error {
			var have []string
			for _, n := range c.Neighbors {
				have = append(have, n.Address.String())
			}
			was := len(c.Neighbors)
			c.Neighbors = slices.DeleteFunc(c.Neighbors, func(n datapath.NeighborState) bool { return n.Address == a })
			if len(c.Neighbors) == was {
				return c.missing("neighbour "+a.String(), have)
			}
			return nil
		},
	}, nil
}

// parseDeleteFDB reads what comes after "delete fdb".
func parseDeleteFDB(w *words) (Edit, error) {
	place, err := w.optionalPlace(isMAC)
	if err != nil {
		return Edit{}, err
	}
	mac, err := w.take("a MAC address")
	if err == nil && !isMAC(mac) {
		w.next--
		err = w.bad("a MAC address such as 02:17:6c:75:45:88")
	}
	if err != nil {
		return Edit{}, err
	}
	return Edit{place: place, state: func(c *editing) error {
		var have []string
		for _, f := range c.FDB {
			if !f.Local {
				have = append(have, f.MAC)
			}
		}
		was := len(c.FDB)
		c.FDB = slices.DeleteFunc(c.FDB, func(f datapath.FDBState) bool { return strings.EqualFold(f.MAC, mac) && !f.Local })
		if len(c.FDB) == was {
			return c.missing("forwarding entry of "+mac, have)
		}
		return nil
	}}, nil
}
