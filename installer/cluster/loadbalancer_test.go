package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/installer"
	"slipway/internal/testnet"
	"slipway/topology"
)

// balanced is a cluster of two masters, with something about its balancer.
func balanced(loadBalancer string) string {
	return `apiVersion: slipway/v1alpha1
kind: Cluster
metadata: {name: demo}
spec:
  components: light
  nodes:
    - {name: master01, roles: [control-plane, etcd]}
    - {name: master02, roles: [control-plane, etcd]}
    - {name: node01}
    - {name: lb01, roles: [load-balancer]}
    - {name: lb02, roles: [load-balancer]}
  controlPlane: {loadBalancer: {` + loadBalancer + `}}
`
}

// configurations are the files of phase 05, by machine and path.
func configurations(t *testing.T, in Inputs) map[string]string {
	t.Helper()
	plan, err := Plan(in, "05")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, ph := range plan.Phases {
		for _, st := range ph.Steps {
			for _, w := range st.Work {
				for _, it := range w.Items {
					if s, ok := it.(installer.Shower); ok {
						path, content, _ := s.Shown()
						out[w.Host+":"+path] = string(content)
					}
				}
			}
		}
	}
	return out
}

// Every configuration of every balancer, against text that was read and argued.
func TestBalancersGolden(t *testing.T) {
	for name, lb := range map[string]string{
		"local-nginx": "software: nginx", "local-haproxy": "software: haproxy", "local-envoy": "software: envoy",
		"external-nginx":   "mode: external, software: nginx, vip: 192.168.233.100",
		"external-haproxy": "mode: external, software: haproxy, vip: 192.168.233.100, nopreempt: true",
	} {
		t.Run(name, func(t *testing.T) {
			files := configurations(t, inputs(t, balanced(lb)))
			var keys []string
			for k := range files {
				if strings.HasPrefix(k, "node01:") || strings.HasPrefix(k, "lb") { // other nodes' are node01's
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			var b strings.Builder
			for _, k := range keys {
				fmt.Fprintf(&b, "## %s\n%s", k, files[k])
			}
			golden := filepath.Join("testdata", "balancer-"+name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The programs themselves take the configurations.
func TestBalancersAreUnderstood(t *testing.T) {
	for _, tc := range []struct {
		need  testnet.Capability
		lb    string
		file  string
		check []string // and the file
	}{
		{testnet.NGINX, "software: nginx", "node01:" + balancerDir + "/nginx.conf", []string{"nginx", "-t", "-c"}},
		{testnet.NGINX, "mode: external, vip: 192.168.233.100", "lb01:" + balancerDir + "/nginx.conf", []string{"nginx", "-t", "-c"}},
		{testnet.HAProxy, "software: haproxy", "node01:" + balancerDir + "/haproxy.cfg", []string{"haproxy", "-c", "-V", "-f"}},
		{testnet.HAProxy, "software: haproxy, mode: external, vip: 192.168.233.100", "lb01:" + balancerDir + "/haproxy.cfg", []string{"haproxy", "-c", "-V", "-f"}},
		{testnet.Keepalived, "mode: external, vip: 192.168.233.100", "lb01:" + balancerDir + "/keepalived.conf", []string{"keepalived", "--config-test", "-f"}},
		{testnet.Keepalived, "mode: external, vip: 192.168.233.100, nopreempt: true", "lb02:" + balancerDir + "/keepalived.conf", []string{"keepalived", "--config-test", "-f"}},
		{testnet.Envoy, "software: envoy", "node01:" + balancerDir + "/envoy.yaml", []string{"envoy", "--mode", "validate", "-c"}},
	} {
		t.Run(strings.NewReplacer(",", "", ":", "", " ", "-").Replace(tc.check[0]+"/"+tc.lb), func(t *testing.T) {
			testnet.Need(t, testnet.Root, tc.need)
			in := inputs(t, balanced(tc.lb))
			text, ok := configurations(t, in)[tc.file]
			if !ok {
				t.Fatalf("there is no %s", tc.file)
			}
			// In a place of the test's own: the check makes a pid file, and reads the authority.
			dir := t.TempDir()
			text = strings.ReplaceAll(strings.ReplaceAll(text, "/run/api-balancer", dir), pkiDir, in.PKI.Dir)
			// With another user than its own, the check of keepalived 2.2 ends itself by a signal.
			text = strings.ReplaceAll(text, "script_user nobody", "script_user root")
			path := filepath.Join(dir, "config")
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			ns := testnet.NewNS(t) // nginx binds to check
			h := testnet.Handle(t, ns)
			lo, err := h.LinkByName("lo")
			if err == nil {
				err = h.LinkSetUp(lo)
			}
			if err != nil {
				t.Fatal(err)
			}
			testnet.Wire(t, ns, "eth0", "192.168.233.100/24", testnet.NewNS(t), "eth0", "")
			var out []byte
			if err := ns.Do(func() (err error) {
				out, err = exec.Command(tc.check[0], append(tc.check[1:], path)...).CombinedOutput()
				return err
			}); err != nil || strings.Contains(strings.ToLower(string(out)), "warn") {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestEndpoint(t *testing.T) {
	const oneMaster = "apiVersion: slipway/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec: {components: light, nodes: [{name: m, roles: [control-plane, etcd]}, {name: n}]}\n"
	for _, tc := range []struct{ file, want, machines string }{
		{oneMaster, "https://192.168.233.10:6443", ""},
		{balanced("mode: none"), "https://192.168.233.10:6443", ""},
		{balanced(""), "https://127.0.0.1:8443", "master01 master02 node01"},
		{balanced("mode: external, vip: 192.168.233.100"), "https://192.168.233.100:6443", "lb01 lb02"},
	} {
		in := inputs(t, tc.file)
		if got := Endpoint(in); got != tc.want {
			t.Errorf("the endpoint is %s, want %s", got, tc.want)
		}
		plan, err := Plan(in, "05")
		if err != nil {
			t.Fatal(err)
		}
		var machines []string
		for _, ph := range plan.Phases {
			for _, w := range ph.Steps[0].Work {
				machines = append(machines, w.Host)
			}
		}
		if got := strings.Join(machines, " "); got != tc.machines {
			t.Errorf("%s: balancers on %q, want %q", tc.want, got, tc.machines)
		}
		// Whoever dials the endpoint finds its address in the certificate.
		for _, m := range newPlanner(in).masters {
			pair, err := in.PKI.Pair(m.Name + "/apiserver")
			if err != nil {
				t.Fatal(err)
			}
			host, _, _ := strings.Cut(strings.TrimPrefix(tc.want, "https://"), ":")
			if strings.Contains(tc.machines, "0") { // one that every API server answers to
				if err := pair.Cert.VerifyHostname(host); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestRouterID(t *testing.T) {
	for addr, want := range map[string]int{"192.168.233.100": 100, "10.0.1.0": 255, "10.0.0.1": 1} {
		in := inputs(t, balanced("mode: external, vip: 192.168.233.100"))
		vip := in.Cluster.Spec.ControlPlane.LoadBalancer.VIP
		if err := vip.UnmarshalText([]byte(addr)); err != nil {
			t.Fatal(err)
		}
		if got := routerID(vip); got != want {
			t.Errorf("%s: %d, want %d", addr, got, want)
		}
	}
}

func TestPackagesOfTheBalancer(t *testing.T) {
	for lb, want := range map[string]string{
		"":                                     "nginx libnginx-mod-stream on master01, nginx libnginx-mod-stream on master02, nginx libnginx-mod-stream on node01",
		"software: haproxy":                    "haproxy on master01, haproxy on master02, haproxy on node01",
		"mode: external, vip: 192.168.233.100": "nginx libnginx-mod-stream keepalived on lb01, nginx libnginx-mod-stream keepalived on lb02",
		"mode: none":                           "",
	} {
		plan, err := Plan(inputs(t, balanced(lb)), "01")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, w := range plan.Phases[0].Steps[0].Work {
			var names []string
			for _, p := range w.Items[0].(installer.Packages).List {
				if slices.Contains([]string{"nginx", "libnginx-mod-stream", "haproxy", "keepalived"}, p.Name) {
					names = append(names, p.Name)
				}
			}
			if len(names) > 0 {
				got = append(got, strings.Join(names, " ")+" on "+w.Host)
			}
		}
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: %s, want %s", lb, s, want)
		}
	}
}

func TestUnknownBalancer(t *testing.T) {
	in := inputs(t, balanced(""))
	in.Cluster.Spec.ControlPlane.LoadBalancer.Software = topology.Balancer("pen")
	if _, err := Plan(in, "05"); err == nil || !strings.Contains(err.Error(), `"pen" is no balancer`) {
		t.Error(err)
	}
}
