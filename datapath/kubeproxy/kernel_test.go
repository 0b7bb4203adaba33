package kubeproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gonum.org/v1/gonum/stat/distuv"

	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/topology"
)

// iptables runs one of the legacy tools in ns with a lock of the test's own.
func iptables(t *testing.T, ns *netns.NS, stdin []byte, name string, args ...string) string {
	t.Helper()
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "lock"))
	out, err := run.Cmd{NS: ns, Name: name, Args: args, Env: env, Stdin: bytes.NewReader(stdin)}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// load gives ns what kube-proxy would: canaries, jumps, then its restore text.
func load(t *testing.T, ns *netns.NS, s topology.Snapshot, node string, o Options) {
	t.Helper()
	set, err := Plan(s, node, o)
	if err != nil {
		t.Fatal(err)
	}
	var jumps bytes.Buffer
	for _, table := range set.Tables {
		fmt.Fprintf(&jumps, "*%s\n", table.Name)
		for _, c := range table.Chains {
			fmt.Fprintf(&jumps, ":%s - [0:0]\n", c)
		}
		for _, j := range table.Jumps {
			jumps.WriteString(j.Rule + "\n")
		}
		jumps.WriteString("COMMIT\n")
	}
	text, err := Render(s, node, o)
	if err != nil {
		t.Fatal(err)
	}
	iptables(t, ns, jumps.Bytes(), "iptables-legacy-restore", "--noflush")
	iptables(t, ns, text, "iptables-legacy-restore", "--noflush", "--counters")
}

// This kernel and this iptables print every case's rules as planned.
func TestKernelShowsPlan(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.IPTables)
	for name, g := range goldens(t) {
		if name == "nfacct" {
			continue // the kernel's counters would have to be made first
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := testnet.NewNS(t)
			load(t, ns, g.Snapshot, g.Node, g.Options)
			set, err := Plan(g.Snapshot, g.Node, g.Options)
			if err != nil {
				t.Fatal(err)
			}
			var now strings.Builder
			for _, table := range set.Tables {
				now.WriteString(iptables(t, ns, nil, "iptables-legacy-save", "-t", table.Name))
			}
			rs, err := ParseSave(now.String())
			if err != nil {
				t.Fatal(err)
			}
			unquoted := func(s string) []string { return strings.Split(strings.ReplaceAll(s, `"`, ""), "\n") }
			if d := cmp.Diff(unquoted(rs.String()), unquoted(saved(set))); d != "" {
				t.Errorf("(-kernel +planned):\n%s", d)
			}
		})
	}
}

// cluster is one node with pods behind routed veths and a machine outside.
//
//	outside 192.168.233.1 ── 192.168.233.30 node ── 10.244.N.1 ── 10.244.N.2 pod N
type cluster struct {
	t       *testing.T
	mode    topology.ProxyMode
	node    *netns.NS
	outside *netns.NS
	pods    []*netns.NS // the last has no listener
}

const (
	podPort  = 8080
	nodeName = "node01"
)

var nodeAddr = netip.MustParseAddr("192.168.233.30")

func podAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 2}) }

// inBothModes runs a test once with each of kube-proxy's backends.
func inBothModes(t *testing.T, run func(t *testing.T, c *cluster)) {
	for _, mode := range []topology.ProxyMode{topology.ProxyIPTables, topology.ProxyNFTables} {
		t.Run(string(mode), func(t *testing.T) { run(t, newCluster(t, mode)) })
	}
}

func newCluster(t *testing.T, mode topology.ProxyMode) *cluster {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables)
	if mode == topology.ProxyNFTables {
		testnet.Need(t, testnet.NFT)
	}
	c := &cluster{t: t, mode: mode, node: testnet.NewNS(t), outside: testnet.NewNS(t)}
	c.sysctl("net/ipv4/ip_forward", "1")
	for _, s := range Sysctls(Options{Mode: mode, LocalhostNodePorts: true}) {
		c.sysctl(s.Key, s.Value)
	}
	testnet.Wire(t, c.node, "eth0", "192.168.233.30/24", c.outside, "eth0", "192.168.233.1/24")
	defaultRoute(t, c.node, "192.168.233.1")
	for i := range 4 {
		pod := testnet.NewNS(t)
		testnet.Wire(t, c.node, fmt.Sprintf("veth%d", i), fmt.Sprintf("10.244.%d.1/24", i+1), pod, "eth0", podAddr(i).String()+"/24")
		defaultRoute(t, pod, fmt.Sprintf("10.244.%d.1", i+1))
		c.pods = append(c.pods, pod)
		if i < 3 {
			serve(t, pod, i)
		}
	}
	return c
}

