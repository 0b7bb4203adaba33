package topology

import (
	"strings"
	"testing"
)

// One apiserver needs no balancer, unless the file asks for one; several get one
// on every node.
func TestDefaultLoadBalancer(t *testing.T) {
	const one, two = "nodes: [{name: m1, roles: [control-plane]}]", "nodes: [{name: m1, roles: [control-plane]}, {name: m2, roles: [control-plane]}]"
	for _, tc := range []struct {
		spec string
		want BalancerMode
	}{
		{"{}", BalancerNone}, // the default nodes: one master
		{"{" + one + "}", BalancerNone},
		{"{" + one + ", controlPlane: {loadBalancer: {software: haproxy}}}", BalancerNodeLocal},
		{"{" + two + "}", BalancerNodeLocal},
		{"{" + two + ", controlPlane: {loadBalancer: {mode: none}}}", BalancerNone},
	} {
		c, diags := Parse("f", []byte(head+"spec: "+tc.spec+"\n"))
		if len(diags) > 0 {
			t.Fatal(diags)
		}
		lb := c.Spec.ControlPlane.LoadBalancer
		software := NGINX
		if strings.Contains(tc.spec, "haproxy") {
			software = HAProxy
		}
		if lb.Mode != tc.want || lb.Software != software {
			t.Errorf("%s: %+v", tc.spec, lb)
		}
	}
}
