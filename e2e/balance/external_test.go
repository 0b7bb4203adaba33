package balance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/installer/cluster"
	"slipway/internal/testnet"
)

const vip = "192.168.233.100"

// newExternal makes two balancers before two API servers that are played, and
// one node that asks.
func newExternal(t testing.TB, loadBalancer string) (*rig.Rig, installer.Plan) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.NGINX, testnet.HAProxy, testnet.Keepalived, testnet.Curl)
	r := rig.New(t, `  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: master02, roles: [control-plane, etcd]}
    - {name: lb01, roles: [load-balancer]}
    - {name: lb02, roles: [load-balancer]}
    - {name: node01}
  controlPlane: {loadBalancer: {mode: external, vip: `+vip+`, `+loadBalancer+`}}
`, nil)
	plan, err := cluster.Plan(r.Inputs, "00", "01", "03", "05")
	if err != nil {
		t.Fatal(err)
	}
	r.Engine.Tell = func(e installer.Event) {
		if e.Item == "" && e.Took > time.Second {
			t.Logf("%s %s on %s: %v", e.Phase, e.Step, e.Host, e.Took.Round(time.Millisecond))
		}
	}
	if err := r.Engine.Apply(t.Context(), plan); err != nil {
		t.Fatal(err)
	}
	return r, plan
}

// holders are the balancers that have the VIP.
func holders(t testing.TB, r *rig.Rig) (out []string) {
	for _, name := range []string{"lb01", "lb02"} {
		n := r.Nodes[name]
		if n.Ping(t.Context()) != nil { // it is off
			continue
		}
		if _, code := n.Sh("ip -o addr show dev eth0 | grep -qw 'inet " + vip + "/32'"); code == 0 {
			out = append(out, name)
		}
	}
	return out
}

func waitForHolder(t testing.TB, r *rig.Rig, want string) {
	t.Helper()
	testnet.Eventually(t, time.Minute, "the VIP is on "+want, func() (bool, string) {
		got := holders(t, r)
		return slices.Equal(got, []string{want}), fmt.Sprintf("it is on %v", got)
	})
}

// waitForOne waits until exactly one balancer has the VIP.
func waitForOne(t testing.TB, r *rig.Rig) (name string) {
	t.Helper()
	testnet.Eventually(t, 20*time.Second, "one has the VIP", func() (bool, string) {
		got := holders(t, r)
		if len(got) == 1 {
			name = got[0]
		}
		return len(got) == 1, fmt.Sprint(got)
	})
	return name
}

func must(t testing.TB, n *rig.Node, script string) string {
	t.Helper()
	out, code := n.Sh(script)
	if code != 0 {
		t.Fatalf("%s: %s: %d: %s", n.Name(), script, code, out)
	}
	return out
}

// more reports once further requests were answered.
func more(t *testing.T, tr *traffic, what string) {
	t.Helper()
	tr.answered(t, 20)
	tr.report(t, what)
}

