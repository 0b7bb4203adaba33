package load

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	if diff := cmp.Diff(Offloads{"tso": true, "gso": true, "gro": false}, before); diff != "" {
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
	if now, err := d.Offloads(); err != nil || now.String() != "rx tx sg tso gso" {
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
	if now, _ := d.Offloads(); now.String() != "rx tx sg tso gso" {
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
