package trace_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/datapath/trace"
	"slipway/internal/netns"
	"slipway/internal/nl"
	"slipway/internal/testnet"
)

// fibBox is a namespace with three devices, and random routes and policy rules
// in it.
type fibBox struct {
	t    *testing.T
	ns   *netns.NS
	h    *nl.Handle
	rnd  *rand.Rand
	devs []netlink.Link
}

func newFIBBox(t *testing.T, seed uint64) *fibBox {
	b := &fibBox{t: t, ns: testnet.NewNS(t), rnd: rand.New(rand.NewPCG(seed, 7))}
	b.h = testnet.Handle(t, b.ns)
	far := testnet.NewNS(t)
	for i := range 3 {
		name := fmt.Sprintf("d%d", i)
		testnet.Wire(t, b.ns, name, fmt.Sprintf("10.%d.0.1/24", i), far, name, "")
		l, err := b.h.LinkByName(name)
		b.must(err)
		b.devs = append(b.devs, l)
	}
	b.must(b.ns.Do(func() error {
		return errors.Join(sysctl("ipv4/ip_forward", "1"), sysctl("ipv4/conf/all/rp_filter", "0"),
			sysctl("ipv4/conf/d0/rp_filter", "0"), sysctl("ipv4/conf/d1/rp_filter", "2"), sysctl("ipv4/conf/d2/rp_filter", "1"))
	}))
	return b
}

func sysctl(key, value string) error {
	return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644) //nolint:gosec // a sysctl of the test's namespace
}

func (b *fibBox) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// prefix is a random prefix out of few, so that they nest and meet.
func (b *fibBox) prefix() *net.IPNet {
	bits := []int{0, 8, 12, 16, 20, 24, 28, 32}[b.rnd.IntN(8)]
	return &net.IPNet{IP: b.address().Mask(net.CIDRMask(bits, 32)), Mask: net.CIDRMask(bits, 32)}
}

func (b *fibBox) address() net.IP {
	return net.IPv4(byte(10+b.rnd.IntN(3)), byte(b.rnd.IntN(4)), byte(b.rnd.IntN(3)), byte(b.rnd.IntN(40))).To4()
}

var routeTypes = []int{unix.RTN_UNICAST, unix.RTN_UNICAST, unix.RTN_UNICAST, unix.RTN_UNICAST, unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW}

func (b *fibBox) addRoutes(n int) {
	for range n {
		r := &netlink.Route{Dst: b.prefix(), Table: []int{254, 254, 100, 101}[b.rnd.IntN(4)], Priority: b.rnd.IntN(3), Type: routeTypes[b.rnd.IntN(len(routeTypes))]}
		if r.Type == unix.RTN_UNICAST {
			dev := b.rnd.IntN(3)
			r.LinkIndex = b.devs[dev].Attrs().Index
			r.Scope = netlink.SCOPE_LINK
			if b.rnd.IntN(2) == 0 {
				r.Gw, r.Scope = net.IPv4(10, byte(dev), 0, byte(2+b.rnd.IntN(9))).To4(), netlink.SCOPE_UNIVERSE
			}
			if b.rnd.IntN(4) == 0 {
				r.Src = net.IPv4(10, byte(b.rnd.IntN(3)), 0, 1).To4()
			}
			if b.rnd.IntN(5) == 0 {
				r.MTU = 1000 + b.rnd.IntN(400)
			}
		}
		if err := b.h.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			b.t.Fatalf("add route %v: %v", r, err)
		}
	}
}

