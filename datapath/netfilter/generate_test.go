package netfilter

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
)

// generator makes rule sets and packets that have much to do with each other.
type generator struct {
	*rand.Rand
	serial int  // of the rule set
	other  bool // a packet without ports has been sent through it
	id     uint16
	port   uint16 // every connection has a source port of its own
}

func (g *generator) one(list ...string) string { return list[g.IntN(len(list))] }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) not(percent int) string {
	if g.chance(percent) {
		return "! "
	}
	return ""
}

var (
	sources      = []string{"10.1.3.1", "10.1.3.2", "10.1.4.1", "172.30.0.7", "192.0.2.9"}
	destinations = []string{"10.2.3.1", "10.2.3.2", "10.2.4.1", "10.96.0.10", "10.1.0.1", "10.2.0.1"}
	destPorts    = []string{"53", "80", "443", "8080", "30000"}
)

// ruleset writes all tables. A chain of its own belongs to one hook, so that what
// the kernel allows there is known.
func (g *generator) ruleset() string {
	g.serial++
	g.other = false
	var b strings.Builder
	for _, table := range []string{"raw", "mangle", "nat", "filter", "security"} {
		g.table(&b, table)
	}
	return b.String()
}

func (g *generator) table(b *strings.Builder, table string) {
	var heads, rules strings.Builder
	for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		known := false
		for _, t := range Order(hook) {
			known = known || t == table
		}
		if !known {
			continue
		}
		base := strings.ToUpper(hook)
		policy := "ACCEPT"
		if table == "filter" && g.chance(20) {
			policy = "DROP"
		}
		fmt.Fprintf(&heads, ":%s %s [0:0]\n", base, policy)
		n := 2 + g.IntN(4)
		for i := range n {
			fmt.Fprintf(&heads, ":%s-%d - [0:0]\n", base[:4], i)
		}
		for i := -1; i < n; i++ {
			c := place{g: g, table: table, hook: hook, name: base, next: i + 1, chains: n}
			if i >= 0 {
				c.name, c.own = fmt.Sprintf("%s-%d", base[:4], i), true
			}
			for range 1 + g.IntN(5) {
				rules.WriteString(c.rule())
			}
			if i < 0 { // come to the chains for sure
				fmt.Fprintf(&rules, "-A %s -j %s-0\n", c.name, base[:4])
			}
		}
		if table == "mangle" && hook == "postrouting" { // shows the mark
			for bit := range 16 {
				fmt.Fprintf(&rules, "-A POSTROUTING -m mark --mark 0x%x/0x%x\n", 1<<bit, 1<<bit)
			}
		}
	}
	fmt.Fprintf(b, "*%s\n%s%sCOMMIT\n", table, heads.String(), rules.String())
}

// place is the chain that a rule is written for.
type place struct {
	g            *generator
	table, hook  string
	name         string
	own          bool // not a built-in chain
	next, chains int  // chains that may be jumped to
	hasOut       bool // the rule has -o
}

func (c *place) rule() string {
	g := c.g
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	if g.chance(25) {
		add("%s-s %s", g.not(30), g.prefix(sources))
	}
	if g.chance(30) {
		add("%s-d %s", g.not(30), g.prefix(destinations))
	}
	hasIn := c.hook != "output" && c.hook != "postrouting"
	hasOut := c.hook != "prerouting" && c.hook != "input"
	if (hasIn || c.own) && g.chance(15) {
		add("%s-i %s", g.not(30), g.one("eth0", "eth1", "eth+", "e+", "lo", "eth"))
	}
	if c.hasOut = (hasOut || c.own) && g.chance(15); c.hasOut {
		add("%s-o %s", g.not(30), g.one("eth0", "eth1", "eth+", "lo", "eth10"))
	}
	proto := ""
	if g.chance(50) {
		proto = g.one("tcp", "tcp", "udp", "udp", "icmp", "sctp", "253")
		not := ""
		if g.chance(10) {
			not, proto = "! ", g.one("tcp", "udp", "icmp")
		}
		add("%s-p %s", not, proto)
		if not != "" {
			proto = ""
		}
	}
	for range g.IntN(3) {
		add("%s", c.match(proto))
	}
	add("%s", c.target(proto))
	line := strings.Join(w, " ")
	return "-A " + c.name + " " + strings.Join(strings.Fields(line), " ") + "\n"
}

func (g *generator) prefix(of []string) string {
	a := g.one(of...)
	switch g.IntN(8) {
	case 0:
		return netip.PrefixFrom(netip.MustParseAddr(a), 16).Masked().String()
	case 1:
		return netip.PrefixFrom(netip.MustParseAddr(a), 24).Masked().String()
	case 2:
		return netip.PrefixFrom(netip.MustParseAddr(a), 8).Masked().String()
	case 3:
		b := netip.MustParseAddr(a).As4()
		b[2] = 0
		return netip.AddrFrom4(b).String() + "/255.255.0.255"
	}
	return a + "/32"
}

