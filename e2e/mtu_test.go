package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"slipway/internal/nl"
)

// pingHeaders are what a ping's payload is smaller by than its packet, in
// bytes: IPv4 20 (RFC 791) and ICMP 8 (RFC 792).
const pingHeaders = 28

// roomy is an MTU that no mode's packets fill, in bytes.
const roomy = 2000

// mtuCells hold the MTU to what it says, from a pod to one on another node (in
// the other rack if there are two): the largest packet passes whole; and one
// byte more, from a pod that knows no better, is answered by a node with the size
// that would pass (RFC 1191 §3), by which TCP finds its way.
func mtuCells(t *testing.T, l *testLab) {
	client, to, mtu := l.at("client"), l.at("web-d"), int(l.st.Snapshot.Network.MTU)
	if have := link(t, client, "eth0").Attrs().MTU; have != mtu {
		t.Errorf("eth0 of %s has MTU %d, want the lab's %d", client.name, have, mtu)
	}
	if want := 1500 - l.st.Snapshot.Network.Mode.Overhead(); mtu != want {
		t.Errorf("the lab's MTU is %d, want 1500 of the underlay less the encapsulation: %d", mtu, want)
	}
	transfer(t, client, to)
	if out, err := client.ping(to.addr, "-M", "do", "-s", strconv.Itoa(mtu-pingHeaders)); err != nil {
		t.Errorf("unfragmented packet of %d bytes (the MTU) %s → %s: no answer: %v\n%s", mtu, client.name, to.name, err, out)
	}
	widen(t, l, client)
	out, err := client.ping(to.addr, "-M", "do", "-s", strconv.Itoa(mtu+1-pingHeaders))
	if err == nil {
		t.Errorf("unfragmented packet of %d bytes (one more than the MTU) %s → %s: answered\n%s", mtu+1, client.name, to.name, out)
	}
	hop, size, ok := fragNeeded(out)
	node := tightest(l, client, to)
	if own := addresses(t, l.at(node)); !ok || size != mtu || !slices.Contains(own, hop) {
		t.Errorf("unfragmented packet of %d bytes %s → %s: want \"fragmentation needed\" with MTU %d from %s (%v); ping said:\n%s", mtu+1, client.name, to.name, mtu, node, own, out)
	}
	transfer(t, client, to)
}

// tightest is the node on the way whose next device is too small for a packet
// above the MTU: the sender's, where it encapsulates or where the underlay is no
// larger; but where it sends such a packet on as it is, the receiver's, whose
// pods' devices leave the room that other packets' encapsulation needs.
func tightest(l *testLab, from, to *place) string {
	a, _ := l.st.Snapshot.NodeByName(from.node)
	b, _ := l.st.Snapshot.NodeByName(to.node)
	if l.st.Snapshot.Network.Mode.Overhead() > 0 && !wireOf(l.st.Snapshot, a, b).outer {
		return to.node
	}
	return from.node
}

var fragLine = regexp.MustCompile(`From (\S+) icmp_seq=\d+ Frag needed and DF set \(mtu = (\d+)\)`)

// fragNeeded reads ping's report of ICMP type 3 code 4.
func fragNeeded(out string) (hop netip.Addr, mtu int, ok bool) {
	m := fragLine.FindStringSubmatch(out)
	if m == nil {
		return hop, 0, false
	}
	hop, err := netip.ParseAddr(m[1])
	if err != nil {
		return hop, 0, false
	}
	mtu, err = strconv.Atoi(m[2])
	return hop, mtu, err == nil
}

// transfer posts 1 MB and compares what arrived.
func transfer(t *testing.T, from, to *place) {
	t.Helper()
	body := make([]byte, 1<<20)
	if _, err := rand.Read(body); err != nil {
		t.Fatal(err)
	}
	a, err := from.send(netip.AddrPortFrom(to.addr, webPort), body)
	if err != nil {
		t.Errorf("POST of 1 MB %s → %s: %v", from.name, to.name, err)
		return
	}
	sum := sha256.Sum256(body)
	if a.Body == nil || a.Body.Bytes != int64(len(body)) || a.Body.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("POST of 1 MB %s → %s: %s received %+v, want %d bytes with SHA-256 %x", from.name, to.name, a.Pod, a.Body, len(body), sum)
	}
}

// widen raises the MTU of a pod's own link, and of what is between it and its
// node's routing, until the test ends.
func widen(t *testing.T, l *testLab, pod *place) {
	t.Helper()
	node := l.at(pod.node)
	setMTU(t, node, hostEnd(t, l, pod), roomy)
	if l.st.Snapshot.Network.Mode.IsFlannel() {
		setMTU(t, node, "cni0", roomy)
	}
	setMTU(t, pod, "eth0", roomy)
}

// hostEnd is the device on a pod's node that the pod is plugged into.
func hostEnd(t *testing.T, l *testLab, pod *place) string {
	t.Helper()
	index := link(t, pod, "eth0").Attrs().ParentIndex
	h := handle(t, l.at(pod.node))
	peer, err := h.LinkByIndex(index)
	if err != nil {
		t.Fatalf("host end of %s: %v", pod.name, err)
	}
	return peer.Attrs().Name
}

func setMTU(t *testing.T, p *place, dev string, mtu int) {
	t.Helper()
	was := link(t, p, dev).Attrs().MTU
	set := func(to int) error {
		h, err := nl.At(p.ns)
		if err != nil {
			return err
		}
		defer h.Close()
		l, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		return h.LinkSetMTU(l, to)
	}
	if err := set(mtu); err != nil {
		t.Fatalf("set MTU of %s in %s: %v", dev, p.name, err)
	}
	t.Cleanup(func() {
		if err := set(was); err != nil {
			t.Error(fmt.Errorf("set MTU of %s in %s back: %w", dev, p.name, err))
		}
	})
}

func link(t *testing.T, p *place, dev string) netlink.Link {
	t.Helper()
	l, err := handle(t, p).LinkByName(dev)
	if err != nil {
		t.Fatalf("%s in %s: %v", dev, p.name, err)
	}
	return l
}

// handle opens a netlink handle in a place until the test ends.
func handle(t *testing.T, p *place) *nl.Handle {
	t.Helper()
	h, err := nl.At(p.ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}
