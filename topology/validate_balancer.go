package topology

import "slices"

func (v *validator) controlPlane() {
	v.etcd()
	lb, path := v.c.Spec.ControlPlane.LoadBalancer, "spec.controlPlane.loadBalancer"
	if !v.word(path+".mode", string(lb.Mode), string(BalancerNone), string(BalancerNodeLocal), string(BalancerExternal)) {
		return
	}
	if lb.Mode != BalancerExternal {
		v.word(path+".software", string(lb.Software), string(NGINX), string(HAProxy), string(Envoy))
		if lb.VIP.IsValid() {
			v.errorf(path+".vip", "conflicting-fields", "a vip belongs to mode external; %s", withoutVIP[lb.Mode])
		}
		if lb.NoPreempt {
			v.errorf(path+".nopreempt", "conflicting-fields", "nopreempt is about the vip of mode external")
		}
		return
	}
	v.word(path+".software", string(lb.Software), string(NGINX), string(HAProxy))
	if !lb.VIP.IsValid() && !v.bad[path+".vip"] {
		v.errorf(path+".vip", "missing-field", "an external load balancer needs a vip")
	}
	if lb.VIP.IsValid() {
		v.vip(path + ".vip")
	}
	v.balancers(path + ".mode")
}

var withoutVIP = map[BalancerMode]string{
	BalancerNodeLocal: "node-local balancers have none",
	BalancerNone:      "without a balancer there is none",
}

// balancers checks the machines that an external balancer runs on. They are
// asked for where real components run: nobody else goes by the VIP.
func (v *validator) balancers(path string) {
	isBalancer := func(n Node) bool { return n.HasRole(RoleLoadBalancer) }
	if c := v.c.Spec.Components; (c == ComponentsLight || c == ComponentsFull) && !slices.ContainsFunc(v.c.Spec.Nodes, isBalancer) {
		v.errorf(path, "missing-role", "an external load balancer needs a node with role load-balancer; two, if it is to survive one")
	}
	for i, n := range v.c.Spec.Nodes {
		if !isBalancer(n) {
			continue
		}
		at := indexPath("spec.nodes", i)
		if n.HasRole(RoleControlPlane) {
			v.errorf(at+".roles", "conflicting-fields", "load-balancer and control-plane both listen on port 6443: an external load balancer has machines of its own")
		}
		vip := v.c.Spec.ControlPlane.LoadBalancer.VIP
		if g, gpath, ok := v.segmentByName(n.Segment); ok && vip.IsValid() && !g.Subnet.Contains(vip) {
			v.errorf(at+".segment", "address-outside", "the vip %s is outside segment %s, %s%s: a load balancer in it cannot take the vip", vip, g.Name, g.Subnet, v.where(gpath))
		}
	}
}

// vip checks that the virtual address is a free host of a segment.
func (v *validator) vip(path string) {
	vip := v.c.Spec.ControlPlane.LoadBalancer.VIP
	for i, n := range v.c.Spec.Nodes {
		if n.Address == vip {
			other := indexPath("spec.nodes", i) + ".address"
			v.errorf(path, "duplicate-address", "duplicate of %s%s", other, v.where(other))
			return
		}
	}
	for _, g := range v.c.Spec.Underlay.Segments {
		if g.Subnet.IsValid() && isHost(g.Subnet, vip) {
			return
		}
	}
	v.errorf(path, "address-outside", "%s is a host of no segment", vip)
}