func (c *cluster) sysctl(key, value string) {
	c.t.Helper()
	err := c.node.Do(func() error { return os.WriteFile("/proc/sys/"+key, []byte(value), 0) })
	if err != nil {
		c.t.Fatal(err)
	}
}

func defaultRoute(t *testing.T, ns *netns.NS, via string) {
	t.Helper()
	_, everything, _ := net.ParseCIDR("0.0.0.0/0")
	if err := testnet.Handle(t, ns).RouteAdd(&netlink.Route{Dst: everything, Gw: net.ParseIP(via)}); err != nil {
		t.Fatalf("default route via %s: %v", via, err)
	}
}

// serve answers every connection to the pod with its number and the address
// that the connection comes from, until the test ends.
func serve(t *testing.T, ns *netns.NS, pod int) {
	t.Helper()
	var l net.Listener
	err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", podPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			from := conn.RemoteAddr().(*net.TCPAddr).IP
			_, _ = fmt.Fprintf(conn, "pod%d from %s", pod, from)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// ask connects from ns n times, one after the other, and returns the answers.
func ask(t *testing.T, ns *netns.NS, addr string, n int) []string {
	t.Helper()
	var out []string
	err := ns.Do(func() error {
		d := net.Dialer{Timeout: 5 * time.Second}
		for range n {
			conn, err := d.DialContext(context.Background(), "tcp4", addr)
			if err != nil {
				return err
			}
			data, err := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil {
				return err
			}
			out = append(out, string(data))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("from %s after %d answers: %v", ns.Name(), len(out), err)
	}
	return out
}

// service is one that listens at port 80 of 10.96.0.N with the pods behind it.
func service(n int, name string, edit func(*topology.Service), pods ...int) topology.Service {
	s := topology.Service{
		Namespace: "default", Name: name, Type: topology.NodePort,
		ClusterIP: netip.AddrFrom4([4]byte{10, 96, 0, byte(n)}),
		Ports:     []topology.ServicePort{{Protocol: topology.TCPProtocol, Port: 80, NodePort: 30000 + n}},
	}
	for _, i := range pods {
		s.Ports[0].Endpoints = append(s.Ports[0].Endpoints,
			topology.Endpoint{Address: podAddr(i), Port: podPort, Node: nodeName, Ready: true, Serving: true})
	}
	if edit != nil {
		edit(&s)
	}
	return s
}

func (c *cluster) load(services ...topology.Service) {
	c.t.Helper()
	s := topology.Snapshot{Nodes: []topology.NodeState{{Node: topology.Node{Name: nodeName, Address: nodeAddr}}}, Services: services}
	s.Network.PodCIDR = netip.MustParsePrefix("10.244.0.0/16")
	s.Network.ServiceCIDR = netip.MustParsePrefix("10.96.0.0/16")
	s.Proxy.Mode = c.mode
	if c.mode != topology.ProxyNFTables {
		load(c.t, c.node, s, nodeName, DefaultOptions(s))
		return
	}
	set, err := Plan(s, nodeName, DefaultOptions(s))
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := (run.Cmd{NS: c.node, Name: "nft", Args: []string{"-f", "-"}, Stdin: strings.NewReader(asDump(set))}).Output(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// Each of three endpoints gets a third of 3,000 connections, up to chance. Equal
// shares fail that once in a thousand times, so a second measurement decides.
func TestConnectionsAreSharedEqually(t *testing.T) {
	const significance = 0.001
	inBothModes(t, func(t *testing.T, c *cluster) {
		c.load(service(1, "web", nil, 0, 1, 2))
		if c.shares(t) <= significance {
			if p := c.shares(t); p <= significance {
				t.Errorf("twice not equal: p = %.2g", p)
			}
		}
	})
}

// shares returns how probable it is that equal shares come out at least as
// uneven as those of the connections it opens.
func (c *cluster) shares(t *testing.T) float64 {
	const n, endpoints = 3000, 3
	counts := map[string]int{}
	for _, a := range ask(t, c.pods[3], "10.96.0.1:80", n) {
		counts[a]++
	}
	chi2, expected := 0.0, float64(n)/endpoints
	for i := range endpoints {
		// a pod's connection keeps its source address
		got := counts[fmt.Sprintf("pod%d from %s", i, podAddr(3))]
		chi2 += (float64(got) - expected) * (float64(got) - expected) / expected
	}
	p := distuv.ChiSquared{K: endpoints - 1}.Survival(chi2)
	t.Logf("%v: chi-square %.3f, p = %.4f", counts, chi2, p)
	if len(counts) != endpoints {
		t.Errorf("%d endpoints answered: %v", len(counts), counts)
	}
	return p
}

func TestClientIPAffinity(t *testing.T) {
	inBothModes(t, func(t *testing.T, c *cluster) {
		c.load(service(1, "sticky", func(s *topology.Service) { s.AffinityClientIP, s.AffinitySeconds = true, 10800 }, 0, 1, 2))
		answers := ask(t, c.pods[3], "10.96.0.1:80", 60)
		slices.Sort(answers)
		if got := slices.Compact(answers); len(got) != 1 {
			t.Errorf("one client was sent to several endpoints: %v", got)
		}
	})
}

func TestNoEndpointsIsRefused(t *testing.T) {
	inBothModes(t, func(t *testing.T, c *cluster) {
		c.load(service(1, "nobody", nil))
		for who, where := range map[*netns.NS]string{
			c.pods[0]: "10.96.0.1:80",
			c.node:    "10.96.0.1:80",
			c.outside: "192.168.233.30:30001",
		} {
			err := who.Do(func() error {
				conn, err := net.DialTimeout("tcp4", where, 5*time.Second)
				if err == nil {
					_ = conn.Close()
				}
				return err
			})
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("from %s to %s: %v, want connection refused", who.Name(), where, err)
			}
		}
	})
}

// Who is asked, and which source address the pod sees, by way of access.
func TestWaysToAService(t *testing.T) {
	inBothModes(t, func(t *testing.T, c *cluster) {
		c.load(
			service(1, "single", nil, 0),
			service(2, "local", func(s *topology.Service) { s.ExternalPolicyLocal = true }, 1),
			service(3, "external", func(s *topology.Service) { s.ExternalIPs = []netip.Addr{netip.MustParseAddr("192.0.2.7")} }, 2),
			service(4, "balanced", func(s *topology.Service) {
				s.Type = topology.LoadBalanced
				s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.8")}
				s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.244.4.0/24")}
			}, 2),
		)
		for name, w := range map[string]struct {
			from     *netns.NS
			to, want string
		}{
			"pod to cluster IP":                    {c.pods[3], "10.96.0.1:80", "pod0 from 10.244.4.2"},
			"pod to its own service":               {c.pods[0], "10.96.0.1:80", "pod0 from 10.244.1.1"},
			"node to cluster IP":                   {c.node, "10.96.0.1:80", "pod0 from 10.244.1.1"},
			"node to its node port on localhost":   {c.node, "127.0.0.1:30001", "pod0 from 10.244.1.1"},
			"outside to node port":                 {c.outside, "192.168.233.30:30001", "pod0 from 10.244.1.1"},
			"outside to node port, policy Local":   {c.outside, "192.168.233.30:30002", "pod1 from 192.168.233.1"},
			"pod to node port, policy Local":       {c.pods[3], "192.168.233.30:30002", "pod1 from 10.244.4.2"},
			"pod to external IP":                   {c.pods[3], "192.0.2.7:80", "pod2 from 10.244.3.1"},
			"pod in the source range to balancer":  {c.pods[3], "192.0.2.8:80", "pod2 from 10.244.3.1"},
			"anybody to the balancer's cluster IP": {c.pods[0], "10.96.0.4:80", "pod2 from 10.244.1.2"},
		} {
			t.Run(name, func(t *testing.T) {
				if c.mode == topology.ProxyNFTables && strings.HasPrefix(w.to, "127.") {
					t.Skip("this mode has no node ports on localhost")
				}
				if got := ask(t, w.from, w.to, 1)[0]; got != w.want {
					t.Errorf("%s: %q, want %q", w.to, got, w.want)
				}
			})
		}
	})
}

// A client outside of loadBalancerSourceRanges does not get through: its
// packets end in the rule that kube-proxy has for them.
func TestSourceRangesShutOut(t *testing.T) {
	inBothModes(t, func(t *testing.T, c *cluster) {
		c.load(service(1, "balanced", func(s *topology.Service) {
			s.Type = topology.LoadBalanced
			s.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("192.0.2.8")}
			s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.244.4.0/24")}
		}, 2))
		err := c.pods[0].Do(func() error {
			_, err := net.DialTimeout("tcp4", "192.0.2.8:80", 200*time.Millisecond)
			return err
		})
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("from outside of the range: %v, want no answer", err)
		}
		if c.mode == topology.ProxyNFTables {
			return // its rules do not count
		}
		rs, err := ParseSave(iptables(t, c.node, nil, "iptables-legacy-save", "-c", "-t", "filter"))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs.Table("filter").Chain("KUBE-PROXY-FIREWALL").Rules {
			if r.Target.Name == "DROP" && r.Counters != nil && r.Counters.Packets > 0 {
				return
			}
		}
		t.Errorf("no packet ended in KUBE-PROXY-FIREWALL:\n%s", rs)
	})
}
