package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/calico"
	"slipway/datapath/flannel"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// TestMain lets the test binary be the plugin that libcni runs, and the IPAM
// plugin that it delegates to, by the name that it is run under.
func TestMain(m *testing.M) {
	if Invoked() {
		if filepath.Base(os.Args[0]) == "testipam" {
			ipamMain()
		} else {
			PluginMain()
		}
		return
	}
	os.Exit(m.Run())
}

// ipamMain hands out one address and notes in IPAM_LOG what it was asked.
func ipamMain() {
	note := func(verb string) error {
		f, err := os.OpenFile(os.Getenv("IPAM_LOG"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		_, err = f.WriteString(verb + " ")
		return errors.Join(err, f.Close())
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: func(*skel.CmdArgs) error {
			ip := netip.MustParsePrefix("10.244.1.9/24")
			res := &current.Result{CNIVersion: "1.1.0", IPs: []*current.IPConfig{{Address: *ipNet(ip), Gateway: []byte{10, 244, 1, 1}}}}
			return errors.Join(note("ADD"), res.Print())
		},
		Check:  func(*skel.CmdArgs) error { return note("CHECK") },
		Del:    func(*skel.CmdArgs) error { return note("DEL") },
		GC:     func(*skel.CmdArgs) error { return note("GC") },
		Status: func(*skel.CmdArgs) error { return note("STATUS") },
	}, version.All, "testipam")
}

func newRuntime(t *testing.T) Runtime {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Runtime{Plugin: self, CacheDir: t.TempDir()}
}

// What the plugin binary leaves in the kernel must be what the in-process path
// leaves, link by link, address by address, route by route.
func TestExecEqualsInProcess(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			ctx := context.Background()
			port := k.port(0)
			n, node := newNode(t)
			pod := testnet.NewNS(t)
			attach(t, n, pod, port, true)

			node2, pod2 := newNodeNS(t), testnet.NewNS(t)
			r := newRuntime(t)
			if _, err := r.Add(ctx, node2, netns.Path(pod2.Name()), port); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(dump(t, node), dump(t, node2)); diff != "" {
				t.Errorf("nodes differ (-in process +exec):\n%s", diff)
			}
			if diff := cmp.Diff(dump(t, pod), dump(t, pod2)); diff != "" {
				t.Errorf("pods differ (-in process +exec):\n%s", diff)
			}
			ping(t, pod2, netip.MustParseAddr("192.168.233.10"))

			// Each path takes the other's work for its own.
			n2, err := OpenNode(node2)
			if err != nil {
				t.Fatal(err)
			}
			defer n2.Close() //nolint:errcheck // test
			attach(t, n2, pod2, port, false)
		})
	}
}

func TestRuntimeLifeCycle(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			ctx := context.Background()
			port := k.port(0)
			node, pod := newNodeNS(t), testnet.NewNS(t)
			before := dump(t, node) + dump(t, pod)
			r := newRuntime(t)
			path := netns.Path(pod.Name())
			if err := r.Status(ctx, node, port); err != nil {
				t.Fatal(err)
			}
			res, err := r.Add(ctx, node, path, port)
			if err != nil {
				t.Fatal(err)
			}
			checkResult(t, res, port, path)
			if err := r.Check(ctx, node, path, port); err != nil {
				t.Error(err)
			}
			if _, err := (run.Cmd{NS: pod, Name: "ip", Args: []string{"link", "set", "eth0", "mtu", "1000"}}).Output(ctx); err != nil {
				t.Fatal(err)
			}
			if err := r.Check(ctx, node, path, port); err == nil || !strings.Contains(err.Error(), "MTU of eth0") {
				t.Errorf("check of a spoilt attachment: %v", err)
			}
			if err := errors.Join(r.Del(ctx, node, path, port), r.Del(ctx, node, "", port)); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(before, dump(t, node)+dump(t, pod)); diff != "" {
				t.Errorf("left behind (-before +after):\n%s", diff)
			}
			if left, _ := filepath.Glob(filepath.Join(r.CacheDir, "results", "*")); len(left) != 0 {
				t.Errorf("left in the cache: %v", left)
			}
		})
	}
}

