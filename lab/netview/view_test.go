package netview_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/bpf"
	"slipway/datapath/flannel"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/internal/testnet"
	"slipway/lab"
	"slipway/lab/netview"
)

// end is one end of a wire.
type end struct{ Namespace, Device string }

func peer(t *testing.T, n trace.Network, e end) end {
	t.Helper()
	ns, device, err := n.Peer(e.Namespace, e.Device)
	if err != nil {
		t.Fatalf("peer of %s in %s: %v", e.Device, e.Namespace, err)
	}
	return end{ns, device}
}

func TestPeers(t *testing.T) {
	st := up(t, "peers", "flannel-vxlan", "")
	pod := func(name string) string { return lab.NSOfPod(st.Lab, "default/"+name) }
	machine := func(name string) string { return lab.NSOfMachine(st.Lab, name) }
	fabric := lab.FabricNS(st.Lab)
	t.Run("as wired", func(t *testing.T) {
		v := view(t, st)
		for _, pair := range [][2]end{
			{{pod("a"), "eth0"}, {machine("node01"), flannel.HostIf("default/a")}},
			{{pod("b"), "eth0"}, {machine("node01"), flannel.HostIf("default/b")}},
			{{pod("d"), "eth0"}, {machine("node03"), flannel.HostIf("default/d")}},
			{{machine("node01"), "eth0"}, {fabric, "node01-eth0"}},
			{{machine("node03"), "eth0"}, {fabric, "node03-eth0"}},
			{{machine("r1"), "eth0"}, {fabric, "r1-eth0"}},
			{{machine("r1"), "eth1"}, {fabric, "r1-eth1"}},
			{{machine(lab.ExternalName), "eth0"}, {fabric, "external-eth0"}},
		} {
			if got := peer(t, v, pair[0]); got != pair[1] {
				t.Errorf("peer of %v is %v, want %v", pair[0], got, pair[1])
			}
			if got := peer(t, v, pair[1]); got != pair[0] {
				t.Errorf("peer of %v is %v, want %v", pair[1], got, pair[0])
			}
		}
		for _, d := range []string{"lo", "cni0", "flannel.1"} {
			if _, _, err := v.Peer(machine("node01"), d); !errors.Is(err, trace.ErrNoPeer) {
				t.Errorf("peer of %s: %v, want none", d, err)
			}
		}
		if _, _, err := v.Peer(machine("node01"), "eth9"); err == nil || errors.Is(err, trace.ErrNoPeer) {
			t.Errorf("peer of a device that is not there: %v", err)
		}
		checkRecorded(t, v, machine("node01"), machine("node02"))
	})
	t.Run("every veth", func(t *testing.T) {
		v := view(t, st)
		for _, p := range v.Places() {
			s, err := v.State(p.Namespace)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range s.Devices {
				if d.Kind != "veth" {
					continue
				}
				here := end{p.Namespace, d.Name}
				if back := peer(t, v, peer(t, v, here)); back != here {
					t.Errorf("the peer of the peer of %v is %v", here, back)
				}
			}
		}
	})
	// Names that lie must not be believed: the kernel knows who is connected.
	t.Run("names exchanged", func(t *testing.T) {
		node, err := netns.Open(machine("node01"))
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close() //nolint:errcheck // only looked at
		a, b := flannel.HostIf("default/a"), flannel.HostIf("default/b")
		exchange(t, node, a, b)
		defer exchange(t, node, a, b)
		v := view(t, st)
		if got, want := peer(t, v, end{machine("node01"), a}), (end{pod("b"), "eth0"}); got != want {
			t.Errorf("%s now leads to %v, found %v", a, want, got)
		}
		if got, want := peer(t, v, end{pod("a"), "eth0"}), (end{machine("node01"), b}); got != want {
			t.Errorf("pod a is now at %v, found %v", want, got)
		}
	})
	t.Run("to a stranger", func(t *testing.T) {
		node, err := netns.Open(machine("node02"))
		if err != nil {
			t.Fatal(err)
		}
		defer node.Close() //nolint:errcheck // only looked at
		testnet.Wire(t, testnet.NewNS(t), "out0", "", node, "stray0", "")
		v := view(t, st)
		if _, _, err := v.Peer(machine("node02"), "stray0"); !errors.Is(err, trace.ErrNoPeer) {
			t.Errorf("peer of a veth that leaves the lab: %v, want none", err)
		}
	})
	t.Run("places", func(t *testing.T) { checkPlaces(t, view(t, st), st) })
}

