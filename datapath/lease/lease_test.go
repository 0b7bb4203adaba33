package lease

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slipway/topology"
)

var comparable = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// The defaults are those of flannel's Documentation/configuration.md.
func TestConfigDefaults(t *testing.T) {
	for _, c := range []struct{ in, first, last, err string }{
		{`{"Network":"10.0.0.0/8"}`, "10.0.1.0/24", "10.255.255.0/24", ""},
		{`{"Network":"10.244.0.0/16","SubnetMin":"10.244.0.0"}`, "10.244.0.0/24", "10.244.255.0/24", ""},
		{`{"Network":"10.1.0.0/23"}`, "10.1.0.128/25", "10.1.1.128/25", ""},
		{`{"Network":"10.1.0.0/16","SubnetLen":20,"SubnetMin":"10.1.32.0","SubnetMax":"10.1.48.0"}`, "10.1.32.0/20", "10.1.48.0/20", ""},
		{`{"Network":"10.1.0.0/16","SubnetLen":17}`, "", "", "at least four"},
		{`{"Network":"10.1.0.0/29"}`, "", "", "at least four"},
		{`{"Network":"10.1.0.0/16","SubnetMin":"10.1.3.1"}`, "", "", "SubnetMin"},
		{`{"Network":"10.1.0.0/16","SubnetMax":"10.2.0.0"}`, "", "", "SubnetMax"},
		{`{"SubnetLen":24}`, "", "", "Network"},
		{`{"Network":"nonsense"}`, "", "", "nonsense"},
	} {
		cfg, err := parseConfig([]byte(c.in))
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q in it", c.in, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		first, err := cfg.free(nil)
		if err != nil || first != prefix(c.first) {
			t.Errorf("%s: first subnet %s, %v, want %s", c.in, first, err, c.first)
		}
		if last := prefix(c.last); !cfg.allows(last) || cfg.allows(netip.PrefixFrom(address(number(last.Addr())+1<<(32-last.Bits())), last.Bits())) {
			t.Errorf("%s: %s is not the last subnet (%+v)", c.in, last, cfg)
		}
	}
}

// The file gives /23 two bits more than its own 23: four subnets of /25, of which
// the first is left out.
func TestFreeSkipsWhatIsTaken(t *testing.T) {
	cfg, err := parseConfig([]byte(`{"Network":"10.1.0.0/23"}`))
	if err != nil {
		t.Fatal(err)
	}
	taken := map[netip.Prefix]bool{prefix("10.1.0.128/25"): true, prefix("10.1.1.0/26"): true} // the second overlaps one
	if got, err := cfg.free(taken); err != nil || got != prefix("10.1.1.128/25") {
		t.Errorf("free: %s, %v", got, err)
	}
	taken[prefix("10.1.1.128/25")] = true
	if got, err := cfg.free(taken); !errors.Is(err, ErrFull) {
		t.Errorf("with all taken: %s, %v", got, err)
	}
}

func TestConfigAndClusterFile(t *testing.T) {
	n := topology.Network{Mode: topology.FlannelVXLAN, PodCIDR: prefix("10.9.0.0/16"), NodePrefixLength: 26, VXLAN: topology.VXLAN{VNI: 1, Port: 8472}}
	cfg, err := parseConfig([]byte(`{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7,"DirectRouting":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := cfg.apply(n)
	want := n
	want.PodCIDR, want.NodePrefixLength, want.VXLAN = prefix("10.244.0.0/16"), 24, topology.VXLAN{VNI: 7, Port: 8472, DirectRouting: true}
	if d := cmp.Diff(want, got, comparable); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	n.Mode = topology.FlannelHostGW
	if _, err := cfg.apply(n); err == nil || !strings.Contains(err.Error(), `"vxlan"`) {
		t.Errorf("another backend than the file's: %v", err)
	}
}

func TestParseKeys(t *testing.T) {
	e := &Etcd{opts: EtcdOptions{Prefix: "/coreos.com/network"}}
	at := "/coreos.com/network/subnets/"
	got, err := e.parse(at+"10.244.3.0-24", []byte(`{"PublicIP":"192.0.2.7","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"fa:e1:e6:4a:ed:f1"}}`))
	want := Lease{Address: netip.MustParseAddr("192.0.2.7"), Subnet: prefix("10.244.3.0/24"), Backend: "vxlan", VNI: 1, VTEPMAC: "fa:e1:e6:4a:ed:f1"}
	if d := cmp.Diff(want, got, comparable); d != "" || err != nil {
		t.Errorf("%v\n%s", err, d)
	}
	if value, err := got.value(); err != nil || !strings.Contains(value, `"BackendData":{"VNI":1,"VtepMAC":"fa:e1:e6:4a:ed:f1"}`) {
		t.Errorf("written: %s, %v", value, err)
	}
	// flanneld's udp, with an IPv6 subnet beside.
	got, err = e.parse(at+"10.244.4.0-24&fc00--1-64", []byte(`{"PublicIP":"192.0.2.8","PublicIPv6":null}`))
	if err != nil || got.Backend != "udp" || got.Subnet != prefix("10.244.4.0/24") {
		t.Errorf("%+v, %v", got, err)
	}
	for key, value := range map[string]string{"10.244.5.0": `{"PublicIP":"192.0.2.8"}`, "10.244.6.0-24": `{}`, "10.244.7.0-24": `no`} {
		if l, err := e.parse(at+key, []byte(value)); err == nil {
			t.Errorf("%s %s: %+v, want an error", key, value, l)
		}
	}
}

func TestNodes(t *testing.T) {
	node := func(podCIDR string, annotations map[string]string) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Annotations: annotations}}
		n.Spec.PodCIDR = podCIDR
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.9"}}
		return n
	}
	managed := map[string]string{ManagedAnnotation: "true", BackendTypeAnnotation: "host-gw", BackendDataAnnotation: "null", PublicIPAnnotation: "192.0.2.1"}
	flannel, calico := &Kube{}, &Kube{calico: true}
	for name, c := range map[string]struct {
		k    *Kube
		n    *corev1.Node
		want Lease
		ok   bool
		err  string
	}{
		"flannel":              {flannel, node("10.244.1.0/24", managed), Lease{Node: "n", Address: netip.MustParseAddr("192.0.2.1"), Subnet: prefix("10.244.1.0/24"), Backend: "host-gw"}, true, ""},
		"no agent yet":         {flannel, node("10.244.1.0/24", nil), Lease{}, false, ""},
		"no subnet yet":        {flannel, node("", managed), Lease{}, false, ""},
		"address that is none": {flannel, node("10.244.1.0/24", map[string]string{ManagedAnnotation: "true", PublicIPAnnotation: "x"}), Lease{}, false, PublicIPAnnotation},
		"calico":               {calico, node("", map[string]string{BlocksAnnotation: "10.244.0.0/26, 10.244.0.64/26"}), Lease{Node: "n", Address: netip.MustParseAddr("192.0.2.9"), Blocks: []netip.Prefix{prefix("10.244.0.0/26"), prefix("10.244.0.64/26")}}, true, ""},
		"no blocks":            {calico, node("10.244.1.0/24", managed), Lease{}, false, ""},
		"block with host bits": {calico, node("", map[string]string{BlocksAnnotation: "10.244.0.1/26"}), Lease{}, false, "no IPv4 network"},
	} {
		got, ok, err := c.k.leaseOf(c.n)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q in it", name, err, c.err)
			}
			continue
		}
		if ok != c.ok || err != nil {
			t.Errorf("%s: %t, %v", name, ok, err)
		}
		if d := cmp.Diff(c.want, got, comparable); ok && d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
}