func checkResult(t *testing.T, res *current.Result, port datapath.PodPort, path string) {
	t.Helper()
	if len(res.Interfaces) != 2 || len(res.IPs) != 1 {
		t.Fatalf("result %+v", res)
	}
	eth := res.Interfaces[1]
	got := []string{res.Interfaces[0].Name, eth.Name, eth.Mac, eth.Sandbox, res.IPs[0].Address.String(), res.IPs[0].Gateway.String()}
	want := []string{port.HostIf, "eth0", port.ContainerMAC, path, port.Address.String(), port.Gateway.String()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if i := res.IPs[0].Interface; i == nil || *i != 1 {
		t.Errorf("the address is on interface %v, want 1", i)
	}
}

// GC spares what is valid, what is of another network, and what is no attachment.
func TestGC(t *testing.T) {
	ctx := context.Background()
	node := newNodeNS(t)
	r := newRuntime(t)
	other := newRuntime(t)
	other.Network = "elsewhere"
	for i, rt := range []Runtime{r, r, other} {
		pod := testnet.NewNS(t)
		if _, err := rt.Add(ctx, node, netns.Path(pod.Name()), bridgePort(i)); err != nil {
			t.Fatal(err)
		}
	}
	// Without its cache libcni knows of nothing: the plugin itself must see it.
	r.CacheDir = t.TempDir()
	if err := r.GC(ctx, node, bridgePort(0), []datapath.PodPort{bridgePort(0)}); err != nil {
		t.Fatal(err)
	}
	h := testnet.Handle(t, node)
	for name, want := range map[string]bool{"veth0": true, "veth1": false, "veth2": true, "eth0": true, "cni0": true} {
		if _, err := h.LinkByName(name); (err == nil) != want {
			t.Errorf("after GC %s there: %v, want %v", name, err == nil, want)
		}
	}
}

func TestPluginErrorsHaveCodes(t *testing.T) {
	ctx := context.Background()
	bare, pod := testnet.NewNS(t), testnet.NewNS(t)
	r := newRuntime(t)
	wrong := bridgePort(0)
	wrong.Address = netip.MustParsePrefix("fd00::2/64")
	_, v6 := r.Add(ctx, bare, netns.Path(pod.Name()), wrong)
	_, gone := r.Add(ctx, bare, netns.Path("slipwaytest-no-such"), bridgePort(0))
	for _, c := range []struct {
		name string
		err  error
		code uint
	}{
		{"STATUS without the bridge", r.Status(ctx, bare, bridgePort(0)), types.ErrPluginNotAvailable},
		{"STATUS without a route to the gateway", r.Status(ctx, bare, routedPort(0)), types.ErrLimitedConnectivity},
		{"ADD of an IPv6 address", v6, types.ErrUnsupportedField},
		{"ADD to a missing namespace", gone, types.ErrInvalidNetNS},
	} {
		var e *types.Error
		if !errors.As(c.err, &e) || e.Code != c.code {
			t.Errorf("%s: %v, want code %d", c.name, c.err, c.code)
		}
	}
}

// Without the runtime's addresses the plugin asks its IPAM plugin, and without
// the lab's names it makes up its own.
func TestDelegatedIPAM(t *testing.T) {
	ctx := context.Background()
	node, pod := newNodeNS(t), testnet.NewNS(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	if err := os.Symlink(self, filepath.Join(dir, "testipam")); err != nil {
		t.Fatal(err)
	}
	call := func(verb, prev string) []byte {
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"slipway","mode":"bridge","bridge":"cni0","ipam":{"type":"testipam"}%s}`, prev)
		out, err := run.Cmd{NS: node, Name: self, Stdin: strings.NewReader(conf), Env: []string{
			"CNI_COMMAND=" + verb, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=" + netns.Path(pod.Name()),
			"CNI_PATH=" + dir, "IPAM_LOG=" + log,
		}}.Output(ctx)
		if err != nil {
			t.Fatalf("%s: %v\n%s", verb, err, out)
		}
		return out
	}
	call("STATUS", "")
	result := call("ADD", "")
	var res current.Result
	if err := json.Unmarshal(result, &res); err != nil || len(res.IPs) != 1 || res.IPs[0].Address.String() != "10.244.1.9/24" {
		t.Fatalf("result %s: %v", result, err)
	}
	ping(t, node, netip.MustParseAddr("10.244.1.9"))
	call("CHECK", `,"prevResult":`+string(result))
	call("GC", `,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`)
	ping(t, node, netip.MustParseAddr("10.244.1.9"))
	call("DEL", "")
	if _, err := testnet.Handle(t, node).LinkByName(res.Interfaces[0].Name); err == nil {
		t.Errorf("DEL left %s", res.Interfaces[0].Name)
	}
	if b, _ := os.ReadFile(log); string(b) != "STATUS ADD CHECK GC DEL " {
		t.Errorf("IPAM plugin was asked %q", b)
	}
}

// A runtime that knows nothing of the lab's names gets the planners' for the same pod.
func TestHostNamesAreThePlanners(t *testing.T) {
	args := &skel.CmdArgs{ContainerID: "0123abcd", IfName: "eth0", Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=1"}
	for mode, want := range map[string]string{modeBridge: flannel.HostIf("default/web-0"), modeRouted: calico.HostIf("default/web-0")} {
		p, err := netConf{Mode: mode, Bridge: "cni0"}.port(args)
		if err != nil || p.HostIf != want {
			t.Errorf("%s: host interface %q, %v; want %q", mode, p.HostIf, err, want)
		}
	}
	args.Args = ""
	p, err := netConf{Mode: modeRouted}.port(args)
	if err != nil || len(p.HostIf) != 15 || p.HostMAC != calico.HostMAC {
		t.Errorf("without CNI_ARGS: %+v, %v", p, err)
	}
}

func TestBadConfigurations(t *testing.T) {
	for text, say := range map[string]string{
		`{"mode":"vlan"}`:                        `mode "vlan"`,
		`{"mode":"bridge"}`:                      `needs "bridge"`,
		`{"mode":"routed","bridge":"cni0"}`:      `has no "bridge"`,
		`{"mode":"routed","gateway":"nonsense"}`: `gateway`,
		`{"mode":`:                               `unexpected end`,
	} {
		if _, err := parseConf([]byte(text)); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: error %v, want one with %q", text, err, say)
		}
	}
}

// Exec is used in a Node's place, and must say the same of what changed.
func TestExecIsIdempotent(t *testing.T) {
	ctx := context.Background()
	node, pod := newNodeNS(t), testnet.NewNS(t)
	r := newRuntime(t)
	e, err := OpenExec(node, r.Plugin, r.CacheDir)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close() //nolint:errcheck // test
	port := routedPort(0)
	step := func(what string, want bool, got bool, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Fatalf("%s: changed = %v, %v; want %v", what, got, err, want)
		}
	}
	got, err := e.Attach(ctx, pod, port)
	step("attach", true, got, err)
	got, err = e.Attach(ctx, pod, port)
	step("attach again", false, got, err)
	if err := e.Check(ctx, pod, port); err != nil {
		t.Error(err)
	}
	port.MTU = 1400
	got, err = e.Attach(ctx, pod, port)
	step("attach with another MTU", true, got, err)
	port.Address = netip.Prefix{} // DEL must do without what is not known any more
	got, err = e.Detach(ctx, pod, port)
	step("detach", true, got, err)
	got, err = e.Detach(ctx, nil, port)
	step("detach again, pod gone", false, got, err)
}
