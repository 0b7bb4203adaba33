package linux

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"slipway/datapath"
	"slipway/internal/ordered"
)

// The parts of a policy rule (linux include/uapi/linux/fib_rules.h).
const (
	ruleHeaderLen = 12 // struct fib_rule_hdr

	ruleInvert = 0x2 // FIB_RULE_INVERT

	ruleToTable     = 1 // FR_ACT_TO_TBL
	ruleGotoAction  = 2
	ruleNop         = 3
	ruleBlackhole   = 6
	ruleUnreachable = 7
	ruleProhibit    = 8

	fraSPortMask = 28 // FRA_SPORT_MASK, Linux 6.15
	fraDPortMask = 29
)

var ruleActions = map[uint8]string{
	ruleToTable: "lookup", ruleGotoAction: "goto", ruleNop: "nop",
	ruleBlackhole: "blackhole", ruleUnreachable: "unreachable", ruleProhibit: "prohibit",
}

// policy reads what `ip rule` shows.
func (c *collection) policy() error {
	header := make(raw, ruleHeaderLen)
	header[0] = unix.AF_INET
	messages, err := dump(unix.NETLINK_ROUTE, unix.RTM_GETRULE, header)
	if err != nil {
		return fmt.Errorf("list policy rules: %w", err)
	}
	for _, m := range messages {
		attrs, err := body(m, ruleHeaderLen)
		if err != nil {
			return fmt.Errorf("list policy rules: %w", err)
		}
		c.st.Policy = append(c.st.Policy, policyRule(m[:ruleHeaderLen], attrs))
	}
	slices.SortStableFunc(c.st.Policy, func(a, b datapath.PolicyRule) int { return cmp.Compare(a.Priority, b.Priority) })
	return nil
}

func policyRule(header, attrs []byte) datapath.PolicyRule {
	r := datapath.PolicyRule{Table: int(header[4]), Action: ruleActions[header[7]], Invert: u32(header[8:])&ruleInvert != 0}
	if r.Action == "" {
		r.Action = fmt.Sprintf("action-%d", header[7])
	}
	words := map[uint16]string{} // selectors that are not evaluated
	var tos, after, end []string // what comes before them, follows the table, ends the line
	if header[3] != 0 {
		tos = append(tos, fmt.Sprintf("tos 0x%02x", header[3]))
	}
	for kind, v := range attributes(attrs) {
		switch kind {
		case vnl.FRA_SRC:
			r.Src = netip.PrefixFrom(ipv4(v), int(header[2]))
		case vnl.FRA_DST:
			r.Dst = netip.PrefixFrom(ipv4(v), int(header[1]))
		case vnl.FRA_IIFNAME:
			r.IIf = text(v)
		case vnl.FRA_OIFNAME:
			r.OIf = text(v)
		case vnl.FRA_PRIORITY:
			r.Priority = int(u32(v))
		case vnl.FRA_FWMARK:
			r.Mark = u32(v)
		case vnl.FRA_FWMASK:
			r.Mask = u32(v)
		case vnl.FRA_TABLE:
			r.Table = int(u32(v))
		case vnl.FRA_GOTO:
			r.Goto = int(u32(v))
		case vnl.FRA_SUPPRESS_PREFIXLEN:
			if n := int32(u32(v)); n != -1 {
				after = append(after, fmt.Sprintf("suppress_prefixlength %d", n))
			}
		case vnl.FRA_SUPPRESS_IFGROUP:
			if n := int32(u32(v)); n != -1 {
				after = append(after, fmt.Sprintf("suppress_ifgroup %d", n))
			}
		case vnl.FRA_PROTOCOL:
			if p := u8(v); p != unix.RTPROT_KERNEL && p != unix.RTPROT_UNSPEC {
				end = append(end, "proto "+protocolName(int(p)))
			}
		default:
			if s := selector(kind, v); s != "" {
				words[kind] = s
			}
		}
	}
	other := inOrder(words)
	r.Text = ruleText(r, tos, other, after, end)
	r.Other = strings.Join(slices.Concat(tos, other, after), " ")
	return r
}

