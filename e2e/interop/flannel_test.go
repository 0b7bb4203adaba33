package interop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/run"
	"slipway/internal/testnet"
	"slipway/lab/bench/load"
	"slipway/lab/bench/peers"
	"slipway/topology"
)

// The nodes: ours has the datapath under test, theirs the real flanneld.
const (
	ours, theirs = "node01", "node02"
	nodes        = `  nodes:
    - {name: node01, roles: [control-plane, worker]}
    - {name: node02, roles: [worker]}
`
	pods = `apiVersion: v1
kind: Pod
metadata: {name: our-pod}
spec: {nodeName: node01, containers: [{name: c, image: test:1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: their-pod}
spec: {nodeName: node02, containers: [{name: c, image: test:1}]}
`
)

// mixed is a network of one node of ours and one of flanneld's.
type mixed struct {
	*peers.Lab
	t        *testing.T
	registry *peers.Registry
}

// mix brings a lab up and puts the real flanneld on one of its two nodes, with
// nothing of ours but the bridge and the pod. Ours stands in flannel's registry.
func mix(t *testing.T, mode topology.ModeName, udp topology.UDPImplementation) *mixed {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.IPTables, testnet.Ping, testnet.Flanneld)
	etcd, flanneld := program(t, "etcd", "etcd"), program(t, "flannel", "flanneld")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	spec := fmt.Sprintf("  network: {mode: %s}\n", mode)
	if udp != "" {
		spec = fmt.Sprintf("  network: {mode: %s, udp: {implementation: %s}}\n", mode, udp)
	}
	l, err := peers.Up(ctx, binary, peers.Backend(mode)+string(udp), spec+nodes, pods)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	m := &mixed{Lab: l, t: t}
	if m.registry, err = peers.StartRegistry(ctx, l, etcd, peers.Backend(mode)); err != nil {
		t.Fatal(err)
	}
	us := m.node(ours)
	lease := peers.Lease{PublicIP: us.Interface.Prefix.Addr(), BackendType: peers.Backend(mode)}
	if mode == topology.FlannelVXLAN {
		lease.BackendData = &peers.VXLANData{VNI: 1, VtepMAC: us.VTEPMAC}
	}
	if err := m.registry.PutLease(ctx, us.PodCIDR, lease); err != nil {
		t.Fatal(err)
	}
	if err := peers.Strip(l, theirs); err != nil {
		t.Fatal(err)
	}
	if _, err := peers.StartFlanneld(ctx, m.registry, flanneld, theirs); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *mixed) node(name string) topology.NodeState {
	m.t.Helper()
	n, ok := m.State.Snapshot.NodeByName(name)
	if !ok {
		m.t.Fatalf("no node %s", name)
	}
	return n
}

// at is a node or pod by name.
func (m *mixed) at(name string) load.Place {
	m.t.Helper()
	ns, target, err := m.At(name)
	if err != nil {
		m.t.Fatal(err)
	}
	return load.Place{NS: ns, Addr: target.Address, Label: name}
}

// works sends everything both ways: pings, the largest that fit among them, and
// streams in large writes, whose bytes have to arrive as they were sent.
func (m *mixed) works() {
	m.t.Helper()
	a, b := m.at("our-pod"), m.at("their-pod")
	for _, way := range [][2]load.Place{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		ctx, cancel := context.WithTimeout(m.t.Context(), patience)
		if err := m.Reaches(ctx, from.Label, to.Addr); err != nil {
			m.t.Errorf("%s → %s: %v", from.Label, to.Label, err)
		}
		cancel()
		m.ping(from, to.Addr)
		m.ping(from, to.Addr, "-M", "do", "-s", fmt.Sprint(int(m.State.Snapshot.Network.MTU)-28)) // 20 of IP, 8 of ICMP
		m.stream(from, to)
	}
}

func (m *mixed) ping(from load.Place, to netip.Addr, args ...string) {
	m.t.Helper()
	args = append([]string{"-n", "-c", "3", "-i", "0.05", "-W", "5"}, append(args, to.String())...)
	out, err := run.Cmd{NS: from.NS, Name: "ping", Args: args}.Output(m.t.Context())
	if err != nil {
		m.t.Errorf("%s: ping %v: %v\n%s", from.Label, args, err, out)
	}
}

