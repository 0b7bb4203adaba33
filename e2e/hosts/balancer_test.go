package hosts

import (
	"strings"
	"testing"

	"slipway/internal/testnet"
)

// Two machines balance connections to the API under an address that they share: put
// there by SSH, one takes over when the other loses its power, one leaves, and in the
// end all are what they were.
func TestBalancersBySSH(t *testing.T) {
	testnet.Need(t, testnet.DayTwo)
	built(t)
	r := Start(t, 3, inotifyCluster)
	const vip = "10.79.0.100"
	const lb = "  controlPlane: {loadBalancer: {mode: external, software: haproxy, vip: " + vip + "}}\n"
	file := r.WriteClusterFile("cluster.yaml", "flannel-vxlan", lb, "control-plane,etcd", "load-balancer", "load-balancer")
	bare := r.states(t)
	first, second := r.Machine("host2"), r.Machine("host3")
	has := func(m *Machine) bool {
		out, _ := m.Sh("ip -o addr show dev eth0")
		return strings.Contains(out, " "+vip+"/32 ")
	}
	ready := func(what string) {
		t.Helper()
		testnet.Eventually(t, patience, "the API is ready at the virtual address "+what, func() (bool, string) {
			o := r.run(r.Command("curl", "-sSk", "-m", "5", "https://"+vip+":6443/readyz"))
			return o.Stdout == "ok", o.String()
		})
	}
	moved := func(from, to *Machine) {
		t.Helper()
		testnet.Eventually(t, patience, "the virtual address is on "+to.Name(), func() (bool, string) {
			return has(to) && (from.cmd == nil || !has(from)), ""
		})
	}
	r.SlipwayMust("install", "apply", "-f", file, "--unrehearsed")
	moved(second, first)
	ready("when all is well")
	if n := r.apply(t, file, "--unrehearsed").Changed; n != 0 {
		t.Errorf("%d items were changed", n)
	}
	first.Must("systemctl stop api-balancer")
	moved(first, second)
	ready("of the second")
	first.Must("systemctl start api-balancer")
	moved(second, first)

	r.SlipwayMust("install", "remove-node", "host2", "--site", "site")
	moved(first, second)
	ready("when the first has left")
	sameState(t, "host2", bare["host2"], r.states(t)["host2"], nil)
	if o := r.SlipwayMust("install", "add-node", "-f", file); !strings.Contains(o.Stdout, "host2 joined") {
		t.Errorf("%v", o)
	}
	moved(second, first)
	ready("when it is back")
	r.SlipwayMust("install", "diff", "-f", file)
	r.SlipwayMust("install", "reset", "-f", file, "--purge")
	r.same(t, bare, nil)
}
