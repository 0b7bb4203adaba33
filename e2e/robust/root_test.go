package robust

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/netns"
	"slipway/internal/testnet"
)

// The root namespace is byte-for-byte the same before `up`, while a lab is up
// and works, and after `down`.
func TestRootNamespaceIsUntouched(t *testing.T) {
	w := newWorld(t)
	rootDump(t) // what reading alone brings about, it brings about now
	before := rootDump(t)
	for _, mode := range []string{"flannel-vxlan", "calico-ipip", "flannel-udp"} {
		name := labName()
		w.up(name, mode)
		w.works(name)
		wantSame(t, mode+" is up", before, rootDump(t))
		wantNoWireToRoot(t, name)
		wantNoPacketOutside(t, w, name)
		w.must("mode", "-L", name, "flannel-host-gw")
		wantSame(t, mode+" was switched", before, rootDump(t))
		w.must("down", name)
		wantSame(t, mode+" was taken down", before, rootDump(t))
	}
}

func wantSame(t *testing.T, when string, want, got map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: the root namespace differs (-before +now)\n%s", when, d)
	}
}

// counters are what iptables-save prints of chains and rules.
var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// aging are timers of addresses, routes and bridges that run by themselves.
var aging = regexp.MustCompile(`(valid_lft|preferred_lft|expires|[a-z_]+_timer) +[\d.]+(sec)?`)

// still takes out of a tool's output what moves without anybody's doing.
func still(text string) string {
	var out strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") { // iptables-save's time of day
			out.WriteString(aging.ReplaceAllString(counters.ReplaceAllString(line, "[0:0]"), "$1"))
		}
	}
	return out.String()
}

// rootDump reads the root namespace with the tools of the trade.
func rootDump(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, c := range []string{
		"ip -d link", "ip -d addr", "ip -4 route show table all", "ip -6 route show table all", "ip -4 rule", "ip -6 rule",
		"ip neigh show nud permanent", "ip netconf", "ip tunnel", "bridge -d link", "bridge fdb show", "bridge vlan",
		"tc qdisc", "tc filter show block 1", "iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "nft list ruleset",
	} {
		argv := strings.Fields(c)
		if _, err := exec.LookPath(argv[0]); err != nil {
			continue
		}
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables"))
		text, err := cmd.CombinedOutput()
		if err != nil {
			text = append(text, err.Error()...) // it has to fail in the same way
		}
		out[c] = still(string(text))
	}
	for _, d := range []string{"/sys/class/net", "/sys/devices/virtual/net"} {
		entries, _ := os.ReadDir(d)
		for _, e := range entries {
			out[d] += e.Name() + "\n"
		}
	}
	sysctls(t, out)
	return out
}

// moving are values below /proc/sys/net that change by themselves.
var moving = map[string]bool{
	"/proc/sys/net/netfilter/nf_conntrack_count": true,
}

func sysctls(t *testing.T, out map[string]string) {
	t.Helper()
	n := 0
	err := filepath.WalkDir("/proc/sys/net", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() || moving[path] {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			b = []byte(err.Error()) // write-only ones
		}
		out[path] = string(b)
		n++
		return nil
	})
	if err != nil || n < 100 {
		t.Fatalf("%d values below /proc/sys/net: %v", n, err)
	}
}

// wantNoPacketOutside listens on every device of the root namespace while pods
// and nodes talk to each other and to the world, for which TEST-NET-2 (RFC 5737)
// stands.
func wantNoPacketOutside(t *testing.T, w *world, name string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // read only
	w.works(name)
	for _, place := range []string{"client", "node01", "external"} {
		if s := w.run("exec", "-L", name, place, "--", "ping", "-c1", "-W0.3", "198.51.100.1"); s.Code == 0 {
			t.Errorf("%s: the world answers: %s", place, s.Out)
		}
	}
	lab := []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("192.168.233.0/24"), netip.MustParsePrefix("198.51.100.0/24")}
	for buf := make([]byte, 64); ; {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		src, dst := ends(from, buf[:n])
		if slices.ContainsFunc(lab, func(p netip.Prefix) bool { return p.Contains(src) || p.Contains(dst) }) {
			t.Errorf("a packet of the lab was seen in the root namespace: %s > %s", src, dst)
		}
	}
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// ends reads the addresses of an IPv4 or ARP packet (RFC 791 §3.1, RFC 826).
func ends(from unix.Sockaddr, p []byte) (src, dst netip.Addr) {
	ll, ok := from.(*unix.SockaddrLinklayer)
	at := map[uint16][2]int{htons(unix.ETH_P_IP): {12, 16}, htons(unix.ETH_P_ARP): {14, 24}}
	if !ok || len(p) < 28 || at[ll.Protocol][0] == 0 {
		return src, dst
	}
	o := at[ll.Protocol]
	return netip.AddrFrom4([4]byte(p[o[0]:])), netip.AddrFrom4([4]byte(p[o[1]:]))
}

// wantNoWireToRoot looks at every device of every namespace of a lab: none has
// its other end in the root namespace, and none is the machine's own.
func wantNoWireToRoot(t *testing.T, name string) {
	t.Helper()
	root, err := netns.Current() // tests run in it
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close() //nolint:errcheck // read only
	names, err := netns.Names("slipway-" + name + "-")
	if err != nil || len(names) < 5 {
		t.Fatalf("namespaces of the lab: %v (%v)", names, err)
	}
	for _, n := range names {
		ns, err := netns.Open(n)
		if err != nil {
			t.Fatal(err)
		}
		h := testnet.Handle(t, ns)
		// The number by which this namespace knows the root namespace, if it does.
		rootID, err := h.GetNetNsIdByFd(root.Fd())
		if err != nil {
			rootID = -1
		}
		links, err := h.LinkList()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			a := l.Attrs()
			if rootID >= 0 && a.NetNsID == rootID {
				t.Errorf("%s: the other end of %s is in the root namespace", n, a.Name)
			}
			if _, plain := l.(*netlink.Device); plain && a.Name != "lo" {
				t.Errorf("%s: %s is a device of the machine", n, a.Name)
			}
		}
		_ = ns.Close()
	}
}