// exchange gives two devices each other's name. Interface names can change
// while devices are up since Linux 6.2; the lab's kernel may be older.
func exchange(t *testing.T, ns *netns.NS, a, b string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	rename := func(from, to string) {
		l, err := h.LinkByName(from)
		if err == nil {
			err = h.LinkSetDown(l)
		}
		if err == nil {
			err = h.LinkSetName(l, to)
		}
		if err == nil {
			err = h.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	rename(a, "between")
	rename(b, a)
	rename("between", b)
}

// checkRecorded wants a recording to answer like the view, for what was asked.
func checkRecorded(t *testing.T, v *netview.View, read, unread string) {
	t.Helper()
	// Peers were asked for, which needs the devices and no rules.
	part := v.Recorded()
	if _, err := part.State(read); !errors.Is(err, trace.ErrNotRecorded) {
		t.Errorf("state of %s, of which only devices were read: %v", read, err)
	}
	if st, err := part.Sketch(read); err != nil || st.Device("eth0") == nil || len(st.RuleSave) > 0 {
		t.Errorf("sketch of %s: %v, %v", read, st, err)
	}
	want, err := v.State(read)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v.Recorded())
	if err != nil {
		t.Fatal(err)
	}
	var r trace.Recorded
	if err := json.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	got, err := r.State(read)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("state of %s (-read +recorded):\n%s", read, d)
	}
	if _, err := r.State(unread); !errors.Is(err, trace.ErrNotRecorded) {
		t.Errorf("state of %s, which nobody read: %v", unread, err)
	}
	if a, b := peer(t, v, end{read, "eth0"}), peer(t, &r, end{read, "eth0"}); a != b {
		t.Errorf("peer of eth0 is %v, recorded %v", a, b)
	}
	if _, _, err := r.Peer(read, "lo"); !errors.Is(err, trace.ErrNoPeer) {
		t.Errorf("recorded peer of lo: %v", err)
	}
	if a, b := v.Place(read), r.Place(read); a != b {
		t.Errorf("place %v, recorded %v", a, b)
	}
}

