package vms

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/datapath/flannel"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/topology"
)

// vtep makes the machine a VTEP at each boot, as flanneld does it and by nothing of
// ours: flannel.1 of the kernel's module, one neighbour, one FDB entry, one route.
const vtep = `set -e
echo vxlan >/etc/modules-load.d/vtep.conf
printf 'net.ipv4.ip_forward=1\nnet.ipv4.conf.default.rp_filter=0\n' >/etc/sysctl.d/90-vtep.conf
cat >/usr/local/sbin/vtep <<'END'
#!/bin/sh -e
underlay=$(ip -o route get %[5]s | sed 's/.* dev \([^ ]*\).*/\1/')
ip link add flannel.1 address %[1]s type vxlan id 1 local %[2]s dev $underlay dstport 8472 nolearning
ip link set flannel.1 mtu 1450 up
ip addr add %[3]s/32 dev flannel.1
ip addr add %[4]s/32 dev lo
ip neigh replace %[7]s lladdr %[6]s dev flannel.1 nud permanent
bridge fdb append %[6]s dev flannel.1 dst %[5]s
ip route replace %[7]s/24 via %[7]s dev flannel.1 onlink src %[4]s
exec socat TCP-LISTEN:7000,fork,reuseaddr EXEC:cat
END
chmod 755 /usr/local/sbin/vtep
printf '[Unit]\nAfter=test-identity.service\n[Service]\nExecStart=/usr/local/sbin/vtep\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/vtep.service
# systemd learns of it with the next boot: reading its units anew takes it longer than
# systemctl waits, where a busy machine emulates it.
ln -s ../vtep.service /etc/systemd/system/multi-user.target.wants/
modprobe vxlan
sysctl -qp /etc/sysctl.d/90-vtep.conf
setsid /usr/local/sbin/vtep >/dev/null 2>&1 </dev/null &
`

// TestVXLANWithKernel has a node of ours and a machine with a stock kernel carry
// each other's packets by VXLAN, before and after the machine has booted again.
func TestVXLANWithKernel(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, testnet.VXLAN, testnet.IPTables, testnet.VMs)
	r := Start(t, Options{Machines: 1})
	m := r.Machines[0]
	t.Logf("%s booted in %s: %s", m.Name(), m.Booted.Round(time.Second), m.Must("uname -r; cat /proc/loadavg"))
	vxlanPeers(t, r, m, m.Reboot)
}

// vxlanPeers is for any machine, and for any way of having it boot again.
func vxlanPeers(t *testing.T, r *Rig, m *Machine, reboot func()) {
	snap := pair(t, m.Address)
	ours, theirs := snap.Nodes[0], snap.Nodes[1]
	// Each one's first address is its VTEP's, the second its pods' gateway.
	pod := theirs.PodCIDR.Addr().Next()
	m.Must(fmt.Sprintf(vtep, theirs.VTEPMAC, m.Address, theirs.PodCIDR.Addr(), pod, ourNode, ours.VTEPMAC, ours.PodCIDR.Addr()))
	ns := vxlanNode(t, r, snap)
	back := func() {
		testnet.Eventually(t, Patience, "the VTEP is there", func() (bool, string) {
			out, code := m.Sh("ip route show dev flannel.1 && pgrep -x socat")
			return code == 0 && strings.Contains(out, ours.PodCIDR.Addr().String()), out
		})
	}
	back()

	carries := func(t *testing.T) {
		t.Helper()
		if out, err := pingFrom(t, ns, "-c", "3", "-W", "60", "-I", ours.PodCIDR.Addr().Next().String(), pod.String()); err != nil {
			t.Errorf("ours to the kernel's: %v\n%s", err, out)
		}
		if out, code := m.Sh("ping -n -c 3 -W 60 -I " + pod.String() + " " + ours.PodCIDR.Addr().Next().String()); code != 0 {
			t.Errorf("the kernel's to ours: %d\n%s", code, out)
		}
		// Behind an IPv4 and an ICMP header.
		if out, err := pingFrom(t, ns, "-c", "1", "-W", "60", "-M", "do", "-s", "1422", pod.String()); err != nil {
			t.Errorf("ping with 1450 bytes: %v\n%s", err, out)
		}
		echoes(t, ns, netip.AddrPortFrom(pod, 7000))
		for counter, none := range map[string]bool{"rx_packets": false, "tx_packets": false, "rx_errors": true} {
			if n := strings.TrimSpace(m.Must("cat /sys/class/net/flannel.1/statistics/" + counter)); (n == "0") != none {
				t.Errorf("%s of the kernel's flannel.1 is %s", counter, n)
			}
		}
	}
	t.Run("carries", carries)
	was := m.Must("cat /proc/sys/kernel/random/boot_id")
	reboot()
	t.Logf("%s booted again in %s", m.Name(), m.Booted.Round(time.Second))
	if m.Must("cat /proc/sys/kernel/random/boot_id") == was {
		t.Fatal("the machine has not booted again")
	}
	back()
	m.Must("grep -q '^vxlan ' /proc/modules; test $(cat /proc/sys/net/ipv4/ip_forward) = 1; test $(cat /proc/sys/net/ipv4/conf/flannel.1/rp_filter) = 0")
	t.Run("carries after a reboot", carries)
}

// pair is a cluster of a node of ours and a machine, in flannel-vxlan.
func pair(t *testing.T, peer netip.Addr) topology.Snapshot {
	t.Helper()
	file := fmt.Sprintf(`apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: pair}
spec:
  network: {mode: flannel-vxlan}
  underlay: {segments: [{name: lan, subnet: %s}]}
  nodes:
  - {name: ours, address: %s}
  - {name: vm1, address: %s}
`, network, ourNode, peer)
	c, diags := topology.Parse("pair.yaml", []byte(file))
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	snap, _, err := topology.Allocate(c, &topology.Objects{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return *snap
}

// vxlanNode is a node as labs make it, on the segment.
func vxlanNode(t *testing.T, r *Rig, snap topology.Snapshot) *netns.NS {
	t.Helper()
	ns := testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", address(2).String(), r.NS, "our-node", "")
	r.Plug("our-node")
	h, err := linux.Open(ns, linux.Options{LockFile: filepath.Join(t.TempDir(), "xtables.lock")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	for _, mode := range flannel.Modes() {
		if mode.Name() != topology.FlannelVXLAN {
			continue
		}
		cfg, err := mode.Plan(snap, "ours")
		if err == nil {
			_, err = h.Apply(t.Context(), cfg)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return ns
}