func (g *generator) mark() string {
	switch g.IntN(3) {
	case 0:
		return fmt.Sprintf("0x%x", g.IntN(8))
	case 1:
		bit := 1 << g.IntN(16)
		return fmt.Sprintf("0x%x/0x%x", bit, bit)
	default:
		return fmt.Sprintf("0x%x/0x%x", g.IntN(256), g.IntN(65536))
	}
}

func (g *generator) ports(separator string) string {
	if g.chance(30) {
		return g.one("0"+separator+"1023", "50"+separator+"100", "1000"+separator+"65535", "20000"+separator+"40000")
	}
	return g.one(destPorts...)
}

// match is one match that the kernel takes at this place.
func (c *place) match(proto string) string {
	g := c.g
	if (proto == "tcp" || proto == "udp" || proto == "icmp") && g.chance(50) {
		return c.protocolMatch(proto)
	}
	switch g.IntN(13) {
	case 0:
		return "-m mark " + g.not(30) + "--mark " + g.mark()
	case 1:
		return "-m connmark " + g.not(30) + "--mark " + g.mark()
	case 2:
		return c.conntrackMatch()
	case 3:
		return "-m state " + g.not(20) + "--state " + g.one("NEW", "RELATED,ESTABLISHED", "INVALID", "NEW,UNTRACKED")
	case 4:
		return c.addrtype()
	case 5:
		return "-m statistic --mode random " + g.not(30) + "--probability " + g.one("0", "1", "1.00000000000")
	case 6:
		return "-m statistic --mode nth " + g.not(20) + "--every 1 --packet 0"
	case 7:
		return c.recent()
	case 8:
		return "-m iprange " + g.not(30) + g.one("--src-range 10.1.3.0-10.1.3.1", "--dst-range 10.2.3.2-10.96.0.10", "--src-range 0.0.0.0-255.255.255.255")
	case 9:
		return "-m length " + g.not(30) + "--length " + g.one("0:60", "64", "44:100", "100:")
	case 10:
		return "-m ttl " + g.one("--ttl-eq 64", "! --ttl-eq 63", "--ttl-lt 64", "--ttl-gt 10", "--ttl-lt 10")
	case 11:
		return `-m comment --comment ` + g.one(`plain`, `"with -j DROP in \"it\""`, `"! -s 1.2.3.4"`)
	default:
		return "-m physdev " + g.not(50) + g.one("--physdev-in eth0", "--physdev-is-in", "--physdev-is-bridged")
	}
}

func (c *place) protocolMatch(proto string) string {
	g := c.g
	if proto == "icmp" {
		return "-m icmp " + g.not(30) + "--icmp-type " + g.one("8", "0", "3", "3/1", "8/0", "any", "echo-request", "11")
	}
	if proto == "tcp" && g.chance(30) {
		return "-m tcp " + g.not(30) + g.one("--syn", "--tcp-flags FIN,SYN,RST,ACK SYN", "--tcp-flags SYN,ACK ACK", "--tcp-flags ALL SYN", "--tcp-flags RST RST", "--tcp-flags ALL NONE")
	}
	if g.chance(30) {
		return "-m multiport " + g.not(30) + g.one("--dports 53,80,8000:9000", "--sports 1000:20000", "--ports 443,30000,1024:1100", "--dports 443")
	}
	s := "-m " + proto
	if g.chance(40) {
		s += " " + g.not(30) + "--sport " + g.ports(":")
	}
	return s + " " + g.not(20) + "--dport " + g.ports(":")
}

func (c *place) conntrackMatch() string {
	g := c.g
	s := "-m conntrack"
	if g.chance(60) {
		s += " " + g.not(25) + "--ctstate " + g.one("NEW", "INVALID", "RELATED,ESTABLISHED", "NEW,DNAT", "RELATED,ESTABLISHED,DNAT", "SNAT", "DNAT", "UNTRACKED", "SNAT,DNAT", "INVALID,UNTRACKED")
		if g.chance(60) {
			return s
		}
	}
	switch g.IntN(8) {
	case 0:
		return s + " --ctdir " + g.one("ORIGINAL", "REPLY")
	case 1:
		return s + " " + g.not(30) + "--ctorigdst " + g.prefix(destinations)
	case 2:
		return s + " " + g.not(30) + "--ctorigsrc " + g.prefix(sources)
	case 3:
		return s + " " + g.not(30) + "--ctrepldst " + g.prefix(sources)
	case 4:
		return s + " " + g.not(30) + "--ctreplsrc " + g.prefix(destinations)
	case 5:
		return s + " " + g.not(30) + "--ctorigdstport " + g.ports(":")
	case 6:
		return s + " " + g.not(30) + "--ctstatus " + g.one("SEEN_REPLY", "CONFIRMED", "EXPECTED", "SEEN_REPLY,CONFIRMED")
	default:
		return s + " " + g.not(30) + "--ctproto " + g.one("tcp", "17", "icmp")
	}
}