// The VIP follows whatever fails, and clients follow the VIP.
func TestVIP(t *testing.T) {
	for _, tc := range []struct {
		software string
		returns  bool
	}{{"nginx", true}, {"haproxy", false}} {
		t.Run(tc.software, func(t *testing.T) {
			r, plan := newExternal(t, fmt.Sprintf("software: %s, nopreempt: %v", tc.software, !tc.returns))
			r.Unchanged(t, plan) // before somebody has the API servers' ports
			serveAs(t, r, "master01")
			serveAs(t, r, "master02")
			lb1, lb2 := r.Nodes["lb01"], r.Nodes["lb02"]
			first, second := "lb01", "lb02"
			if got := holders(t, r); !tc.returns && slices.Equal(got, []string{"lb02"}) { // nobody preempts: who came first
				first, second, lb1, lb2 = second, first, lb2, lb1
			}
			waitForHolder(t, r, first)
			seen := watch(t, r, r.Nodes[first].Port)
			tr := keepAsking(t, newClient(t, r, "node01"), "/who")
			home := func(t *testing.T) { // where the VIP was, if it goes there by itself
				t.Helper()
				if tc.returns {
					waitForHolder(t, r, first)
					return
				}
				// Nobody is to move it: seen over many times as long as moving takes.
				for range 20 {
					tr.answered(t, 10)
					if got := holders(t, r); !slices.Equal(got, []string{second}) {
						t.Fatalf("the VIP went to %v", got)
					}
				}
				first, second, lb1, lb2 = second, first, lb2, lb1
			}

			t.Run("a balancer that was killed is started again", func(t *testing.T) {
				tr.begin(t)
				old := mainPID(t, lb1, "api-balancer")
				must(t, lb1, "kill -9 "+old)
				testnet.Eventually(t, 20*time.Second, "it runs again", func() (bool, string) {
					out, code := lb1.Sh("curl -sSf -m 2 http://127.0.0.1:8081/healthz")
					return code == 0 && mainPID(t, lb1, "api-balancer") != old, out
				})
				more(t, tr, "kill -9 of the balancer")
				if tc.returns {
					waitForHolder(t, r, first)
				} else if one := waitForOne(t, r); one != first { // a busy machine took longer than the VIP waits
					first, second, lb1, lb2 = second, first, lb2, lb1
				}
			})
			t.Run("the VIP leaves a machine without a balancer", func(t *testing.T) {
				tr.begin(t)
				must(t, lb1, "systemctl stop api-balancer")
				waitForHolder(t, r, second)
				more(t, tr, "balancer stopped")
				must(t, lb1, "systemctl start api-balancer")
				home(t)
				more(t, tr, "and back")
			})
			t.Run("the VIP leaves a machine without power", func(t *testing.T) {
				tr.begin(t)
				r.PowerOff(lb1)
				waitForHolder(t, r, second)
				more(t, tr, "power off")
				r.PowerOn(lb1)
				home(t)
				more(t, tr, "and back")
			})
			t.Run("the VIP leaves a machine whose keepalived is killed", func(t *testing.T) {
				tr.begin(t)
				must(t, lb1, "kill -9 "+mainPID(t, lb1, "api-vip"))
				testnet.Eventually(t, 20*time.Second, "it runs again", func() (bool, string) {
					out, code := lb1.Sh("systemctl is-active api-vip")
					return code == 0, out
				})
				waitForOne(t, r)
				more(t, tr, "kill -9 of keepalived")
			})
			seen.check(t, r)
			for _, n := range []*rig.Node{lb1, lb2} {
				if _, err := installer.Undo(t.Context(), n); err != nil {
					t.Error(err)
				}
				if out, code := n.Sh("pgrep -x 'nginx|haproxy|keepalived'; ls /etc/slipway /etc/systemd/system; cat /proc/sys/net/ipv4/ip_nonlocal_bind; ip -o addr show dev eth0"); strings.Contains(out, "api-") || strings.Contains(out, vip) || !strings.Contains(out, "\n0\n") || !strings.Contains(out, "/etc/slipway") {
					t.Errorf("%s after the undo (%d): %s", n.Name(), code, out)
				}
			}
		})
	}
}

// check is about what was on the wire: advertisements by VRRP's own protocol, of
// the holder alone, and the news of who has the VIP.
func (w *wire) check(t *testing.T, r *rig.Rig) {
	t.Helper()
	from, told := map[string]int{}, map[string]int{}
	macs := map[string]string{}
	for _, name := range []string{"lb01", "lb02"} {
		macs[strings.TrimSpace(must(t, r.Nodes[name], "cat /sys/class/net/eth0/address"))] = name
	}
	for _, f := range w.lines() {
		if len(f) != 11 {
			continue
		}
		switch {
		case f[2] == "112":
			src, dst := f[0], f[1]
			if f[3] != "255" || f[4] != "3" || f[5] != "100" || f[7] != vip || src == dst {
				t.Errorf("an advertisement with TTL, version, router, VIP of %v", f)
			}
			for _, name := range []string{"lb01", "lb02"} {
				if a := addressOf(t, r, name).String(); src == a {
					from[name]++
					want := map[string]int{"lb01": 200, "lb02": 199}[name]
					// 0 says good-bye; without API servers it is 100 less.
					if !slices.Contains([]string{"0", fmt.Sprint(want), fmt.Sprint(want - 100)}, f[6]) {
						t.Errorf("%s bids %s", name, f[6])
					}
				}
			}
		case f[9] == vip && (f[8] == "1" || strings.EqualFold(f[8], "true")):
			told[macs[f[10]]]++
		}
	}
	for _, name := range []string{"lb01", "lb02"} {
		if from[name] == 0 || told[name] == 0 {
			t.Errorf("%s: %d advertisements, %d gratuitous ARPs", name, from[name], told[name])
		}
	}
	t.Logf("on the wire: advertisements %v, gratuitous ARPs %v", from, told)
}