func (b *fibBox) addRules(n int) {
	for i := range n {
		r := netlink.NewRule()
		r.Family, r.Priority, r.Table = unix.AF_INET, 100+10*i, []int{254, 100, 101}[b.rnd.IntN(3)]
		switch b.rnd.IntN(6) {
		case 0:
			r.Src = b.prefix()
		case 1:
			r.Dst = b.prefix()
		case 2:
			mask := uint32(0xf)
			r.Mark, r.Mask = uint32(1+b.rnd.IntN(3)), &mask
		case 3:
			r.IifName = fmt.Sprintf("d%d", b.rnd.IntN(3))
		case 4:
			r.Dst, r.Invert = b.prefix(), true
		case 5:
			r.OifName = fmt.Sprintf("d%d", b.rnd.IntN(3))
		}
		switch b.rnd.IntN(6) {
		case 0:
			r.Type, r.Table = unix.RTN_BLACKHOLE, 0
			r.Dst = b.prefix() // not for everything
		case 1:
			r.Type, r.Table = unix.RTN_PROHIBIT, 0
			r.Dst = b.prefix()
		}
		if r.Src != nil && r.Src.Mask[0] == 0 {
			r.Src = nil
		}
		if r.Dst != nil && r.Dst.Mask[0] == 0 {
			r.Dst = nil
			r.Invert = false
		}
		b.must(b.h.RuleAdd(r))
	}
}

// answer is what both sides say of a lookup: "10.0.0.7 dev d0 src 10.0.0.1", or
// the error.
func (b *fibBox) kernel(q trace.Lookup) string {
	o := &netlink.RouteGetOptions{Mark: q.Mark, Oif: q.OIf, Iif: q.IIf}
	if q.Src.IsValid() {
		o.SrcAddr = q.Src.AsSlice()
	}
	routes, err := b.h.RouteGetWithOptions(q.Dst.AsSlice(), o)
	var errno unix.Errno
	switch {
	case errors.As(err, &errno):
		return errno.Error()
	case err != nil || len(routes) != 1:
		b.t.Fatalf("route get %+v: %v %v", q, routes, err)
	}
	r := routes[0]
	if r.Type == unix.RTN_LOCAL {
		return "local"
	}
	l, err := b.h.LinkByIndex(r.LinkIndex)
	b.must(err)
	gw := q.Dst.String()
	if r.Gw != nil {
		gw = r.Gw.String()
	}
	s := gw + " dev " + l.Attrs().Name
	if q.IIf == "" && !q.Src.IsValid() {
		s += " src " + r.Src.String()
	}
	return s
}

// TestFIBIsTheKernels asks the kernel and the model for the way of random
// packets, through random routes and policy rules.
func TestFIBIsTheKernels(t *testing.T) {
	testnet.Need(t, testnet.Root)
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			b := newFIBBox(t, seed)
			b.addRoutes(60)
			if seed%3 != 0 { // every third box has the default rules: tables merged
				b.addRules(6)
			}
			host, err := linux.Open(b.ns, linux.Options{})
			b.must(err)
			defer host.Close()
			st, err := host.Collect(context.Background(), linux.CollectOptions{SkipRules: true, SkipSockets: true, SkipConntrack: true})
			b.must(err)
			b.compare(st, 400)
		})
	}
}

func (b *fibBox) compare(st *datapath.NetState, n int) {
	differ, found := 0, 0
	for range n {
		q := b.question()
		want, got := b.kernel(q), trace.LookUp(st, q)
		if want != got {
			differ++
			if differ < 10 {
				b.t.Errorf("%+v:\n kernel %s\n  model %s", q, want, got)
			}
		}
		if want != unix.ENETUNREACH.Error() {
			found++
		}
	}
	if differ > 0 {
		for _, r := range st.Policy {
			b.t.Log(r.Text)
		}
		b.t.Errorf("%d of %d lookups differ", differ, n)
	}
	if found < n/10 {
		b.t.Errorf("only %d of %d lookups led anywhere: the test tests nothing", found, n)
	}
}

func (b *fibBox) question() trace.Lookup {
	q := trace.Lookup{Dst: toAddr(b.address()), Mark: uint32(b.rnd.IntN(4))}
	switch b.rnd.IntN(5) {
	case 0:
		q.Src = netip.AddrFrom4([4]byte{10, byte(b.rnd.IntN(3)), 0, 1})
	case 1:
		q.OIf = fmt.Sprintf("d%d", b.rnd.IntN(3))
	case 2, 3:
		q.IIf, q.Src = fmt.Sprintf("d%d", b.rnd.IntN(3)), toAddr(b.address())
	}
	return q
}

func toAddr(ip net.IP) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(ip.To4()))
	return netip.AddrFrom4(b)
}
