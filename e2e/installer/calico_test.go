package installer

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"slipway/datapath"
	"slipway/datapath/bgp"
	"slipway/e2e/rig"
	"slipway/installer"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
)

// Of the speaker outside the cluster, which is ours.
var (
	outside      = netip.MustParsePrefix("192.168.233.90/24")
	outsideBlock = netip.MustParsePrefix("10.99.0.0/26")
	outsideHost  = netip.MustParseAddr("10.99.0.1")
)

// Calico's own programs: felix, confd, BIRD 2 and the plugins. Pods reach each
// other and services by them, and a speaker of ours is one more peer.
func TestFullUpstreamCalico(t *testing.T) {
	f := newFull(t, "{mode: calico-bgp, implementation: upstream, bgp: {peers: [{address: "+outside.Addr().String()+"}]}}", rig.Calico(t))
	testnet.Need(t, testnet.Ping)
	f.Unchanged(t, f.plan)
	t.Run("both pods answer at every node", f.everyPod)
	t.Run("pods reach each other and the service", f.eachOther)
	t.Run("our speaker is a peer", f.ourPeer)
	t.Run("BIRD 2 leaves the machine's own network to the kernel", func(t *testing.T) {
		for name, n := range f.Nodes {
			if out, _ := n.Sh("ip route show proto bird"); strings.Contains(out, outside.Masked().String()) {
				t.Errorf("%s: %s", name, out)
			}
		}
	})
	t.Run("undone, nothing of it is left", func(t *testing.T) {
		n := f.Nodes["node01"]
		if _, err := installer.Undo(t.Context(), n); err != nil {
			t.Error(err)
		}
		out, _ := n.Sh(`ps -eo args | grep -E '^(/[a-z/]*/)?(calico|bird)'; ls -d /etc/calico /var/lib/calico /var/log/calico /run/calico* 2>/dev/null; ls /usr/local/bin /opt/cni/bin 2>/dev/null | grep calico; ip route show proto bird; ip -o link | grep cali; iptables-save | grep cali; ipset list -n`)
		if strings.TrimSpace(out) != "" {
			t.Errorf("it has still\n%s", out)
		}
	})
}

// pods are the addresses of the workload's pods by their names.
func (f *full) pods(t *testing.T) map[string]netip.Addr {
	t.Helper()
	out := map[string]netip.Addr{}
	for line := range strings.Lines(f.kubectl(t, `get pods -l app=web -o jsonpath='{range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}'`)) {
		name, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		a, err := netip.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = a
	}
	return out
}

func (f *full) eachOther(t *testing.T) {
	service, err := netip.ParseAddr(strings.TrimSpace(f.kubectl(t, "get service web -o jsonpath='{.spec.clusterIP}'")))
	if err != nil {
		t.Fatal(err)
	}
	pods := f.pods(t)
	for from := range pods {
		for to, address := range pods {
			if out := f.ask(t, from, netip.AddrPortFrom(address, 8080)); !strings.Contains(out, to) {
				t.Errorf("%s asked %s (%s), and %q answered", from, to, address, out)
			}
		}
		if out := f.ask(t, from, netip.AddrPortFrom(service, 80)); !strings.Contains(out, "web-") {
			t.Errorf("%s asked the service, and %q answered", from, out)
		}
	}
}

// ask is the answer that a pod gets. Not by wget, which in Debian's static busybox
// looks its port up by libraries that the image lacks.
func (f *full) ask(t *testing.T, from string, to netip.AddrPort) string {
	t.Helper()
	return f.kubectl(t, fmt.Sprintf(`exec %s -- sh -c 'printf "GET / HTTP/1.0\r\n\r\n" | nc -w 5 %s %d'`, from, to.Addr(), to.Port()))
}

// ourPeer runs our speaker on a machine that calico's nodes are told of: blocks
// go one way, its own block the other, and packets follow both.
func (f *full) ourPeer(t *testing.T) {
	ns := testnet.NewNS(t)
	f.Fabric.Plug(ns, outside)
	h := testnet.Handle(t, ns)
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(outsideHost.AsSlice())})
	}
	if err != nil {
		t.Fatal(err)
	}
	net := f.Inputs.Snapshot.Network
	cfg := datapath.Speaker{ASN: net.BGP.ASN, RouterID: outside.Addr(), Listen: outside.Addr(), Announce: []netip.Prefix{outsideBlock}, Accept: net.PodCIDR}
	for _, n := range f.Inputs.Snapshot.Nodes {
		cfg.Peers = append(cfg.Peers, datapath.Peer{Name: n.Name, Address: n.Interface.Prefix.Addr(), ASN: net.BGP.ASN})
	}
	speaker(t, f.Inputs.Programs["slipway"].Path, ns, cfg)
	for name, n := range f.Nodes {
		testnet.Eventually(t, time.Minute, "our block on "+name, func() (bool, string) {
			out, _ := n.Sh("ip route show " + outsideBlock.String())
			return strings.Contains(out, "via "+outside.Addr().String()) && strings.Contains(out, "proto bird"), out
		})
	}
	for name, address := range f.pods(t) {
		testnet.Eventually(t, time.Minute, "the way to "+name, func() (bool, string) {
			routes, err := h.RouteGet(address.AsSlice())
			return err == nil && len(routes) == 1 && routes[0].Gw != nil, fmt.Sprint(routes, err)
		})
		ping := exec.Command("ping", "-c", "3", "-i", "0.2", "-W", "2", "-I", outsideHost.String(), address.String())
		var out []byte
		err := ns.Do(func() (err error) {
			out, err = ping.CombinedOutput()
			return err
		})
		if err != nil {
			t.Errorf("from our side to %s: %v\n%s", name, err, out)
		}
		f.kubectl(t, fmt.Sprintf("exec %s -- ping -c 3 -W 2 %s", name, outsideHost))
	}
}

// speaker runs one of ours until the test ends.
func speaker(t *testing.T, program string, ns *netns.NS, cfg datapath.Speaker) {
	t.Helper()
	p, err := bgp.Start(t.Context(), ns, []string{program, lab.SpeakerCommand}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { <-p.Done() }) // its input ends with the test
	if err := p.Configure(cfg); err != nil {
		t.Fatal(err)
	}
}
