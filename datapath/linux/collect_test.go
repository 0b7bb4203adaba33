package linux_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/datapath"
	"slipway/datapath/linux"
	"slipway/internal/netns"
	"slipway/internal/run"
	"slipway/internal/testnet"
)

// patience is far longer than the kernel takes, even on a busy machine.
const patience = 10 * time.Second

// in runs a program inside a namespace and returns what it printed.
func in(t testing.TB, ns *netns.NS, argv ...string) string {
	t.Helper()
	env := append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables.lock"))
	out, err := run.Cmd{NS: ns, Name: argv[0], Args: argv[1:], Env: env}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// batch runs commands of iproute2's ip, one a line.
func batch(t testing.TB, ns *netns.NS, lines string) {
	t.Helper()
	_, err := run.Cmd{NS: ns, Name: "ip", Args: []string{"-batch", "-"}, Stdin: strings.NewReader(lines)}.Output(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// asked unmarshals what a program said in JSON.
func asked[T any](t testing.TB, ns *netns.NS, argv ...string) []T {
	t.Helper()
	out := in(t, ns, argv...)
	var all []T
	if strings.TrimSpace(out) == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return all
}

func collected(t testing.TB, ns *netns.NS, o linux.CollectOptions) *datapath.NetState {
	t.Helper()
	h, err := linux.Open(ns, linux.Options{LockFile: filepath.Join(t.TempDir(), "xtables.lock")})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	st, err := h.Collect(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// menagerie is a namespace with some of everything, wired to another one.
func menagerie(t testing.TB) (ns, other *netns.NS) {
	t.Helper()
	testnet.Need(t, testnet.Root, testnet.VXLAN, testnet.TUN)
	ns, other = testnet.NewNS(t), testnet.NewNS(t)
	testnet.Wire(t, ns, "eth0", "192.0.2.10/24", other, "peer0", "192.0.2.20/24")
	batch(t, ns, `
link add br0 type bridge
link set br0 up
address add 10.1.0.1/24 dev br0
link add va type veth peer name vb
link set va master br0 up
link set vb up
link add vc type veth peer name vd
link set vc master br0
link add vx5 type vxlan id 5 local 192.0.2.10 dev eth0 dstport 8472 nolearning
link set vx5 address 0a:58:00:00:00:05 up
address add 10.1.5.0/32 dev vx5
link add d0 type veth peer name d1
link set d1 up
link set d0 up arp off promisc on mtu 1400
address add 10.9.0.1/16 dev d0
tuntap add dev tun0 mode tun
link set tun0 up
tuntap add dev tap0 mode tap
route add 10.20.0.0/16 via 192.0.2.20 metric 7 mtu 1300
route add 10.21.0.0/16 via 10.1.7.0 dev vx5 onlink proto bird
route add blackhole 10.22.0.0/16 proto bird
route add unreachable 10.23.0.0/16 table 77
route add prohibit 10.24.0.0/16
route add throw 10.25.0.0/16 table 77
route add 10.26.0.0/16 nexthop via 192.0.2.20 weight 3 nexthop via 10.9.0.9 dev d0 onlink
route add 10.27.0.0/16 tos 0x10 dev d0 src 10.9.0.1 mtu lock 1200 advmss 900
route add default via 192.0.2.20
route add 10.28.0.1 dev d0 scope link proto static
rule add priority 100 from 10.1.0.0/24 to 10.2.0.0/16 fwmark 0x10/0xf0 iif eth0 lookup 77
rule add priority 102 ipproto tcp dport 80 lookup 77
rule add priority 103 goto 32766
rule add priority 104 fwmark 0x1 prohibit
rule add priority 105 lookup main suppress_prefixlength 0
rule add priority 106 tos 0x08 unreachable
rule add priority 40000 not from 10.3.0.1 oif d0 blackhole
neigh add 192.0.2.30 lladdr 02:00:00:00:00:30 dev eth0 nud permanent
neigh add 192.0.2.31 lladdr 02:00:00:00:00:31 dev eth0 nud stale
neigh add 10.1.7.0 lladdr 0a:58:00:00:00:07 dev vx5 nud permanent
neigh add proxy 192.0.2.99 dev eth0
`)
	for _, line := range []string{
		"fdb add 0a:58:00:00:00:07 dev vx5 dst 192.0.2.20 self",
		"fdb add 0a:58:00:00:00:08 dev vx5 dst 192.0.2.21 port 8473 vni 6 self",
		"fdb add 02:11:22:33:44:55 dev va master static",
		"link set dev va hairpin on learning off flood off isolated on",
	} {
		in(t, ns, append([]string{"bridge"}, strings.Fields(line)...)...)
	}
	return ns, other
}

func TestCollectDevices(t *testing.T) {
	ns, _ := menagerie(t)
	type ipLink struct {
		Index  int      `json:"ifindex"`
		Name   string   `json:"ifname"`
		Flags  []string `json:"flags"`
		MTU    int      `json:"mtu"`
		Master string   `json:"master"`
		MAC    string   `json:"address"`
		Type   string   `json:"link_type"`
		Info   struct {
			Kind      string `json:"info_kind"`
			SlaveKind string `json:"info_slave_kind"`
			Slave     struct {
				State                              string
				Hairpin, Learning, Flood, Isolated bool
			} `json:"info_slave_data"`
		} `json:"linkinfo"`
		Addrs []struct {
			Family string
			Local  netip.Addr
			Len    int `json:"prefixlen"`
		} `json:"addr_info"`
	}
	in(t, ns, "ip", "link", "set", "br0", "type", "bridge", "nf_call_iptables", "1", "stp_state", "1")
	// Ports of a bridge that runs STP go from state to state by themselves, and links
	// get their carrier: they are compared when they did not while they were read.
	var st *datapath.NetState
	var links []ipLink
	testnet.Eventually(t, 5*time.Minute, "nothing changes while it is read", func() (bool, string) {
		links = asked[ipLink](t, ns, "ip", "-d", "-j", "address")
		st = collected(t, ns, linux.CollectOptions{SkipRules: true})
		return reflect.DeepEqual(links, asked[ipLink](t, ns, "ip", "-d", "-j", "address")), "devices change"
	})
	var want []datapath.Device
	for _, l := range links {
		d := datapath.Device{
			Name: l.Name, Index: l.Index, Kind: l.Info.Kind, MTU: l.MTU, Master: l.Master,
			Up: slices.Contains(l.Flags, "UP"), Carrier: slices.Contains(l.Flags, "LOWER_UP"),
			NoARP: slices.Contains(l.Flags, "NOARP"), Promisc: slices.Contains(l.Flags, "PROMISC"),
		}
		switch {
		case l.Type == "loopback":
			d.Kind = "loopback"
		case l.Info.Kind == "tun":
			d.Kind = map[string]string{"tun0": "tun", "tap0": "tap"}[l.Name]
		case l.Info.Kind == "vxlan":
			d.VXLAN = &datapath.VXLANAttrs{VNI: 5, Port: 8472, Local: netip.MustParseAddr("192.0.2.10"), Device: "eth0"}
		case l.Info.Kind == "bridge":
			d.Bridge = &datapath.BridgeAttrs{STP: true, CallIPTables: true}
		}
		if l.Type != "none" {
			d.MAC = l.MAC
		}
		if s := l.Info.Slave; l.Info.SlaveKind == "bridge" {
			d.Port = &datapath.BridgePort{State: s.State, Hairpin: s.Hairpin, Learning: s.Learning, Flood: s.Flood, Isolated: s.Isolated}
		}
		for _, a := range l.Addrs {
			if a.Family == "inet" {
				d.Addresses = append(d.Addresses, netip.PrefixFrom(a.Local, a.Len))
			}
		}
		want = append(want, d)
	}
	got := slices.Clone(st.Devices)
	for i := range got { // these have tests of their own
		got[i].PeerIndex, got[i].PeerNSID, got[i].Conf = 0, 0, datapath.DeviceConf{}
	}
	if d := cmp.Diff(want, got, comparers...); d != "" {
		t.Errorf("devices (-ip +collected):\n%s", d)
	}
	if p := st.Device("va").Port; !p.Hairpin || p.Learning || p.Flood || !p.Isolated {
		t.Errorf("va is set to hairpin on, learning off, flood off, isolated on, but collected as %+v", p)
	}
	if p := st.Device("vc").Port; p.State != "disabled" {
		t.Errorf("vc is down, but its port collected as %+v", p)
	}
}

var comparers = []cmp.Option{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
}

// A veth names its peer by index and the peer's namespace by number, unless it
// is its own.
func TestCollectPeers(t *testing.T) {
	ns, other := menagerie(t)
	here, there := collected(t, ns, linux.CollectOptions{}), collected(t, other, linux.CollectOptions{})
	va, vb := here.Device("va"), here.Device("vb")
	if va.PeerIndex != vb.Index || vb.PeerIndex != va.Index || va.PeerNSID != -1 || vb.PeerNSID != -1 {
		t.Errorf("va and vb are a pair in one namespace: %+v %+v", va, vb)
	}
	eth0, peer0 := here.Device("eth0"), there.Device("peer0")
	if eth0.PeerIndex != peer0.Index || peer0.PeerIndex != eth0.Index || eth0.PeerNSID < 0 || peer0.PeerNSID < 0 {
		t.Errorf("eth0 and peer0 are a pair across namespaces: %+v %+v", eth0, peer0)
	}
	if vx := here.Device("vx5"); vx.PeerIndex != 0 || vx.PeerNSID != -1 {
		t.Errorf("a VXLAN device has no peer: %+v", vx)
	}
	inode, err := ns.Inode()
	if err != nil {
		t.Fatal(err)
	}
	if here.Inode != inode || here.Namespace != ns.Name() {
		t.Errorf("namespace %s inode %d collected as %s inode %d", ns.Name(), inode, here.Namespace, here.Inode)
	}
}

// confFiles are the files of /proc that say what DeviceConf does.
var confFiles = map[string]func(*datapath.DeviceConf) *int{
	"forwarding":     func(c *datapath.DeviceConf) *int { return &c.Forwarding },
	"rp_filter":      func(c *datapath.DeviceConf) *int { return &c.RPFilter },
	"proxy_arp":      func(c *datapath.DeviceConf) *int { return &c.ProxyARP },
	"accept_local":   func(c *datapath.DeviceConf) *int { return &c.AcceptLocal },
	"route_localnet": func(c *datapath.DeviceConf) *int { return &c.RouteLocal },
	"arp_ignore":     func(c *datapath.DeviceConf) *int { return &c.ARPIgnore },
	"src_valid_mark": func(c *datapath.DeviceConf) *int { return &c.SrcValidMark },
}

// Settings differ from device to device and key to key, so that a mistaken
// place in the kernel's array shows.
func TestCollectSettings(t *testing.T) {
	ns, _ := menagerie(t)
	write := func(key, value string) {
		t.Helper()
		if err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/"+key, []byte(value), 0o644) }); err != nil {
			t.Fatal(err)
		}
	}
	devices := []string{"all", "default", "lo", "eth0", "br0", "va", "d0", "vx5"}
	keys := []string{"forwarding", "rp_filter", "proxy_arp", "accept_local", "route_localnet", "arp_ignore", "src_valid_mark"}
	for i, k := range keys {
		top := 1
		if k == "rp_filter" || k == "arp_ignore" {
			top = 2
		}
		for j, d := range devices[1:] { // writing all/forwarding would set the others
			write("conf/"+d+"/"+k, strconv.Itoa(((i+1)*(j+1)/2)%(top+1)))
		}
	}
	write("ip_default_ttl", "33")
	write("icmp_echo_ignore_all", "1")
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	for _, d := range devices {
		conf := map[string]*datapath.DeviceConf{"all": &st.All, "default": &st.Default}[d]
		if conf == nil {
			conf = &st.Device(d).Conf
		}
		for k, field := range confFiles {
			var raw []byte
			err := ns.Do(func() (err error) { raw, err = os.ReadFile("/proc/sys/net/ipv4/conf/" + d + "/" + k); return err })
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.TrimSpace(string(raw)); want != strconv.Itoa(*field(conf)) {
				t.Errorf("conf/%s/%s is %s, collected %d", d, k, want, *field(conf))
			}
		}
	}
	for key, want := range map[string]string{"net/ipv4/ip_default_ttl": "33", "net/ipv4/icmp_echo_ignore_all": "1", "net/ipv4/ip_forward": "0"} {
		if st.Sysctls[key] != want {
			t.Errorf("%s is %s, collected %q", key, want, st.Sysctls[key])
		}
	}
}

// plain puts single spaces where iproute2 prints tabulators and line ends.
func plain(s string) string { return strings.Join(strings.Fields(s), " ") }

// routesAsPrinted joins the legs of a multipath route to its first line.
func routesAsPrinted(out string) []string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "\t") && len(lines) > 0 {
			lines[len(lines)-1] += " " + plain(line)
			continue
		}
		lines = append(lines, plain(line))
	}
	return lines
}

func TestCollectRoutes(t *testing.T) {
	ns, _ := menagerie(t)
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	var got []string
	for _, r := range st.Routes {
		got = append(got, r.Text)
	}
	if d := cmp.Diff(routesAsPrinted(in(t, ns, "ip", "-4", "route", "show", "table", "all")), got); d != "" {
		t.Errorf("routes (-ip +collected):\n%s", d)
	}
	find := func(dst string, table int) datapath.FIBRoute {
		t.Helper()
		for _, r := range st.Routes {
			if r.Dst.String() == dst && r.Table == table {
				return r
			}
		}
		t.Fatalf("no route to %s in table %d", dst, table)
		return datapath.FIBRoute{}
	}
	addr, pfx := netip.MustParseAddr, netip.MustParsePrefix
	for _, want := range []datapath.FIBRoute{
		{Table: 254, Dst: pfx("10.20.0.0/16"), Type: "unicast", Priority: 7, Via: addr("192.0.2.20"), Dev: "eth0", Scope: "global", Protocol: 3, MTU: 1300},
		{Table: 254, Dst: pfx("10.21.0.0/16"), Type: "unicast", Via: addr("10.1.7.0"), Dev: "vx5", Scope: "global", Protocol: 12, Onlink: true},
		{Table: 254, Dst: pfx("10.22.0.0/16"), Type: "blackhole", Scope: "global", Protocol: 12},
		{Table: 77, Dst: pfx("10.23.0.0/16"), Type: "unreachable", Scope: "global", Protocol: 3},
		{Table: 254, Dst: pfx("10.24.0.0/16"), Type: "prohibit", Scope: "global", Protocol: 3},
		{Table: 77, Dst: pfx("10.25.0.0/16"), Type: "throw", Scope: "global", Protocol: 3},
		{Table: 254, Dst: pfx("10.27.0.0/16"), Type: "unicast", TOS: 16, Dev: "d0", Src: addr("10.9.0.1"), Scope: "link", Protocol: 3, MTU: 1200},
		{Table: 254, Dst: pfx("0.0.0.0/0"), Type: "unicast", Via: addr("192.0.2.20"), Dev: "eth0", Scope: "global", Protocol: 3},
		{Table: 255, Dst: pfx("10.9.0.1/32"), Type: "local", Dev: "d0", Src: addr("10.9.0.1"), Scope: "host", Protocol: 2},
		{Table: 254, Dst: pfx("10.26.0.0/16"), Type: "unicast", Scope: "global", Protocol: 3, NextHops: []datapath.NextHop{
			{Via: addr("192.0.2.20"), Dev: "eth0", Weight: 3}, {Via: addr("10.9.0.9"), Dev: "d0", Weight: 1, Onlink: true},
		}},
	} {
		got := find(want.Dst.String(), want.Table)
		got.Text = ""
		if d := cmp.Diff(want, got, comparers...); d != "" {
			t.Errorf("route to %s (-made +collected):\n%s", want.Dst, d)
		}
	}
}

// A leg whose device is down is dead; the carrier alone decides only where
// ignore_routes_with_linkdown is set.
func TestCollectDeadRoutes(t *testing.T) {
	ns, other := menagerie(t)
	batch(t, ns, "link set d0 down\n")
	batch(t, other, "link set peer0 down\n")
	h := testnet.Handle(t, ns)
	testnet.Eventually(t, patience, "eth0 loses its carrier", func() (bool, string) {
		l, err := h.LinkByName("eth0")
		return err == nil && l.Attrs().RawFlags&0x10000 == 0, fmt.Sprint(err)
	})
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	legs := func(st *datapath.NetState) []datapath.NextHop {
		for _, r := range st.Routes {
			if r.Dst.String() == "10.26.0.0/16" {
				return r.NextHops
			}
		}
		return nil
	}
	if l := legs(st); len(l) != 2 || l[0].Dead || !l[1].Dead {
		t.Errorf("d0 is down and eth0 has no carrier: legs %+v", l)
	}
	if d := st.Device("eth0"); !d.Up || d.Carrier {
		t.Errorf("eth0 is up without carrier: %+v", d)
	}
	if err := ns.Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/eth0/ignore_routes_with_linkdown", []byte("1"), 0o644)
	}); err != nil {
		t.Fatal(err)
	}
	st = collected(t, ns, linux.CollectOptions{SkipRules: true})
	if l := legs(st); len(l) != 2 || !l[0].Dead {
		t.Errorf("routes through eth0 are to be ignored: legs %+v", l)
	}
	var got []string
	for _, r := range st.Routes {
		got = append(got, r.Text)
	}
	if d := cmp.Diff(routesAsPrinted(in(t, ns, "ip", "-4", "route", "show", "table", "all")), got); d != "" {
		t.Errorf("routes (-ip +collected):\n%s", d)
	}
}