// Streams are of this size, in writes that the kernel hands to the tunnel as
// super-packets with unfinished checksums.
const (
	streamBytes = 16 << 20
	writeBytes  = 1 << 20
)

// stream sends bytes over TCP and compares their sums.
func (m *mixed) stream(from, to load.Place) {
	m.t.Helper()
	var l net.Listener
	err := to.NS.Do(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(to.Addr, 0).String())
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // the test is over
	deadline := time.Now().Add(patience)
	type got struct {
		n   int64
		sum [sha256.Size]byte
		err error
	}
	arrived := make(chan got, 1)
	go func() {
		var g got
		defer func() { arrived <- g }()
		if g.err = l.(*net.TCPListener).SetDeadline(deadline); g.err != nil {
			return
		}
		c, err := l.Accept()
		if err != nil {
			g.err = err
			return
		}
		defer c.Close() //nolint:errcheck // read to its end
		h := sha256.New()
		g.err = c.SetDeadline(deadline)
		if g.err == nil {
			g.n, g.err = io.Copy(h, c)
		}
		g.sum = [sha256.Size]byte(h.Sum(nil))
	}()
	want, err := send(from, l.Addr().String(), deadline)
	if err != nil {
		m.t.Errorf("%s → %s: send %d bytes: %v", from.Label, to.Label, streamBytes, err)
		return
	}
	if g := <-arrived; g.err != nil || g.sum != want {
		m.t.Errorf("%s → %s: %d of %d bytes arrived (the same: %t): %v", from.Label, to.Label, g.n, streamBytes, g.sum == want, g.err)
	}
}

// send writes the stream and returns its sum.
func send(from load.Place, to string, deadline time.Time) (sum [sha256.Size]byte, err error) {
	var c net.Conn
	err = from.NS.Do(func() (err error) {
		c, err = (&net.Dialer{Deadline: deadline}).Dial("tcp4", to)
		return err
	})
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	buf := make([]byte, writeBytes)
	err = c.SetDeadline(deadline)
	for n := 0; n < streamBytes && err == nil; n += len(buf) {
		for i := range buf {
			buf[i] = byte(i*7 + n>>20)
		}
		h.Write(buf)
		_, err = c.Write(buf)
	}
	return [sha256.Size]byte(h.Sum(nil)), errors.Join(err, c.Close())
}

// finishChecksums makes the wire to flanneld's node what one of copper is: what
// our programs encapsulate crosses a veth with the inner checksum still to be
// computed, and flanneld, which reads the inner packet as bytes, passes it on
// like that.
func (m *mixed) finishChecksums() {
	m.t.Helper()
	port := load.Device{NS: m.at("fabric").NS, Name: theirs + "-eth0", Label: "fabric/" + theirs + "-eth0"}
	if _, err := port.SetOffloads(load.Offloads{"tx": false}); err != nil {
		m.t.Fatal(err)
	}
}

// unreachable expects both sides to answer, from the tunnel, a datagram to a
// subnet that nobody has a lease of, with an ICMP net unreachable (RFC 792, type 3
// code 0; flannel pkg/backend/udp/proxy_amd64.c, send_net_unreachable). It is
// looked for on the tunnel's device: its source is the device's own address, and
// Linux lets no such packet in (a martian), whoever made it.
func (m *mixed) unreachable(node, pod string) {
	m.t.Helper()
	fd := m.listen(node, "flannel0")
	defer unix.Close(fd) //nolint:errcheck // only read
	err := m.at(pod).NS.Do(func() error {
		c, err := net.Dial("udp4", netip.AddrPortFrom(nobody, 9).String())
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("nobody gets this"))
		return errors.Join(err, c.Close())
	})
	if err != nil {
		m.t.Fatal(err)
	}
	want := m.at(pod).Addr
	for buf := make([]byte, 2048); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			m.t.Errorf("%s: no ICMP net unreachable for %s: %v", node, want, err)
			return
		}
		p := gopacket.NewPacket(buf[:n], layers.LayerTypeIPv4, gopacket.NoCopy)
		ip, ok := p.NetworkLayer().(*layers.IPv4)
		icmp, is := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4)
		if ok && is && icmp.TypeCode == layers.CreateICMPv4TypeCode(layers.ICMPv4TypeDestinationUnreachable, layers.ICMPv4CodeNet) && ip.DstIP.String() == want.String() {
			return
		}
	}
}

