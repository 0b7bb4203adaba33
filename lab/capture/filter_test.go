package capture

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"slipway/datapath/observe"
	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// tcpdump is what compiles filters.
const tcpdump testnet.Capability = Program

// rig is a namespace with an Ethernet device and one without a frame header.
func rig(t *testing.T) *netns.NS {
	t.Helper()
	a, b := testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, a, "eth0", "10.9.0.1/24", b, "eth0", "10.9.0.2/24")
	h := testnet.Handle(t, a)
	tun := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "tun0"}, Mode: netlink.TUNTAP_MODE_TUN, Flags: netlink.TUNTAP_DEFAULTS, Queues: 1}
	if err := a.Do(func() error { return netlink.LinkAdd(tun) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range tun.Fds {
			_ = f.Close()
		}
	})
	l, err := h.LinkByName("tun0")
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("10.9.1.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.AddrAdd(l, addr), h.LinkSetUp(l)); err != nil {
		t.Fatal(err)
	}
	return a
}

// taken sends a datagram to ports 5 and 6 through each device and returns what a
// filter lets through: "device:port".
func taken(t *testing.T, ns *netns.NS, expression string, devices ...string) []string {
	t.Helper()
	place := observe.Place{Label: "a", NS: ns}
	f, err := Compile(context.Background(), expression, DefaultSnapLen)
	if err != nil {
		t.Fatal(err)
	}
	list, err := observe.Devices(place)
	if err != nil {
		t.Fatal(err)
	}
	var only []int
	if len(devices) > 0 {
		if list, err = restrict("a", list, devices); err != nil {
			t.Fatal(err)
		}
		for _, d := range list {
			only = append(only, d.Index)
		}
	}
	prog, err := f.program(only)
	if err != nil {
		t.Fatal(err)
	}
	c, err := observe.Open([]observe.Place{place}, observe.Options{Filter: prog, RingBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close() //nolint:errcheck // test
	for _, to := range []string{"10.9.0.2:5", "10.9.1.2:5", "10.9.0.2:6", "10.9.1.2:6"} {
		err := ns.Do(func() error {
			conn, err := net.DialTimeout("udp4", to, time.Second)
			if err != nil {
				return err
			}
			defer conn.Close() //nolint:errcheck // test
			_, err = conn.Write([]byte("x"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what was sent is in the ring
	var out []string
	err = c.Stream(ctx, func(events []observe.Event) error {
		for _, e := range events {
			if p := e.Packet.IP; p.Valid() && p.TCP == nil && p.ICMP == nil && e.Direction == observe.Out {
				out = append(out, e.Device+":"+string(rune('0'+p.DstPort)))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// One filter means the same on devices with and without a frame header.
func TestFilterFitsEachDevice(t *testing.T) {
	testnet.Need(t, testnet.Root, testnet.TUN, tcpdump)
	ns := rig(t)
	for _, c := range []struct {
		filter  string
		devices []string
		want    []string
	}{
		{"", nil, []string{"eth0:5", "tun0:5", "eth0:6", "tun0:6"}},
		{"udp port 6", nil, []string{"eth0:6", "tun0:6"}},
		{"udp port 6", []string{"tun*"}, []string{"tun0:6"}},
		{"dst host 10.9.0.2 and udp[2:2] == 5", nil, []string{"eth0:5"}},
		{"", []string{"eth0"}, []string{"eth0:5", "eth0:6"}},
		{"ether[12:2] == 0x800 and udp", nil, []string{"eth0:5", "eth0:6"}}, // a tun has no EtherType
	} {
		if d := cmp.Diff(c.want, taken(t, ns, c.filter, c.devices...)); d != "" {
			t.Errorf("%q at %v (-want +got)\n%s", c.filter, c.devices, d)
		}
	}
}

// What tcpdump says against a filter is what the user is told.
func TestWrongFilters(t *testing.T) {
	testnet.Need(t, testnet.Root, tcpdump)
	for expression, want := range map[string]string{
		"tcp prot 80":   "syntax error",
		"ip and arp":    "no packet can match",
		"port http or ": "syntax error",
		"host nowhere":  "unknown host 'nowhere'",
	} {
		_, err := Compile(context.Background(), expression, DefaultSnapLen)
		var wrong *FilterError
		if !errors.As(err, &wrong) || !strings.Contains(wrong.Reason, want) {
			t.Errorf("%q: %v, want %q", expression, err, want)
		}
	}
}

// More devices than a program has room for are an error and no other choice.
func TestTooManyDevices(t *testing.T) {
	f, err := Compile(context.Background(), "", DefaultSnapLen)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.program(make([]int, 3000)); err == nil {
		t.Error("a program of more than 4096 instructions was not refused")
	}
}