func TestCollectPolicy(t *testing.T) {
	ns, _ := menagerie(t)
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	var want, got []string
	for line := range strings.Lines(in(t, ns, "ip", "rule")) {
		want = append(want, plain(line))
	}
	for _, r := range st.Policy {
		got = append(got, r.Text)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rules (-ip +collected):\n%s", d)
	}
	pfx := netip.MustParsePrefix
	rules := []datapath.PolicyRule{
		{Priority: 0, Action: "lookup", Table: 255},
		{Priority: 100, Src: pfx("10.1.0.0/24"), Dst: pfx("10.2.0.0/16"), Mark: 0x10, Mask: 0xf0, IIf: "eth0", Action: "lookup", Table: 77},
		{Priority: 102, Action: "lookup", Table: 77, Other: "ipproto tcp dport 80"},
		{Priority: 103, Action: "goto", Goto: 32766},
		{Priority: 104, Mark: 1, Mask: 0xffffffff, Action: "prohibit"},
		{Priority: 105, Action: "lookup", Table: 254, Other: "suppress_prefixlength 0"},
		{Priority: 106, Action: "unreachable", Other: "tos 0x08"},
		{Priority: 32766, Action: "lookup", Table: 254},
		{Priority: 32767, Action: "lookup", Table: 253},
		{Priority: 40000, Src: pfx("10.3.0.1/32"), OIf: "d0", Invert: true, Action: "blackhole"},
	}
	have := slices.Clone(st.Policy)
	for i := range have {
		have[i].Text = ""
	}
	if d := cmp.Diff(rules, have, comparers...); d != "" {
		t.Errorf("rules (-made +collected):\n%s", d)
	}
}