func (c *place) addrtype() string {
	g := c.g
	s := "-m addrtype"
	if g.chance(50) {
		s += " " + g.not(30) + "--src-type " + g.one("LOCAL", "UNICAST", "LOCAL,UNICAST")
	}
	if g.chance(80) || s == "-m addrtype" {
		s += " " + g.not(30) + "--dst-type " + g.one("LOCAL", "UNICAST", "LOCAL,BROADCAST", "BROADCAST", "MULTICAST")
	}
	if g.chance(30) {
		switch c.hook {
		case "prerouting", "input":
			s += " --limit-iface-in"
		case "output", "postrouting":
			s += " --limit-iface-out"
		case "forward":
			s += " " + g.one("--limit-iface-in", "--limit-iface-out")
		}
	}
	return s
}

func (c *place) recent() string {
	g := c.g
	s := "-m recent " + g.not(20) + g.one("--set", "--rcheck", "--rcheck --seconds 1000", "--rcheck --hitcount 3", "--update", "--rcheck --seconds 1000 --reap")
	// one mask per list: the kernel refuses others
	return fmt.Sprintf("%s --name L%d-%d --mask 255.255.255.255 %s", s, g.serial, g.IntN(3), g.one("--rsource", "--rdest"))
}

// target is one target that the kernel takes at this place.
func (c *place) target(proto string) string {
	g := c.g
	if c.next < c.chains && g.chance(40) {
		verb := "-j"
		if g.chance(20) {
			verb = "-g"
		}
		return fmt.Sprintf("%s %s-%d", verb, strings.ToUpper(c.hook)[:4], c.next+g.IntN(c.chains-c.next))
	}
	if c.table == "nat" && g.chance(35) {
		return c.natTarget(proto)
	}
	switch n := g.IntN(100); {
	case n < 30:
		return "-j MARK " + g.one("--set-xmark", "--set-mark", "--set-xmark") + " " + g.mark()
	case n < 40:
		return "-j MARK " + g.one("--or-mark", "--and-mark", "--xor-mark") + fmt.Sprintf(" 0x%x", g.IntN(65536))
	case n < 55 && c.table == "mangle":
		return "-j CONNMARK " + g.one("--save-mark", "--restore-mark", "--save-mark --mask 0xff", "--restore-mark --nfmask 0xf0 --ctmask 0xff", "--set-xmark 0x3/0x7", "--set-mark 0x5", "--or-mark 0x10")
	case n < 65:
		return "-j RETURN"
	case n < 73:
		return "-j ACCEPT"
	case n < 78 && c.table == "filter":
		return "-j " + g.one("DROP", "REJECT", "REJECT --reject-with icmp-host-prohibited")
	case n < 79 && c.table != "nat":
		return "-j DROP"
	case n < 85 && c.table == "raw":
		return "-j CT --notrack"
	case n < 85 && c.table == "mangle":
		return "-j TTL " + g.one("--ttl-set 50", "--ttl-inc 1", "--ttl-dec 1")
	case n < 90 && c.table == "mangle" && proto == "tcp":
		return "-m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"
	case n < 92 && c.table == "mangle":
		return "-j CHECKSUM --checksum-fill"
	}
	return "" // only counts
}

func (c *place) natTarget(proto string) string {
	g := c.g
	ports := proto == "tcp" || proto == "udp"
	with := func(addr string) string {
		if ports && g.chance(60) {
			return addr + ":" + g.one(destPorts...)
		}
		return addr
	}
	switch c.hook {
	case "prerouting", "output":
		switch g.IntN(5) {
		case 0:
			if ports {
				return "-j REDIRECT --to-ports " + g.one("8080", "15001")
			}
			return "-j REDIRECT"
		case 1:
			return "-j NETMAP --to 10.2.77.0/24"
		}
		return "-j DNAT --to-destination " + with(g.one("10.2.3.1", "10.2.5.5", "10.2.0.1", "10.1.0.1"))
	case "postrouting":
		switch g.IntN(4) {
		case 0:
			return "-j SNAT --to-source 10.3.9.9"
		case 1:
			return "-j NETMAP --to 10.3.88.0/24"
		case 2:
			return c.notLo() + "-j MASQUERADE --random-fully"
		}
		return c.notLo() + "-j MASQUERADE"
	}
	return "-j SNAT --to-source 10.99.0.1" // input
}

// notLo keeps a rule from what the node sends to itself: masqueraded, it would be
// answered.
func (c *place) notLo() string {
	if c.hasOut {
		return "-m addrtype ! --dst-type LOCAL "
	}
	return "! -o lo "
}