func checkPlaces(t *testing.T, v *netview.View, st *lab.State) {
	t.Helper()
	want := []trace.Place{
		{Label: "node01", Node: "node01", Namespace: "slipway-" + st.Lab + "-node01"},
		{Label: "fabric", Node: "fabric", Namespace: "slipway-" + st.Lab + "-fabric", Wire: true},
		{Label: "default/c", Node: "node02", Namespace: "slipway-" + st.Lab + "-default.c", Pod: true},
	}
	places := v.Places()
	for _, p := range want {
		if !slices.Contains(places, p) {
			t.Errorf("places %+v have no %+v", places, p)
		}
		if v.Place(p.Namespace) != p {
			t.Errorf("place of %s is %+v", p.Namespace, v.Place(p.Namespace))
		}
		ns, err := v.NS(p.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		inode, err := ns.Inode()
		if err != nil {
			t.Fatal(err)
		}
		if name, ok := v.NamespaceByInode(inode); !ok || name != p.Namespace {
			t.Errorf("inode %d is %s, found %q", inode, p.Namespace, name)
		}
	}
	if name, ok := v.NamespaceByInode(1); ok {
		t.Errorf("inode 1 is %q", name)
	}
	if _, err := v.State("slipway-" + st.Lab + "-nobody"); !errors.Is(err, netns.ErrNotExist) {
		t.Errorf("state of no namespace: %v", err)
	}
	if _, ok := v.Recorded().Unread["slipway-"+st.Lab+"-nobody"]; !ok {
		t.Errorf("a namespace that could not be read is not recorded as such")
	}
}

// What a mode's tunnels need is seen to be there, and seen to be gone.
func TestTunnels(t *testing.T) {
	st := up(t, "tun", "flannel-udp", "")
	node01 := lab.NSOfMachine(st.Lab, "node01")
	read := func(t *testing.T) *datapath.NetState {
		t.Helper()
		s, err := view(t, st).State(node01)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	t.Run("flannel-udp", func(t *testing.T) {
		u := read(t).UDPTunnel
		if u == nil || !u.Running || u.Problem != "" || u.Device != "flannel0" || len(u.Leases) != 2 {
			t.Fatalf("node01 serves flannel0 for two other nodes, found %+v", u)
		}
		for _, n := range st.Snapshot.Nodes[1:] {
			want := datapath.TunnelLease{Subnet: n.PodCIDR, Remote: netip.AddrPortFrom(n.Address, 8285)}
			if !slices.Contains(u.Leases, want) {
				t.Errorf("leases %v have no %v", u.Leases, want)
			}
		}
		s, err := view(t, st).State(lab.NSOfMachine(st.Lab, "r1"))
		if err != nil || s.UDPTunnel != nil {
			t.Errorf("a router has no tunnel: %+v, %v", s.UDPTunnel, err)
		}
	})
	t.Run("its connection", func(t *testing.T) {
		var pod netip.Addr
		for _, p := range st.Snapshot.Pods {
			if p.Key() == "default/c" {
				pod = p.Address
			}
		}
		slipway(t, "exec", "-L", st.Lab, "a", "--", "ping", "-c", "1", "-W", "5", pod.String())
		here, there := netip.AddrPortFrom(st.Snapshot.Nodes[0].Address, 8285), netip.AddrPortFrom(st.Snapshot.Nodes[1].Address, 8285)
		c := read(t).Conntrack
		if c == nil || !slices.ContainsFunc(c.Entries, func(e datapath.ConntrackEntry) bool {
			return e.Proto == "udp" && (e.OrigSrc == here && e.OrigDst == there || e.OrigSrc == there && e.OrigDst == here)
		}) {
			t.Errorf("a ping went through the tunnel, whose connection is not among %+v", c)
		}
	})
	t.Run("stopped daemon", func(t *testing.T) {
		defer stopDaemon(t, st.Lab)()
		if u := read(t).UDPTunnel; u == nil || u.Running || !strings.Contains(u.Problem, "does not answer") || len(u.Leases) != 2 {
			t.Errorf("slipwayd is stopped, found %+v", u)
		}
	})
	t.Run("calico-ipip", func(t *testing.T) {
		slipway(t, "mode", "-L", st.Lab, "calico-ipip")
		st = state(t, st.Lab)
		s := read(t)
		if s.UDPTunnel != nil || s.IPIP == nil || !s.IPIP.Attached || s.IPIP.Device != "tunl0" {
			t.Fatalf("node01 has an IPIP tunnel that works, found %+v", s.IPIP)
		}
		v := view(t, st)
		speakers, err := v.Speakers()
		if err != nil || speakers["node01"].Peers == 0 || len(speakers["node01"].Down) > 0 {
			t.Errorf("node01 has BGP sessions, all up, found %+v, %v", speakers["node01"], err)
		}
		if s.IPIP.Implementation != "ebpf" {
			return
		}
		ns, err := v.NS(node01)
		if err == nil {
			err = bpf.DetachIPIP(ns, s.IPIP.IPIPTunnel)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i := read(t).IPIP; i == nil || i.Attached || i.Problem == "" {
			t.Errorf("the IPIP programs are gone, found %+v", i)
		}
	})
}

// A delayed wire leads through the daemon, where the kernel cannot delay.
func TestDelayedWire(t *testing.T) {
	st := up(t, "delay", "flannel-vxlan", ", delay: 2ms")
	v := view(t, st)
	inner, port := end{lab.NSOfMachine(st.Lab, "node01"), "eth0"}, end{lab.FabricNS(st.Lab), "node01-eth0"}
	for _, pair := range [][2]end{{inner, port}, {port, inner}} {
		if got := peer(t, v, pair[0]); got != pair[1] {
			t.Errorf("peer of %v is %v, want %v", pair[0], got, pair[1])
		}
	}
	s, err := v.State(inner.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	if s.Device("eth0").Kind != "tap" {
		return // this kernel has netem
	}
	if n := v.Notes(); len(n) != 1 || !strings.Contains(n[0], "relay") || !strings.Contains(n[0], "2ms") {
		t.Errorf("a relayed wire was crossed, and the notes are %q", n)
	}
	defer stopDaemon(t, st.Lab)()
	if _, _, err := view(t, st).Peer(inner.Namespace, inner.Device); !errors.Is(err, trace.ErrNoPeer) {
		t.Errorf("the relay's process is stopped, and the peer %v", err)
	}
}

// Many ask at once, and all get the same answer.
func TestViewIsSharedSafely(t *testing.T) {
	st := up(t, "many", "flannel-vxlan", "")
	v := view(t, st)
	var all []string
	for _, p := range v.Places() {
		all = append(all, p.Namespace)
	}
	done := make(chan *datapath.NetState)
	for range 8 {
		go func() {
			v.Prefetch(t.Context(), all...)
			_, _, _ = v.Peer(all[0], "eth0")
			_ = v.Recorded()
			s, _ := v.State(all[0])
			done <- s
		}()
	}
	first := <-done
	for range 7 {
		if s := <-done; s != first || s == nil {
			t.Errorf("one asker got %p, another %p", first, s)
		}
	}
	if got := len(v.Recorded().States); got != len(all) {
		t.Errorf("%d places were read, %d are recorded", len(all), got)
	}
}