// inOrder puts selectors in the order in which `ip rule` prints them.
func inOrder(words map[uint16]string) []string {
	kinds := ordered.Keys(words)
	printed := []uint16{vnl.FRA_L3MDEV, vnl.FRA_UID_RANGE, vnl.FRA_IP_PROTO, vnl.FRA_SPORT_RANGE, vnl.FRA_DPORT_RANGE, vnl.FRA_TUN_ID}
	slices.SortStableFunc(kinds, func(a, b uint16) int { return cmp.Compare(slices.Index(printed, a), slices.Index(printed, b)) })
	var out []string
	for _, k := range kinds {
		out = append(out, words[k])
	}
	return out
}

// selector words one that is not evaluated.
func selector(kind uint16, v []byte) string {
	ports := func(name string) string {
		from, to := u16(v), u16(v[min(2, len(v)):])
		if from == to {
			return fmt.Sprintf("%s %d", name, from)
		}
		return fmt.Sprintf("%s %d-%d", name, from, to)
	}
	switch kind {
	case vnl.FRA_L3MDEV:
		if u8(v) == 0 {
			return ""
		}
		return "lookup [l3mdev-table]"
	case vnl.FRA_UID_RANGE:
		return fmt.Sprintf("uidrange %d-%d", u32(v), u32(v[min(4, len(v)):]))
	case vnl.FRA_IP_PROTO:
		return "ipproto " + ipProtocol(u8(v))
	case vnl.FRA_SPORT_RANGE:
		return ports("sport")
	case vnl.FRA_DPORT_RANGE:
		return ports("dport")
	case vnl.FRA_TUN_ID:
		return "tun_id " + strconv.FormatUint(uint64(be32(v))<<32|uint64(be32(v[min(4, len(v)):])), 10)
	case vnl.FRA_FLOW:
		return fmt.Sprintf("realms %d", u32(v))
	case fraSPortMask, fraDPortMask:
		if u16(v) == 0xffff { // the whole port
			return ""
		}
	case vnl.FRA_PAD:
		return ""
	}
	return fmt.Sprintf("attribute-%d", kind)
}

func ipProtocol(p uint8) string {
	switch p {
	case unix.IPPROTO_ICMP:
		return "icmp"
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

// ruleText is the rule as `ip rule` prints it (iproute2 ip/iprule.c, print_rule),
// with a space where that has a tabulator.
func ruleText(r datapath.PolicyRule, tos, other, after, end []string) string {
	s := []string{fmt.Sprintf("%d:", r.Priority)}
	if r.Invert {
		s = append(s, "not")
	}
	s = append(s, "from "+prefixText(r.Src, "all"))
	if r.Dst.IsValid() {
		s = append(s, "to "+prefixText(r.Dst, "all"))
	}
	s = append(s, tos...)
	if r.Mark != 0 || r.Mask != 0 {
		mark := fmt.Sprintf("fwmark %#x", r.Mark)
		if r.Mask != 0xffffffff {
			mark += fmt.Sprintf("/%#x", r.Mask)
		}
		s = append(s, mark)
	}
	if r.IIf != "" {
		s = append(s, "iif "+r.IIf)
	}
	if r.OIf != "" {
		s = append(s, "oif "+r.OIf)
	}
	s = append(s, other...)
	if r.Table != 0 {
		s = append(s, "lookup "+tableName(r.Table))
	}
	s = append(s, after...)
	switch r.Action {
	case "lookup":
	case "goto":
		s = append(s, fmt.Sprintf("goto %d", r.Goto))
	default:
		s = append(s, r.Action)
	}
	return strings.Join(append(s, end...), " ")
}

// prefixText writes a single address without its length, as iproute2 does.
func prefixText(p netip.Prefix, none string) string {
	switch {
	case !p.IsValid():
		return none
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
