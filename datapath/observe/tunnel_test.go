package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// hosts are two nodes on one wire.
func hosts(t *testing.T) (a, b *netns.NS, places []Place) {
	a, b = testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "192.168.233.30/24", b, "eth0", "192.168.233.40/24")
	return a, b, []Place{{Label: "node01", NS: a}, {Label: "node02", NS: b}}
}

func addVXLAN(t *testing.T, ns *netns.NS, local, remote, address string) {
	t.Helper()
	h := testnet.Handle(t, ns)
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, Port: 8472,
		VtepDevIndex: eth0.Attrs().Index, SrcAddr: net.ParseIP(local), Group: net.ParseIP(remote)}
	a, err := netlink.ParseAddr(address)
	if err == nil {
		err = h.LinkAdd(link)
	}
	if err == nil {
		err = h.AddrAdd(link, a)
	}
	if err == nil {
		err = h.LinkSetUp(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func vxlanPair(t *testing.T) (a, b *netns.NS, places []Place) {
	testnet.Need(t, testnet.VXLAN)
	a, b, places = hosts(t)
	addVXLAN(t, a, "192.168.233.30", "192.168.233.40", "10.244.1.1/16")
	addVXLAN(t, b, "192.168.233.40", "192.168.233.30", "10.244.2.1/16")
	return a, b, places
}

func TestVXLAN(t *testing.T) {
	a, _, places := vxlanPair(t)
	events := observe(t, places, a, ProbeICMP, "10.244.2.1:0")
	steps := Path(events)
	wantLines(t, steps,
		"request node01 flannel.1 out 10.244.1.1>10.244.2.1 ICMP echo request ttl 64",
		"request node01 eth0 out 10.244.1.1>10.244.2.1 ICMP echo request ttl 64 in vxlan 192.168.233.30>192.168.233.40 encap",
		"request node02 eth0 in 10.244.1.1>10.244.2.1 ICMP echo request ttl 64 in vxlan 192.168.233.30>192.168.233.40",
		"request node02 flannel.1 in 10.244.1.1>10.244.2.1 ICMP echo request ttl 64 decap",
		"reply node02 flannel.1 out 10.244.2.1>10.244.1.1 ICMP echo reply ttl 64",
		"reply node02 eth0 out 10.244.2.1>10.244.1.1 ICMP echo reply ttl 64 in vxlan 192.168.233.40>192.168.233.30 encap",
		"reply node01 eth0 in 10.244.2.1>10.244.1.1 ICMP echo reply ttl 64 in vxlan 192.168.233.40>192.168.233.30",
		"reply node01 flannel.1 in 10.244.2.1>10.244.1.1 ICMP echo reply ttl 64 decap",
	)
	request, reply := Hops(steps)
	if len(request) != 4 || len(reply) != 4 {
		t.Fatalf("%d and %d hops", len(request), len(reply))
	}
	vni := uint32(1)
	encap := request[1]
	if encap.Packet.Outer == nil {
		t.Fatal("the encapsulated hop has no outer packet")
	}
	encap.Packet.Outer.SPort = 0 // the kernel's hash of the inner flow
	// marker: 14 letters and 16 hex digits; 8 bytes of ICMP; 20 of IP
	want := trace.Hop{Seq: 2, Node: "node01", Namespace: a.Name(), Place: "node01", Device: "eth0", Stage: trace.Encap, Action: trace.EncapAction,
		TimeNs: encap.TimeNs, SinceNs: encap.TimeNs,
		Packet: datapath.Packet{Src: addr("10.244.1.1"), Dst: addr("10.244.2.1"), Proto: "icmp", TTL: 64, Length: 58,
			ID: encap.Packet.ID, DF: true, ICMP: &datapath.ICMPInfo{Type: 8, ID: encap.Packet.ICMP.ID, Seq: 1},
			Outer: &datapath.Outer{Type: "vxlan", Src: addr("192.168.233.30"), Dst: addr("192.168.233.40"), VNI: &vni, DPort: 8472, TTL: 64}}}
	if diff := cmp.Diff(want, encap, comparers); diff != "" {
		t.Errorf("hop of the encapsulation (-want +got):\n%s", diff)
	}
	if text, err := json.Marshal(encap); err != nil || !strings.Contains(string(text), `"outer":{"type":"vxlan","src":"192.168.233.30"`) {
		t.Errorf("as JSON: %s, %v", text, err)
	}
}

// What we write is what tshark reads, VXLAN and the names of devices included.
func TestPcapngInTShark(t *testing.T) {
	testnet.Need(t, testnet.TShark)
	a, _, places := vxlanPair(t)
	events := observe(t, places, a, ProbeICMP, "10.244.2.1:0")
	file := filepath.Join(t.TempDir(), "capture.pcapng")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := WritePcapng(f, events); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	got := tshark(t, file, "frame.interface_name", "frame.time_epoch", "vxlan.vni", "ip.src", "icmp.type")
	if len(got) != len(events) {
		t.Fatalf("tshark reads %d packets of %d:\n%s", len(got), len(events), strings.Join(got, "\n"))
	}
	want := []string{
		"node01/flannel.1||10.244.1.1|8",
		"node01/eth0|1|192.168.233.30,10.244.1.1|8",
		"node02/eth0|1|192.168.233.30,10.244.1.1|8",
		"node02/flannel.1||10.244.1.1|8",
		"node02/flannel.1||10.244.2.1|0",
		"node02/eth0|1|192.168.233.40,10.244.2.1|0",
		"node01/eth0|1|192.168.233.40,10.244.2.1|0",
		"node01/flannel.1||10.244.2.1|0",
	}
	for i, line := range got {
		fields := strings.Split(line, "|")
		if !sameTime(fields[1], events[i].Time) {
			t.Errorf("packet %d has time %s, not %d ns", i+1, fields[1], events[i].Time.UnixNano())
		}
		got[i] = strings.Join(append(fields[:1], fields[2:]...), "|")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tshark reads (-want +got):\n%s", diff)
	}
}

// sameTime compares tshark's epoch time, which newer versions write in ISO form.
func sameTime(text string, want time.Time) bool {
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return at.Equal(want)
	}
	sec, nsec, _ := strings.Cut(text, ".")
	return sec+nsec == strconv.FormatInt(want.UnixNano(), 10)
}

func tshark(t *testing.T, file string, fields ...string) []string {
	t.Helper()
	args := []string{"-n", "-r", file, "-d", "udp.port==8472,vxlan", "-T", "fields", "-E", "separator=|"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := run.Cmd{Name: "tshark", Args: args}.Output(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func TestPcapngOfNothing(t *testing.T) {
	testnet.Need(t, testnet.TShark)
	var b bytes.Buffer
	if err := WritePcapng(&b, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "empty.pcapng")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tshark(t, file, "frame.number"); len(got) != 1 || got[0] != "" {
		t.Errorf("an empty capture has packets: %q", got)
	}
}

// openTUN makes a TUN device with an address and a route to the pods.
func openTUN(t *testing.T, ns *netns.NS, address string) *os.File {
	t.Helper()
	testnet.Need(t, testnet.TUN)
	fd := -1
	err := ns.Do(func() error {
		var err error
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq("flannel0")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "flannel0")
	t.Cleanup(func() { _ = f.Close() })
	h := testnet.Handle(t, ns)
	l, err := h.LinkByName("flannel0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(address)
	if err == nil {
		err = h.AddrAdd(l, a)
	}
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// carry moves packets between a TUN device and datagrams to a peer.
func carry(t *testing.T, ns *netns.NS, tun *os.File, local, peer string) {
	t.Helper()
	var conn *net.UDPConn
	err := ns.Do(func() error {
		var err error
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	to := netip.MustParseAddrPort(peer)
	go pump(tun.Read, func(b []byte) (int, error) { return conn.WriteToUDPAddrPort(b, to) })
	go pump(conn.Read, tun.Write)
}

func pump(read, write func([]byte) (int, error)) {
	buf := make([]byte, 2048)
	for {
		n, err := read(buf)
		if err != nil {
			return
		}
		if _, err := write(buf[:n]); err != nil {
			return
		}
	}
}

// A user-space tunnel takes the packet out of one kernel object and makes
// another; it is still followed. TUN devices have no frame header.
func TestTUN(t *testing.T) {
	a, b, places := hosts(t)
	tunA, tunB := openTUN(t, a, "10.244.1.0/16"), openTUN(t, b, "10.244.2.0/16")
	carry(t, a, tunA, "192.168.233.30:8285", "192.168.233.40:8285")
	carry(t, b, tunB, "192.168.233.40:8285", "192.168.233.30:8285")
	listen(t, b, "10.244.2.0:80")
	events := observe(t, places, a, ProbeTCP, "10.244.2.0:80")
	wantLines(t, Path(events),
		"request node01 flannel0 out 10.244.1.0:CLIENT>10.244.2.0:80 TCP SYN ttl 64",
		"request node01 eth0 out 10.244.1.0:CLIENT>10.244.2.0:80 TCP SYN ttl 64 in udp 192.168.233.30>192.168.233.40 encap",
		"request node02 eth0 in 10.244.1.0:CLIENT>10.244.2.0:80 TCP SYN ttl 64 in udp 192.168.233.30>192.168.233.40",
		"request node02 flannel0 in 10.244.1.0:CLIENT>10.244.2.0:80 TCP SYN ttl 64 decap",
		"reply node02 flannel0 out 10.244.2.0:80>10.244.1.0:CLIENT TCP SYN-ACK ttl 64",
		"reply node02 eth0 out 10.244.2.0:80>10.244.1.0:CLIENT TCP SYN-ACK ttl 64 in udp 192.168.233.40>192.168.233.30 encap",
		"reply node01 eth0 in 10.244.2.0:80>10.244.1.0:CLIENT TCP SYN-ACK ttl 64 in udp 192.168.233.40>192.168.233.30",
		"reply node01 flannel0 in 10.244.2.0:80>10.244.1.0:CLIENT TCP SYN-ACK ttl 64 decap",
	)
	for _, e := range events {
		want := LinkEthernet
		if e.Device == "flannel0" {
			want = LinkRaw
		}
		if e.LinkType != want || (e.Packet.Ethernet == nil) != (want == LinkRaw) {
			t.Errorf("%s has link type %s, frame %v", e.Device, e.LinkType, e.Packet.Ethernet)
		}
	}
}

// The reader of a bridge sees its port first, then the bridge itself.
func TestBridge(t *testing.T) {
	pod, node := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, pod, "eth0", "10.244.1.2/24", node, "veth1", "")
	h := testnet.Handle(t, node)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0"}}
	a, err := netlink.ParseAddr("10.244.1.1/24")
	if err == nil {
		err = h.LinkAdd(bridge)
	}
	if err == nil {
		err = h.AddrAdd(bridge, a)
	}
	if err == nil {
		err = h.LinkSetUp(bridge)
	}
	if err != nil {
		t.Fatal(err)
	}
	veth, err := h.LinkByName("veth1")
	if err == nil {
		err = h.LinkSetMaster(veth, bridge)
	}
	if err != nil {
		t.Fatal(err)
	}
	echo(t, node, "10.244.1.1:7")
	wantLines(t, Path(observe(t, []Place{{Label: "node", NS: node}, {Label: "pod", NS: pod}}, pod, ProbeUDP, "10.244.1.1:7")),
		"request pod eth0 out 10.244.1.2:CLIENT>10.244.1.1:7 UDP ttl 64",
		"request node veth1 in 10.244.1.2:CLIENT>10.244.1.1:7 UDP ttl 64",
		"request node cni0 in 10.244.1.2:CLIENT>10.244.1.1:7 UDP ttl 64",
		"reply node cni0 out 10.244.1.1:7>10.244.1.2:CLIENT UDP ttl 64",
		"reply node veth1 out 10.244.1.1:7>10.244.1.2:CLIENT UDP ttl 64",
		"reply pod eth0 in 10.244.1.1:7>10.244.1.2:CLIENT UDP ttl 64",
	)
}