// listen opens a packet socket on a device, whose reads end after some time.
func (m *mixed) listen(node, device string) (fd int) {
	m.t.Helper()
	l, err := testnet.Handle(m.t, m.at(node).NS).LinkByName(device)
	if err != nil {
		m.t.Fatal(err)
	}
	err = m.at(node).NS.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	all := uint16(unix.ETH_P_ALL)
	to := unix.SockaddrLinklayer{Protocol: all<<8 | all>>8, Ifindex: l.Attrs().Index}
	wait := unix.NsecToTimeval(answerPatience.Nanoseconds())
	if err := errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.Bind(fd, &to)); err != nil {
		m.t.Fatal(err)
	}
	return fd
}

// answerPatience is how long a tunnel may take to answer, on a busy machine too.
const answerPatience = 10 * time.Second

// nobody is in the network, and in no node's subnet.
var nobody = netip.MustParseAddr("10.244.77.7")

func TestUDP(t *testing.T) {
	for _, udp := range []topology.UDPImplementation{topology.UDPSimple, topology.UDPBatched, topology.UDPeBPF} {
		t.Run(string(udp), func(t *testing.T) {
			testnet.Need(t, testnet.TUN)
			m := mix(t, topology.FlannelUDP, udp)
			if udp == topology.UDPeBPF {
				m.finishChecksums()
			}
			m.works()
			m.unreachable(ours, "our-pod")
			m.unreachable(theirs, "their-pod")
		})
	}
}

// TestVXLAN: flanneld makes up a MAC for its VTEP, and says it in its lease.
func TestVXLAN(t *testing.T) {
	testnet.Need(t, testnet.VXLAN)
	m := mix(t, topology.FlannelVXLAN, "")
	them := m.node(theirs)
	lease, err := m.registry.Lease(t.Context(), them.PodCIDR)
	if err != nil {
		t.Fatal(err)
	}
	if lease.BackendData == nil || lease.BackendData.VNI != 1 || lease.BackendData.VtepMAC == them.VTEPMAC {
		t.Fatalf("flanneld's lease says %+v of its VTEP, want VNI 1 and a MAC of its own", lease.BackendData)
	}
	m.learn(them, lease)
	m.works()
}

// learn gives our node the VTEP of a lease in place of the one that it knew.
func (m *mixed) learn(them topology.NodeState, lease peers.Lease) {
	m.t.Helper()
	h := testnet.Handle(m.t, m.at(ours).NS)
	dev, err := h.LinkByName("flannel.1")
	if err != nil {
		m.t.Fatal(err)
	}
	before, err := net.ParseMAC(them.VTEPMAC)
	if err != nil {
		m.t.Fatal(err)
	}
	now, err := net.ParseMAC(lease.BackendData.VtepMAC)
	if err != nil {
		m.t.Fatal(err)
	}
	entry := func(mac net.HardwareAddr) *netlink.Neigh {
		return &netlink.Neigh{
			LinkIndex: dev.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF,
			HardwareAddr: mac, IP: lease.PublicIP.AsSlice(),
		}
	}
	err = errors.Join(h.NeighDel(entry(before)), h.NeighAppend(entry(now)), h.NeighSet(&netlink.Neigh{
		LinkIndex: dev.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT,
		HardwareAddr: now, IP: them.PodCIDR.Addr().AsSlice(),
	}))
	if err != nil {
		m.t.Fatal(err)
	}
}

func TestHostGW(t *testing.T) {
	mix(t, topology.FlannelHostGW, "").works()
}
