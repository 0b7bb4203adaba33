package preflight

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slipway/installer/facts"
	"slipway/topology"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// twin is the first of the others of which something is the same.
func (j *judge) twin(n topology.NodeState, same func(o facts.Facts) bool) (string, bool) {
	for _, o := range j.others(n) {
		if same(j.facts[o.Name]) {
			return o.Name, true
		}
	}
	return "", false
}

func checkHostname(j *judge, n topology.NodeState, f facts.Facts) {
	if other, ok := j.twin(n, func(o facts.Facts) bool { return o.Hostname == f.Hostname }); ok {
		j.fail("hostnamectl set-hostname "+n.Name, "its host name is %s, and so is that of %s", f.Hostname, other)
	}
}

const newMachineID = "rm /etc/machine-id && systemd-machine-id-setup, and reboot: a copied disk has that of its original"

func checkMachineID(j *judge, n topology.NodeState, f facts.Facts) {
	if f.MachineID == "" {
		j.fail("systemd-machine-id-setup", "/etc/machine-id is missing or empty")
		return
	}
	if other, ok := j.twin(n, func(o facts.Facts) bool { return o.MachineID == f.MachineID }); ok {
		j.fail(newMachineID, "its machine-id is %s, and so is that of %s", f.MachineID, other)
	}
}

func checkProductUUID(j *judge, n topology.NodeState, f facts.Facts) {
	if f.ProductUUID == "" || f.Shared {
		return
	}
	if other, ok := j.twin(n, func(o facts.Facts) bool { return !o.Shared && o.ProductUUID == f.ProductUUID }); ok {
		j.fail("give the copied machine a UUID of its own in its hypervisor", "its product_uuid is %s, and so is that of %s", f.ProductUUID, other)
	}
}

// wire is the device that has the machine's address, and the address there.
func wire(f facts.Facts, a netip.Addr) (facts.Link, netip.Prefix, bool) {
	for _, l := range f.Links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return l, p, true
			}
		}
	}
	return facts.Link{}, netip.Prefix{}, false
}

// checkMAC looks at network cards, and at the device of the machine's address,
// whatever it is: bridges and tunnels may have the same on all machines.
func checkMAC(j *judge, n topology.NodeState, f facts.Facts) {
	for _, l := range cards(n, f) {
		for _, o := range j.others(n) {
			for _, ol := range cards(o, j.facts[o.Name]) {
				if l.MAC != "" && ol.MAC == l.MAC {
					j.fail("give the copied machine's card a MAC of its own in its hypervisor", "%s has the MAC %s, and so has %s of %s", l.Name, l.MAC, ol.Name, o.Name)
				}
			}
		}
	}
}

func cards(n topology.NodeState, f facts.Facts) (out []facts.Link) {
	own, _, _ := wire(f, n.Interface.Prefix.Addr())
	for _, l := range f.Links {
		if l.Physical || l.Name == own.Name {
			out = append(out, l)
		}
	}
	return out
}

func checkOwnAddress(j *judge, n topology.NodeState, f facts.Facts) {
	want := n.Interface.Prefix
	l, p, ok := wire(f, want.Addr())
	switch {
	case !ok:
		j.fail("give it that address, or write its own into the cluster file", "it does not have the address %s, which the cluster file gives it; it has %s", want.Addr(), addresses(f))
	case !l.Up:
		j.fail("ip link set "+l.Name+" up", "%s, which has its address, is down", l.Name)
	case p.Bits() != want.Bits():
		j.warn("make one of them the other: by its prefix a machine knows whom it reaches without a router", "its address is %s, and the segment's prefix is /%d", p, want.Bits())
	}
}

// addresses are those of a machine that others could use.
func addresses(f facts.Facts) string {
	var out []string
	for _, l := range f.Links {
		for _, p := range l.Addresses {
			if p.Addr().Is4() && !p.Addr().IsLoopback() {
				out = append(out, p.Addr().String())
			}
		}
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, ", ")
}

func checkUniqueAddress(j *judge, n topology.NodeState, f facts.Facts) {
	for _, o := range j.nodes {
		a := o.Interface.Prefix.Addr()
		if l, _, ok := wire(f, a); ok && o.Name != n.Name {
			j.fail("take it off this machine", "it has %s on %s, which is the address of %s", a, l.Name, o.Name)
		}
	}
	if vip := j.in.Cluster.Spec.ControlPlane.LoadBalancer.VIP; vip.IsValid() && !n.HasRole(topology.RoleLoadBalancer) {
		if l, _, ok := wire(f, vip); ok {
			j.fail("take it off this machine", "it has %s on %s, which is the balancers' virtual address", vip, l.Name)
		}
	}
}

func checkMTU(j *judge, n topology.NodeState, f facts.Facts) {
	l, _, ok := wire(f, n.Interface.Prefix.Addr())
	g, found := j.in.Snapshot.SegmentByName(n.Interface.Segment)
	if !ok || !found {
		return
	}
	if l.MTU < g.MTU {
		j.fail("ip link set "+l.Name+" mtu, or write the smaller one into the cluster file: packets of pods would be too large for it",
			"%s has an MTU of %d, and segment %s one of %d", l.Name, l.MTU, g.Name, g.MTU)
	}
}

func checkRoute(j *judge, n topology.NodeState, f facts.Facts) {
	services := j.in.Snapshot.Network.ServiceCIDR.Masked().Addr().Next()
	if !j.proxied(n) || slices.ContainsFunc(f.Routes, func(r facts.Route) bool { return r.Dst.Contains(services) }) {
		return
	}
	j.fail("ip route add default via its router", "there is no route to %s, as a default route would be", services)
}

// Clocks: etcd complains of members more than a second apart (etcd
// server/etcdserver/api/rafthttp/probing_status.go, "high clock drift"), and
// certificates are valid from five minutes before they are made (installer/pki).
const (
	apart  = time.Second
	tooFar = 4 * time.Minute
)

const setClock = "run chrony or systemd-timesyncd on all machines"

func checkTime(j *judge, n topology.NodeState, f facts.Facts) {
	far := func(d, within time.Duration) time.Duration { return max(d, -d) - within } // at least
	if far(f.Time.Skew, f.Time.Within) > tooFar {
		j.fail(setClock+", also on this one: certificates are made by the operator's clock", "its clock is %s from the operator's", f.Time.Skew.Round(time.Second))
		return
	}
	for _, o := range j.others(n) {
		t := j.facts[o.Name].Time
		if d := f.Time.Skew - t.Skew; far(d, f.Time.Within+t.Within) > apart {
			j.warn(setClock, "its clock is %s from that of %s", d.Round(100*time.Millisecond), o.Name)
			return
		}
	}
	if f.Time.Synchronized == "no" && !f.Shared {
		j.warn(setClock, "nothing keeps its clock right")
	}
}

func checkZone(j *judge, n topology.NodeState, f facts.Facts) {
	if other, ok := j.twin(n, func(o facts.Facts) bool { return o.Time.Offset != f.Time.Offset }); ok {
		j.warn("timedatectl set-timezone: logs are easier to compare", "it shows local time of %s (%s), and %s of %s (%s)", f.Time.Offset, f.Time.Zone, other, j.facts[other].Time.Offset, j.facts[other].Time.Zone)
	}
}
