package load

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/internal/run"
	"slipway/internal/testnet"
)

// Without offloads every packet is its own frame: what arrives is no longer than
// the MTU and its Ethernet header; with them a veth pair hands over whole writes.
// What is put back is what was there.
func TestSetOffloads(t *testing.T) {
	client, server := wired(t)
	d := Device{client.NS, "eth0", "client/eth0"}
	frame := func() float64 {
		bytes, packets := received(t, server)
		measure(t, Job{Workload: TCPStream, Client: client, Server: server, Duration: 100 * time.Millisecond})
		b, p := received(t, server)
		return (b - bytes) / (p - packets)
	}
	if got := frame(); got < 4*1514 {
		t.Errorf("with its offloads the pair carries frames of %.0f bytes", got)
	}
	before, err := d.SetOffloads(NoOffloads())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Offloads{"tso": true, "gso": true, "gro": false, "uso": true}, before); diff != "" {
		t.Error(diff)
	}
	if now, err := d.Offloads(); err != nil || now.String() != "rx tx sg" {
		t.Errorf("%q, %v", now, err)
	}
	if got := frame(); got > 1514 {
		t.Errorf("without offloads the pair carries frames of %.0f bytes", got)
	}
	if _, err := d.SetOffloads(before); err != nil {
		t.Fatal(err)
	}
	if now, err := d.Offloads(); err != nil || now.String() != "rx tx sg tso gso uso" {
		t.Errorf("%q, %v", now, err)
	}
}

// Checksums take with them what needs them; putting back brings it back.
func TestSetOffloadsThatOthersNeed(t *testing.T) {
	client, _ := wired(t)
	d := Device{client.NS, "eth0", "client/eth0"}
	before, err := d.SetOffloads(Offloads{"tx": false})
	if err != nil {
		t.Fatal(err)
	}
	if now, _ := d.Offloads(); now["tso"] || now["tx"] {
		t.Errorf("tso without tx: %q", now)
	}
	if _, err := d.SetOffloads(before); err != nil {
		t.Fatal(err)
	}
	if now, _ := d.Offloads(); now.String() != "rx tx sg tso gso uso" {
		t.Errorf("put back: %q", now)
	}
}

// The loopback device cannot compute without checksums, and says so; what had
// been changed before it failed is as it was.
func TestSetOffloadsThatAreFixed(t *testing.T) {
	client, _ := wired(t)
	lo := Device{client.NS, "lo", "client/lo"}
	was, err := lo.Offloads()
	if err != nil {
		t.Fatal(err)
	}
	for want, wrong := range map[string]Offloads{
		"set offload tx of client/lo to false": {"tx": false, "rx": true},
		`there is none called "lro"`:           {"lro": true},
	} {
		if _, err := lo.SetOffloads(wrong); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v gave %v, want %q", wrong, err, want)
		}
	}
	if _, err := (Device{client.NS, "eth9", "client/eth9"}).SetOffloads(NoOffloads()); err == nil {
		t.Error("a device that is not there was changed")
	}
	now, err := lo.Offloads()
	if diff := cmp.Diff(was, now); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

// Every kind of device that a lab has can be without.
func TestNoOffloadsOfAnyKind(t *testing.T) {
	client, _ := wired(t)
	h := testnet.Handle(t, client.NS)
	named := func(name string) netlink.LinkAttrs { return netlink.LinkAttrs{Name: name} }
	for _, l := range []netlink.Link{
		&netlink.Bridge{LinkAttrs: named("bridge")},
		&netlink.Vxlan{LinkAttrs: named("vxlan"), VxlanId: 1, Port: 8472},
		&netlink.Vxlan{LinkAttrs: named("external"), FlowBased: true, Port: 8285},
	} {
		if err := h.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := (run.Cmd{NS: client.NS, Name: "ip", Args: []string{"tuntap", "add", "tun", "mode", "tun"}}).Output(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"eth0", "bridge", "vxlan", "external", "tun", "lo"} {
		d := Device{client.NS, name, name}
		before, err := d.SetOffloads(NoOffloads())
		if err != nil {
			t.Error(err)
			continue
		}
		now, err := d.Offloads()
		if err != nil || now["tso"] || now["gso"] || now["gro"] || now["uso"] {
			t.Errorf("%s: %q, %v", name, now, err)
		}
		if _, err := d.SetOffloads(before); err != nil {
			t.Error(err)
		}
	}
}