func TestCollectNeighbors(t *testing.T) {
	ns, _ := menagerie(t)
	// Nobody has this address: asking for it leaves an entry that is not complete.
	_, _ = run.Cmd{NS: ns, Name: "ping", Args: []string{"-c1", "-w1", "192.0.2.77"}}.Output(t.Context())
	type ipNeigh struct {
		Dst, Dev string
		MAC      string `json:"lladdr"`
		State    []string
	}
	line := func(dev, addr, mac, state string) string {
		return strings.Join([]string{dev, addr, mac, strings.ToLower(state)}, " ")
	}
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	var want, got, proxies []string
	for _, n := range asked[ipNeigh](t, ns, "ip", "-4", "-j", "neigh", "show", "nud", "all") {
		want = append(want, line(n.Dev, n.Dst, n.MAC, strings.Join(n.State, ",")))
	}
	for _, n := range st.Neighbors {
		if n.Proxy {
			proxies = append(proxies, n.Dev+" "+n.Address.String())
			continue
		}
		got = append(got, line(n.Dev, n.Address.String(), n.MAC, n.State))
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("neighbours (-ip +collected):\n%s", d)
	}
	if d := cmp.Diff([]string{"eth0 192.0.2.99"}, proxies); d != "" {
		t.Errorf("proxy entries (-made +collected):\n%s", d)
	}
	if !slices.ContainsFunc(got, func(s string) bool { return s == "eth0 192.0.2.77  failed" || s == "eth0 192.0.2.77  incomplete" }) {
		t.Errorf("nobody has 192.0.2.77, but collected was %q", got)
	}
	for _, has := range []string{"eth0 192.0.2.30 02:00:00:00:00:30 permanent", "eth0 192.0.2.31 02:00:00:00:00:31 stale"} {
		if !slices.Contains(got, has) {
			t.Errorf("%q was made, but collected was %q", has, got)
		}
	}
}

func TestCollectFDB(t *testing.T) {
	ns, _ := menagerie(t)
	type bridgeFDB struct {
		MAC    string
		Dev    string `json:"ifname"`
		Flags  []string
		Master string
		State  string
		Dst    string
		Port   int
		VNI    int
		VLAN   int
	}
	st := collected(t, ns, linux.CollectOptions{SkipRules: true})
	var want []datapath.FDBState
	for _, f := range asked[bridgeFDB](t, ns, "bridge", "-j", "fdb") {
		if strings.HasPrefix(f.MAC, "33:33:") || strings.HasPrefix(f.MAC, "01:00:5e:") {
			continue // group addresses that devices listen to
		}
		e := datapath.FDBState{Dev: f.Dev, MAC: f.MAC, Master: f.Master, Port: f.Port, VNI: f.VNI, VLAN: f.VLAN}
		e.Local = f.State == "permanent" && f.Dev != "vx5"
		if f.Dst != "" {
			e.Dst = netip.MustParseAddr(f.Dst)
		}
		want = append(want, e)
	}
	if d := cmp.Diff(want, st.FDB, comparers...); d != "" {
		t.Errorf("fdb (-bridge +collected):\n%s", d)
	}
	for _, made := range []datapath.FDBState{
		{Dev: "vx5", MAC: "0a:58:00:00:00:07", Dst: netip.MustParseAddr("192.0.2.20")},
		{Dev: "vx5", MAC: "0a:58:00:00:00:08", Dst: netip.MustParseAddr("192.0.2.21"), Port: 8473, VNI: 6},
		{Dev: "va", MAC: "02:11:22:33:44:55", Master: "br0"},
		{Dev: "va", MAC: st.Device("va").MAC, Master: "br0", Local: true},
	} {
		if !slices.Contains(st.FDB, made) {
			t.Errorf("fdb has no %+v", made)
		}
	}
}
